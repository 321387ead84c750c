"""Precisions on ONNX Runtime, and what TensorRT's engines consist of."""

from __future__ import annotations

import json
from typing import Any

from .shared import ABSENT, RESULTS, points, read


def precision() -> str:
    """float32 against int8 on ONNX Runtime."""
    found = read("precision.json")
    if found is None:
        return ABSENT
    rows = [
        "| network | form | latency, ms | times as fast as fp32 (95% interval) | top-1 | lost, points | same top-1 class | file, MB |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name, one in found["networks"].items():
        for form, latency in one["latency_ms"].items():
            rows.append(_form(name, form, latency, one))
    return "\n".join(rows)


def float_operators() -> str:
    """What int8 loses and gains with and without the operators that it keeps in float."""
    found = read("float_operators.json")
    if found is None:
        return ABSENT
    rows = [
        "| network | judged by | form | times as fast as fp32 (95% interval) | lost, points | kept in float |",
        "|---|---|---|---|---|---|",
    ]
    for name, one in found["networks"].items():
        for form, ratio in one["speedup"].items():
            kept = ", ".join(f"{count} {kind}" for kind, count in one["kept_in_float"].items() if kind in _NAMED)
            rows.append(
                f"| {name} | {one['task']} | {form} | {_ratio(ratio)} | {points(one['lost'][form]['points']) if one['lost'] else ''} | {kept if form == 'int8' else ''} |"
            )
    return "\n".join(rows)


def ranges() -> str:
    """What int8 loses by how its ranges are chosen."""
    found = read("ranges.json")
    if found is None:
        return ABSENT
    methods = list(next(iter(found["networks"].values()))["lost"])
    rows = [f"| network | judged by | {' | '.join(methods)} |", f"|---|---|{'---|' * len(methods)}"]
    for name, one in found["networks"].items():
        lost = " | ".join(points(one["lost"][method]["points"]) for method in methods)
        rows.append(f"| {name} | {one['task']} | {lost} |")
    return "\n".join(rows)


def peers() -> str:
    """What other tools make of the same networks and images."""
    found = read("peers.json")
    if found is None:
        return ABSENT
    rows = [
        "| network | images to fit | made by | times as fast as the original in fp32 (95% interval) | top-1 | lost, points |",
        "|---|---|---|---|---|---|",
    ]
    for name, one in found["networks"].items():
        for label, ratio in one["speedup"].items():
            top1 = f"{one['accuracy'][label]['percent']['estimate']:.1f}%"
            lost = points(one["lost"][label]["points"])
            rows.append(f"| {name} | {one['fit_images']} | {label} | {_ratio(ratio)} | {top1} | {lost} |")
    return "\n".join(rows)


_NAMED = {"Softmax", "LayerNormalization", "Add", "Mul", "Sigmoid", "Concat"}
"""Others only rearrange values."""


def frontier() -> str:
    """What blocks and precision give alone and together, and what was built."""
    found = [json.loads(file.read_text()) for file in sorted((RESULTS / "frontier").glob("*.json"))]
    if not found:
        return ABSENT
    rows = [
        "| network | images to fit | points | point | times as fast as the original in fp32 (95% interval) | lost, points, estimated |",
        "|---|---|---|---|---|---|",
        *(row for each in found for row in _points(each)),
        "",
        "| network | built | points built | over the original in fp32 | over it in the same precision | top-1 | lost, points | verdict | wall time |",
        "|---|---|---|---|---|---|---|---|---|",
        *(_released(each) for each in found),
    ]
    return "\n".join(rows)


def _points(found: dict[str, Any]) -> list[str]:
    """The points on the front."""
    front = [point for point in found["levers"]["points"] if point["on_front"] and point["speedup"]["estimate"] != 1]
    head = f"| {found['name']} | {found['images']['fit']} | {len(found['levers']['points'])}"
    return [
        f"{head} | {_blocks(point['dropped'])} dropped, {point['precision']} | {_ratio(point['speedup'])} | {points(point['loss']['points'])} |"
        for point in sorted(front, key=lambda point: point["speedup"]["estimate"])
    ]


def _released(found: dict[str, Any]) -> str:
    accuracy, same = found["verification"]["accuracy"], found["engines"]
    before, after = (each["p50_ms"]["estimate"] for each in same)
    top1 = " → ".join(f"{accuracy[form]['percent']['estimate']:.1f}%" for form in ("teacher", "engine"))
    return (
        f"| {found['name']} | {_blocks(found['plan']['dropped'])} dropped, {found['conditions']['precision']} | {len(found['levers'].get('built', [0]))} | {_ratio(found['speedup'])} "
        f"| {before / after:.2f} | {top1} | {points(found['verification']['loss']['points'])} | {found['verdict']['answer']} | {found['wall_s'] / 60:.1f} min |"
    )


def _blocks(dropped: list[str]) -> str:
    return f"{len(dropped)} block{'' if len(dropped) == 1 else 's'}"


def _ratio(ratio: dict[str, float]) -> str:
    return f"{ratio['estimate']:.2f} [{ratio['low']:.2f}, {ratio['high']:.2f}]"


def _form(name: str, form: str, latency: dict[str, float], one: dict[str, Any]) -> str:
    faster = one["speedup"].get(form)
    judged = one["quality"].get(form)
    shown = "" if faster is None else f"{faster['estimate']:.2f} [{faster['low']:.2f}, {faster['high']:.2f}]"
    top1 = f"{judged['accuracy']['ONNX']['percent']['estimate']:.1f}%" if judged and judged["accuracy"] else ""
    agree = f"{judged['agreement_percent']['estimate']:.1f}%" if judged else ""
    lost = points(judged["drop_points"]) if judged else ""
    called = "fp32" if form == "original" else form
    return f"| {name} | {called} | {latency['estimate']:.2f} | {shown} | {top1} | {lost} | {agree} | {one['file_mb'][form]:.1f} |"


def engines() -> str:
    """What TensorRT's engines consist of, and on GPUs how fast they are."""
    found = read("tensorrt.json")
    if found is None:
        return ABSENT
    rows = [
        "| network | precision | convolutions: plain, pruned | layers: plain, pruned | in the precision | engine, MB: plain, pruned |",
        "|---|---|---|---|---|---|",
    ]
    for device, entry in found["devices"].items():
        rows.append(f"| **{device}** ({_listed(entry['versions'])}) | | | | | |")
        for name, one in entry["networks"].items():
            for kind in ("fp32", "fp16", "int8"):
                pair = [row for row in one["engines"] if row["precision"] == kind and row["batch"] == "static"]
                every = [row for row in one["engines"] if row["precision"] == kind]
                rows.append(_engine(name, kind, pair, every))
    return "\n".join(rows)


def _listed(versions: dict[str, str]) -> str:
    return ", ".join(f"{name} {version}" for name, version in versions.items())


def _engine(name: str, kind: str, pair: list[dict[str, Any]], every: list[dict[str, Any]]) -> str:
    layers, convolutions = (", ".join(str(row[key]) for row in pair) for key in ("layers", "convolutions"))
    least = min(row["precision_share"] for row in every)
    size = ", ".join(f"{row['engine_mb']:.1f}" for row in pair)
    return f"| {name} | {kind} | {convolutions} | {layers} | {100 * least:.0f}% | {size} |"
