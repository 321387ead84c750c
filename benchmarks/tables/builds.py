"""The builds of the README."""

from __future__ import annotations

import json

from .shared import RESULTS

TITLES = {
    "digits": "embedded digits (ResNet-20, 28x28)",
    "efficientnet-lite0-25": "EfficientNet-Lite0 (Imagenette, 224x224)",
    "resnet56": "ResNet-56 (CIFAR-10, 32x32)",
}


def builds() -> str:
    """The builds as a Markdown table."""
    rows = [
        "| network | images to fit | target | blocks dropped | latency p50 | speed-up (95% interval) | top-1 | change in points | wall time, peak memory |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for name, title in TITLES.items():
        path = RESULTS / f"build_{name}.json"
        if path.is_file():
            rows.append(row(title, json.loads(path.read_text())))
    return "\n".join(rows)


def row(title: str, found: dict) -> str:
    """One build."""
    before, after = found["engines"]
    ratio, accuracy = found["speedup"], found["verification"]["accuracy"]
    drop = found["verification"]["loss"]["points"]
    return (
        f"| {title} | {found['images']['fit']} | {_asked(found)} | {len(found['plan']['dropped'])} "
        f"| {_ms(before)} → {_ms(after)} ms "
        f"| {ratio['estimate']:.3f} [{ratio['low']:.3f}, {ratio['high']:.3f}] "
        f"| {_top1(accuracy['teacher'])} → {_top1(accuracy['engine'])} "
        f"| {-drop['estimate']:+.1f} [{-drop['high']:+.1f}, {-drop['low']:+.1f}] "
        f"| {found['wall_s'] / 60:.1f} min, {found['peak_memory_mb'] / 1000:.1f} GB |"
    )


def _asked(found: dict) -> str:
    """The target, and what became of the promise."""
    return f"{found['plan']['target_percent']:g}% less: {found['verdict']['answer']}"


def _ms(engine: dict) -> str:
    return f"{engine['p50_ms']['estimate']:.3g}"


def _top1(found: dict) -> str:
    return f"{found['percent']['estimate']:.1f}%"
