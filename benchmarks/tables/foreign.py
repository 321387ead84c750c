"""Files of others, a text encoder, and the zoo: what was built of them, and what comes back from ONNX."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

from .shared import ABSENT, ROOT, read

_FOLDER = ROOT / "benchmarks" / "results" / "foreign"
_TASKS = {
    "classification": "the same top-1 class",
    "ctc": "the same characters",
    "detection": "boxes matched",
    "embedding": "mean cosine",
}


def foreign() -> str:
    """A row for each build of each file."""
    found = [json.loads(file.read_text()) for file in sorted(_FOLDER.glob("*.json"))]
    if not found:
        return ABSENT
    rows = [
        "| network | fitted on | asked | blocks dropped | times as fast (95% interval) | agreement with the original (95% interval) | verdict |",
        "|---|---|---|---|---|---|---|",
        *(_row(each, build) for each in found for build in each["builds"]),
    ]
    savings = [
        f"{each['network']} {sum(each['savings_percent'].values()):.0f}%"
        for each in found
        if each.get("savings_percent")
    ]
    made = ", ".join(sorted({build.get("commit", each["commit"]) for each in found for build in each["builds"]}))
    return "\n".join(
        [
            *rows,
            "",
            f"All droppable blocks together save, by the latency tables: {', '.join(savings)}.",
            "",
            f"Commits {made}.",
        ]
    )


def _row(each: dict[str, Any], build: dict[str, Any]) -> str:
    fitted = f"{each['fitted_on']} {each['images']}"
    asked = ", ".join(f"--{name.replace('_', '-')} {value}" for name, value in build["asked"].items())
    if "refused" in build:
        parts = build["refused"].split("; ")
        why = "; ".join([parts[0], *(part for part in parts[1:] if part.startswith("even "))])
        return f"| {each['network']} | {fitted} | `{asked}` | none | {why} | | |"
    speedup, same = build["speedup"], build["agreement_percent"]
    return (
        f"| {each['network']} | {fitted} | `{asked}` | {len(build['dropped'])} of {each['blocks']} "
        f"| {speedup['estimate']:.3f} [{speedup['low']:.3f}, {speedup['high']:.3f}] "
        f"| {_TASKS[each['task']]} {same['estimate']:.1f}% [{same['low']:.1f}, {same['high']:.1f}] of {build['images_judged']} "
        f"| {build['verdict'].partition(':')[0].lower()} |"
    )


def zoo() -> str:
    """How many networks pass, and why the others do not."""
    found = read("zoo.json")
    if found is None:
        return ABSENT
    rows = found["networks"]
    held = [row for row in rows if row.get("droppable")]
    passed = sum(row["ended"] == "passed" for row in held)
    ended = Counter(_ending(row["ended"]) for row in rows)
    made = ", ".join(sorted({row["commit"] for row in rows}))
    return "\n".join(
        [
            f"{len(rows)} networks ran. {len(held)} hold a block that can be dropped; {passed} of these pass ({100 * passed / max(1, len(held)):.1f}%).",
            "",
            "| ends with | networks |",
            "|---|---|",
            *(f"| {ending} | {count} |" for ending, count in ended.most_common()),
            "",
            f"Commits {made}.",
        ]
    )


def _ending(text: str) -> str:
    """An ending without the names in it."""
    for words in (
        "no block can be dropped",
        "is a detector",
        "can be dropped of its ONNX",
        "has no counterpart",
        "cannot be exported",
    ):
        if words in text:
            return f"{text.partition(':')[0]}: {words}"
    return text if len(text) < 40 else f"{text[:90]}..."
