"""A fake but complete release, and one in which everything that may be absent is absent."""

from __future__ import annotations

from dataclasses import replace

from practise_backends.terms import Interval
from practise_deploy.outcome import (
    Accuracy,
    Answer,
    Criterion,
    DeployedModel,
    ExportedModel,
    Frontier,
    FrontierPoint,
    GateResult,
    OutputDiff,
    Release,
    Verdict,
    Verification,
)
from practise_deploy.terms import Budget, DatasetSummary, Student
from samples.measured import (
    CONDITIONS,
    DEVICE,
    around,
    comparison,
    environment,
    figures,
    samples,
    scenarios,
    throughput,
)
from samples.plans import DROPPED, NAMES, blocks, latency, loss, network, plan, recoverability

__all__ = [
    "CONDITIONS",
    "DEVICE",
    "around",
    "comparison",
    "environment",
    "figures",
    "loss",
    "samples",
    "scenarios",
    "throughput",
]

COMMAND = "practise-deploy build --network torchvision:resnet34 --data photos --reduce 20%"
SENTENCE = "1.27× faster at the bad end of the interval, and accuracy fell by 0.6 points at most 1.4."


def student(method: str, mse: float) -> Student:
    """A pruned network after a stage of recovery."""
    return Student(
        dropped=DROPPED,
        method=method,
        mse_before=0.0931,
        mse=mse,
        steps=300,
        seconds=74.2,
        judged_on="100 validation images",
        notes=("stopped early: no gain",),
    )


def shipped() -> ExportedModel:
    """The exported file."""
    return ExportedModel(
        path="runs/resnet34/network.onnx",
        sha256="c1" * 32,
        bytes=85_912_345,
        opset=18,
        nodes=71,
        dynamic_batch=False,
    )


def compiled() -> DeployedModel:
    """On ONNX Runtime the device runs the exported file."""
    return DeployedModel(
        path="network.onnx",
        sha256="c1" * 32,
        bytes=85_912_345,
        format="onnx",
        precision="fp32",
        precision_share=1.0,
        others={},
        layers=None,
        targets=(),
        provider="",
        files_sha256={},
        notes=(),
    )


def built_ahead() -> Release:
    """A build for GPUs that are not at hand: the engine is proved, and ran nowhere."""
    whole = release()
    engine = replace(
        compiled(),
        path="network.engine",
        format="tensorrt",
        precision="fp16",
        precision_share=0.975,
        others={"head": "Float"},
        layers=34,
        targets=("sm86", "sm89"),
        provider="tensorrt_rtx 1.7.1",
    )
    checked = replace(
        whole.verification,
        links=(*whole.verification.links[:2], replace(whole.verification.links[-1], after="ONNX")),
        accuracy={name: one for name, one in whole.verification.accuracy.items() if name != "engine"},
    )
    return replace(
        whole,
        compiled=engine,
        verification=checked,
        plan=replace(whole.plan, measured_percent=None),
        bench=None,
        speedup=None,
        throughput=(),
        frontier=Frontier(points=(), fit_images=0, images=0),
        gate=None,
    )


def unlabelled() -> Release:
    """A build whose images carry no labels: every loss is an estimate."""
    whole = release()
    return replace(
        whole,
        images=replace(whole.images, labelled=False),
        verification=replace(whole.verification, accuracy={}, loss=replace(whole.verification.loss, estimated=True)),
        frontier=replace(
            whole.frontier,
            points=tuple(
                replace(point, accuracy=None, loss=replace(point.loss, estimated=True))
                for point in whole.frontier.points
            ),
        ),
    )


def verification() -> Verification:
    """A faithful network, a little less accurate."""
    pairs = (
        ("teacher", "student", 1.93, 91.4),
        ("student", "ONNX", 2.1e-5, 100.0),
        ("ONNX", "engine", 0.0, 100.0),
        ("teacher", "engine", 1.93, 91.4),
    )
    return Verification(
        links=tuple(
            OutputDiff(
                before=before,
                after=after,
                max_abs=largest,
                rms=largest / 9,
                relative_rms=largest / 9,
                cosine=0.9713 if largest > 1 else 0.99999997,
                agreement_percent=Interval(estimate=share, low=share - 3.1, high=share, confidence=0.95),
                images=500,
            )
            for before, after, largest, share in pairs
        ),
        accuracy={
            "teacher": Accuracy(percent=around(73.4, 3.9), correct=367, images=500),
            "student": Accuracy(percent=around(72.8, 3.9), correct=364, images=500),
            "ONNX": Accuracy(percent=around(72.8, 3.9), correct=364, images=500),
            "engine": Accuracy(percent=around(72.8, 3.9), correct=364, images=500),
        },
        loss=loss(around(0.6, 0.8)),
        images=500,
        faithful=True,
        problems=(),
    )


def frontier_point(many: int, recovery: str, reduction: float, accuracy: float) -> FrontierPoint:
    """So many blocks dropped."""
    lost = 73.4 - accuracy
    return FrontierPoint(
        dropped=DROPPED[:many] if many <= len(DROPPED) else (*DROPPED, *NAMES[5 : many + 1]),
        recovery=recovery,
        reduction_percent=around(reduction, 0.3),
        accuracy=Accuracy(percent=around(accuracy, 3.9), correct=round(5 * accuracy), images=500),
        agreement_percent=Interval(
            estimate=100 - 2 * lost, low=97 - 2.2 * lost, high=100 - 1.7 * lost, confidence=0.95
        ),
        loss=loss(around(lost, 0.8 + 0.2 * lost), 100 - 2 * lost),
        chosen=many == len(DROPPED),
    )


def frontier() -> Frontier:
    """Up to six blocks, the plan's four also without recovery and finetuned."""
    closed = ((1, 6.0, 73.2), (2, 11.7, 72.8), (3, 16.8, 72.0), (4, 21.9, 70.4), (5, 26.6, 66.2), (6, 31.0, 58.8))
    return Frontier(
        points=(
            *(frontier_point(many, "closed form", reduction, accuracy) for many, reduction, accuracy in closed),
            frontier_point(4, "none", 21.9, 48.2),
            frontier_point(4, "finetuned", 21.9, 72.8),
        ),
        fit_images=500,
        images=500,
    )


def gate(most_points: float = 1.5) -> GateResult:
    """The speed-up passes; the accuracy does where so many points may be lost, else two blocks would.

    From 0.6 points on that is only not proven, below it is broken.
    """
    passed = most_points >= 1.4
    answer = Answer.KEPT if passed else Answer.NOT_PROVEN if most_points >= 0.6 else Answer.BROKEN
    lost = Criterion(
        name="max_drop",
        required=most_points,
        measured=around(0.6, 0.8),
        answer=answer,
        reason=f"1.4 points at the bad end against {most_points:g}",
    )
    faster = Criterion(
        name="min_speedup",
        required=1.2,
        measured=around(1.281, 0.006),
        answer=Answer.KEPT,
        reason="1.275 at the bad end is no less than 1.2",
    )
    return GateResult(
        constraints=(faster, lost),
        nearest=None if passed else frontier_point(2, "closed form", 11.7, 73.2),
        advice="" if passed else "More held-out images narrow the interval: 2,000 would decide it.",
    )


def release() -> Release:
    """A build that kept its promise."""
    return Release(
        network=network(),
        blocks=blocks(),
        images=DatasetSummary(
            fit=500, held_out=500, labelled=True, source="photos", skipped=("photos/broken.jpg",), notes=()
        ),
        recipe="refit",
        latency=latency(),
        recoverability=recoverability(),
        plan=plan(),
        recovered=student("closed-form refit", 0.0212),
        finetuned=student("feature mimicking", 0.0124),
        exported=shipped(),
        compiled=compiled(),
        verification=verification(),
        bench=comparison(),
        throughput=throughput(),
        frontier=frontier(),
        gate=gate(),
        speedup=comparison().speedup,
        verdict=Verdict(answer=Answer.KEPT, exit_code=0, sentence=SENTENCE, reasons=("latency fell by 21.9%",)),
        seconds={"latency": 61.2, "recoverability": 92.0, "finetune": 3700.0},
        command=COMMAND,
    )


def bare_release() -> Release:
    """A build in which all that may be absent is absent."""
    whole = release()
    none = dict(p50_ms=None, p90_ms=None, load_ms=None, first_run_ms=None, peak_memory_mb=None, precision_share=None)
    return replace(
        whole,
        network=replace(whole.network, output_classes=None, notes=()),
        images=replace(whole.images, labelled=False, skipped=()),
        recoverability=(),
        plan=replace(
            whole.plan,
            budget=Budget(),
            target_percent=None,
            dropped=(),
            kept=(),
            scores={},
            attempts=(),
            measured_percent=None,
            selection_frequency={},
            set_frequency=None,
            considered=(),
        ),
        verification=replace(whole.verification, accuracy={}, loss=None),
        latency=replace(whole.latency, twins=(), sets=(), additivity=None, environment=None, notes=()),
        bench=replace(
            whole.bench,
            engines=tuple(replace(one, **none) for one in whole.bench.engines),
            environment=None,
            discarded=(),
            samples={},
        ),
        throughput=(),
        frontier=Frontier(points=(), fit_images=0, images=0),
        gate=None,
        verdict=Verdict(answer=Answer.BROKEN, exit_code=1, sentence="No block could be dropped.", reasons=()),
        seconds={},
    )
