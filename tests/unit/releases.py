"""A fake but complete release, and one in which everything that may be absent is absent."""

from __future__ import annotations

from dataclasses import replace

from practise_backends.terms import Interval, LatencyTable, Saving, SetCheck, TwinCheck
from practise_deploy.terms import (
    Accuracy,
    Attempt,
    Block,
    Budget,
    Considered,
    Constraint,
    DataFacts,
    Frontier,
    FrontierPoint,
    Gate,
    Kept,
    Link,
    NetworkFacts,
    Plan,
    Preprocessing,
    Recoverability,
    Release,
    Shipped,
    Student,
    Verdict,
    Verification,
)
from unit.measured import (
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

__all__ = [
    "CONDITIONS",
    "DEVICE",
    "around",
    "comparison",
    "environment",
    "figures",
    "samples",
    "scenarios",
    "throughput",
]

COMMAND = "practise-deploy build --network torchvision:resnet34 --data photos --reduce 20%"
SENTENCE = "1.27× faster at the bad end of the interval, and accuracy fell by 0.6 points at most 1.4."
# name, saving in ms, relative recoverability, kept because (empty: dropped)
_BLOCKS = (
    ("layer1.0", 1.92, 0.021, "the target was met without it"),
    ("layer1.1", 1.92, 0.009, ""),
    ("layer1.2", 1.92, 0.012, ""),
    ("layer2.1", 1.61, 0.034, "the target was met without it"),
    ("layer2.2", 1.61, 0.011, ""),
    ("layer2.3", 1.61, 0.013, ""),
    ("layer3.1", 1.48, 0.118, "the target was met without it"),
    ("layer3.2", 1.48, 0.064, "the target was met without it"),
    ("layer3.3", 1.48, 0.051, "the target was met without it"),
    ("layer3.4", 1.48, 0.047, "the target was met without it"),
    ("layer3.5", 1.48, 0.072, "the target was met without it"),
    ("layer4.1", 1.31, 0.410, "the target was met without it"),
    ("layer4.2", 0.02, None, "no measurable saving"),
)
NAMES = tuple(name for name, *_ in _BLOCKS)
DROPPED = tuple(name for name, _, _, reason in _BLOCKS if not reason)


def blocks() -> tuple[Block, ...]:
    """The network's blocks, the first of which cannot go."""
    found = [
        Block(
            name=name,
            kind="basic",
            shape=(64, 56, 56),
            parameters=73_984,
            macs=231_211_008,
            latency_class=int(name[5]),
            droppable=True,
            reason="",
            entry="relu",
            exit="add",
        )
        for name in NAMES
    ]
    stuck = replace(found[0], name="layer2.0", droppable=False, reason="its skip has a convolution")
    return (stuck, *found)


def preprocessing() -> Preprocessing:
    """The usual one of photographs."""
    return Preprocessing(
        channels=3,
        size=(224, 224),
        resize=256,
        mean=(0.485, 0.456, 0.406),
        std=(0.229, 0.224, 0.225),
        interpolation="bilinear",
        augment="crop-flip",
        assumed=("resize",),
    )


def network() -> NetworkFacts:
    """A ResNet-34 in all but the weights."""
    return NetworkFacts(
        name="torchvision:resnet34",
        weights="IMAGENET1K_V1",
        sha256="b6" * 32,
        parameters=21_797_672,
        macs=3_663_761_920,
        output_classes=1000,
        feature="layer4",
        preprocessing=preprocessing(),
        notes=("assumed: resize (the network states none; see --input-size, --mean, --std)",),
    )


def latency() -> LatencyTable:
    """Savings of all candidates; the last one is lost in the noise."""
    return LatencyTable(
        network="torchvision:resnet34",
        backend="ort",
        device=DEVICE,
        conditions=CONDITIONS,
        input_shape=(1, 3, 224, 224),
        baseline_ms=around(31.42, 0.11),
        aa_ratio=around(1.0004, 0.0018),
        resolution_ms=0.0566,
        session_percent=0.41,
        estimator="median of the paired log-ratios",
        estimator_errors_percent={"median of the paired log-ratios": 0.21, "mean": 0.4},
        savings=tuple(
            Saving(
                block=name,
                latency_class=int(name[5]),
                saving_ms=around(saving, 0.07),
                reduction_percent=around(100 * saving / 31.42, 0.22),
                pooled_with=(),
                distinguishable=saving > 0.1,
            )
            for name, saving, *_ in _BLOCKS
        ),
        twins=(
            TwinCheck(
                latency_class=3,
                blocks=("layer3.1", "layer3.5"),
                difference_percent=around(0.07, 0.24),
                same=True,
            ),
        ),
        sets=tuple(
            SetCheck(
                dropped=names,
                predicted_percent=predicted,
                measured_percent=around(measured, 0.3),
            )
            for names, predicted, measured in (
                (("layer1.0", "layer3.1"), 10.8, 10.4),
                (("layer1.1", "layer2.1", "layer4.1"), 15.4, 14.9),
                (("layer1.2", "layer2.2", "layer3.3", "layer3.5"), 20.7, 19.6),
                (NAMES[:8], 43.1, 41.2),
            )
        ),
        additivity=around(0.957, 0.014),
        environment=environment(),
        notes=("threads were pinned to cores 0 and 1",),
        warmup_s=2.1,
        rounds=640,
        discarded=("round 17: 'original' took 190 ms, more than 5 times its running median of 31.4 ms",),
        stopped_because="the interval of every ratio is within +-0.25%",
    )


def recoverability() -> tuple[Recoverability, ...]:
    """Of the blocks that save something."""
    return tuple(
        Recoverability(
            block=name,
            mse=around(0.4 * relative, 0.02 * relative),
            mse_dropped=1.7 * relative,
            relative=relative,
            fit_images=500,
            judged_images=125,
            method="closed-form refit",
        )
        for name, _, relative, _ in _BLOCKS
        if relative is not None
    )


def plan() -> Plan:
    """Four blocks for a fifth of the latency."""
    return Plan(
        budget=Budget(reduce_percent=20.0),
        target_percent=20.0,
        baseline_ms=31.42,
        dropped=DROPPED,
        kept=tuple(Kept(block=name, reason=reason) for name, _, _, reason in _BLOCKS if reason),
        scores={name: 0.4 * share / (saving - 0.07) for name, saving, share, _ in _BLOCKS if share},
        predicted_ms=24.36,
        device=DEVICE.name,
        predicted_percent=around(22.5, 0.4),
        measured_percent=around(21.9, 0.31),
        attempts=(
            Attempt(
                dropped=DROPPED[:3], predicted_percent=around(17.3, 0.35), measured_percent=around(16.8, 0.3), met=False
            ),
            Attempt(
                dropped=DROPPED, predicted_percent=around(22.5, 0.4), measured_percent=around(21.9, 0.31), met=True
            ),
        ),
        reached=True,
        chosen_share={
            name: {"layer2.3": 0.76, "layer1.0": 0.21}.get(name, float(name in DROPPED))
            for name, _, share, _ in _BLOCKS
            if share
        },
        set_share=0.71,
        considered=(considered(DROPPED, 4.21, 0.0212, ""), considered(NAMES[:4], 4.02, 0.0247, "too dear")),
    )


def considered(dropped: tuple[str, ...], predicted: float, verified: float, reason: str) -> Considered:
    """A set that was verified; it was measured where it was taken."""
    return Considered(
        dropped=dropped,
        predicted_error=predicted,
        verified_error=verified,
        predicted_percent=around(22.5, 0.4),
        measured_percent=None if reason else around(21.9, 0.31),
        reason=reason,
    )


def student(method: str, mse: float) -> Student:
    """A pruned network after a stage of recovery."""
    return Student(
        dropped=DROPPED,
        method=method,
        mse_before=0.0931,
        mse=mse,
        steps=300,
        seconds=74.2,
        judged_on="100 images kept aside",
        notes=("stopped early: no gain",),
    )


def shipped() -> Shipped:
    """The exported file."""
    return Shipped(
        path="runs/resnet34/network.onnx",
        sha256="c1" * 32,
        bytes=85_912_345,
        opset=18,
        nodes=71,
        dynamic_batch=False,
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
            Link(
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
        drop_points=around(0.6, 0.8),
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
        drop_points=around(lost, 0.8 + 0.2 * lost),
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


def gate(most_points: float = 1.5) -> Gate:
    """The speed-up passes; the accuracy does where so many points may be lost, else two blocks would."""
    passed = most_points >= 1.4
    lost = Constraint(
        name="max_drop",
        asked=most_points,
        found=around(0.6, 0.8),
        passed=passed,
        reason=f"1.4 points at the bad end against {most_points:g}",
    )
    faster = Constraint(
        name="min_speedup",
        asked=1.2,
        found=around(1.281, 0.006),
        passed=True,
        reason="1.275 at the bad end is no less than 1.2",
    )
    return Gate(
        constraints=(faster, lost),
        passed=passed,
        nearest=None if passed else frontier_point(2, "closed form", 11.7, 73.2),
        advice="" if passed else "More held-out images narrow the interval: 2,000 would decide it.",
    )


def release() -> Release:
    """A build that kept its promise."""
    return Release(
        network=network(),
        blocks=blocks(),
        images=DataFacts(
            fit=500, held_out=500, labelled=True, source="photos", skipped=("photos/broken.jpg",), notes=()
        ),
        recipe="refit",
        latency=latency(),
        recoverability=recoverability(),
        plan=plan(),
        recovered=student("closed-form refit", 0.0212),
        finetuned=student("feature mimicking", 0.0124),
        shipped=shipped(),
        verification=verification(),
        bench=comparison(),
        throughput=throughput(),
        frontier=frontier(),
        gate=gate(),
        speedup=comparison().speedup,
        verdict=Verdict(kept=True, exit_code=0, sentence=SENTENCE, reasons=("latency fell by 21.9%",)),
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
            chosen_share={},
            set_share=None,
            considered=(),
        ),
        verification=replace(whole.verification, accuracy={}, drop_points=None),
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
        verdict=Verdict(kept=False, exit_code=1, sentence="No block could be dropped.", reasons=()),
        seconds={},
    )
