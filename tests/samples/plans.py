"""A fake but complete plan, with the network, the latency table and the recoverability that it is made from."""

from __future__ import annotations

from dataclasses import replace

from practise_backends.terms import Interval, LatencyTable, Saving, SetCheck, TwinCheck
from practise_deploy.terms import (
    Attempt,
    Block,
    Budget,
    Considered,
    Kept,
    Loss,
    NetworkSummary,
    Plan,
    Preprocessing,
    Recoverability,
)
from samples.measured import (
    CONDITIONS,
    DEVICE,
    around,
    environment,
)

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


def network() -> NetworkSummary:
    """A ResNet-34 in all but the weights."""
    return NetworkSummary(
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
        sets=set_checks(),
        additivity=around(0.957, 0.014),
        environment=environment(),
        notes=("threads were pinned to cores 0 and 1",),
        warmup_s=2.1,
        rounds=640,
        discarded=("round 17: 'original' took 190 ms, more than 5 times its running median of 31.4 ms",),
        stopped_because="the interval of every ratio is within +-0.25%",
    )


def set_checks() -> tuple[SetCheck, ...]:
    """Sets that saved a little less than their blocks together."""
    found = (
        (("layer1.0", "layer3.1"), 10.8, 10.4),
        (("layer1.1", "layer2.1", "layer4.1"), 15.4, 14.9),
        (("layer1.2", "layer2.2", "layer3.3", "layer3.5"), 20.7, 19.6),
        (NAMES[:8], 43.1, 41.2),
    )
    return tuple(
        SetCheck(dropped=names, predicted_percent=predicted, measured_percent=around(measured, 0.3))
        for names, predicted, measured in found
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
        selection_frequency={
            name: {"layer2.3": 0.76, "layer1.0": 0.21}.get(name, float(name in DROPPED))
            for name, _, share, _ in _BLOCKS
            if share
        },
        set_frequency=0.71,
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
        loss=loss(around(70 * verified, 1.1), images=125),
    )


def loss(points: Interval, agreement: float = 91.4, *, estimated: bool = False, images: int = 500) -> Loss:
    """So many points on so many images."""
    share = Interval(estimate=agreement, low=agreement - 3.1, high=min(100.0, agreement + 2.3), confidence=0.95)
    return Loss(points=points, estimated=estimated, agreement_percent=share, images=images)
