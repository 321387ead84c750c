"""Accuracy with tiny sets, and the ablation of the finetuning."""

from __future__ import annotations

from .shared import ABSENT, points, read


def tiny_sets() -> str:
    """Accuracy at equal latency, a table for every point that has results, and the figures of the comparison."""
    found = read("tiny_sets.json")
    if found is None:
        return ABSENT
    known = [point for point in found["points"] if any(each["seeds"] for each in point["methods"].values())]
    parts = [point_table(point) for point in known]
    missing = len(found["missing"])
    state = f"{missing} of {found['done'] + missing} units are missing." if missing else "All units are done."
    return "\n\n".join(filter(None, [*parts, _figures(found["figures"]), room(found["points"]), state]))


def point_table(point: dict) -> str:
    """All methods at one point."""
    rows = [
        f"**{point['network']}, {point['asked_percent']}% asked, {point['images']} images, {point['steps']} steps** (original {point['teacher_percent']:.2f}%)",
        "",
        "| method | seeds, steps in | top-1, mean ± std | less latency | `ours` minus it, points |",
        "|---|---|---|---|---|",
    ]
    ours = point["methods"].get("ours")
    for name, each in point["methods"].items():
        if not each["seeds"]:
            rows.append(f"| {name} | missing | | | |")
            continue
        wanted = len(each["seeds"]) + len(each["missing_seeds"])
        seeds = f"{len(each['seeds'])} of {wanted}" if each["missing_seeds"] else f"{wanted}"
        spread = "" if each["std"] is None else f" ± {each['std']:.2f}"
        cut, how = each["reduction_percent"], "measured" if each["reduction_measured"] else "predicted"
        less = f"{cut['estimate']:.1f}% [{cut['low']:.1f}, {cut['high']:.1f}], {how}"
        rows.append(
            f"| {name} | {seeds}, {' and '.join(each['precision'])} | {each['mean']:.2f}{spread} | {less} | {_minus(each, ours)} |"
        )
    return "\n".join([*rows, *_recovered(ours)])


def _minus(each: dict, ours: dict | None) -> str:
    """The paired difference, and the seeds it is of where a mean in the table is of others."""
    found = each.get("ours_minus")
    if not found or not ours or each["seeds"] == ours["seeds"] == found["seeds"]:
        return points(found)
    return f"{points(found)} (seed{'s' if len(found['seeds']) > 1 else ''} {', '.join(map(str, found['seeds']))})"


def _recovered(ours: dict | None) -> list[str]:
    """How `ours` was finetuned, as `build` said it; units from before it was kept are named by their seeds."""
    if not ours or not ours["seeds"]:
        return []
    unknown = ", ".join(str(seed) for seed in ours["recovery_unrecorded_seeds"])
    ways = [*ours["recovered_by"], *([f"seed {unknown}: made before this was recorded"] if unknown else [])]
    return ["", f"`ours`: {'; or '.join(ways)}."]


def _figures(figures: dict) -> str:
    """The paper's recipe at few images, and the best filter pruning at 22%."""
    rows = ["| `ours` minus | at | points |", "|---|---|---|"]
    few = figures["ours_minus_paper_mean_at_50_images"]
    rows.append(f"| paper | mean of {few['points']} points at 50 images, 22 and 30% | {points(few)} |")
    whole = figures["ours_minus_best_filters_mean_at_22"]
    rows.append(f"| the best filter pruning that was run | mean of {whole['points']} points at 22% | {points(whole)} |")
    rows += [
        f"| {_filters(each)} | {each['network']}, 22%, {each['images']} images | {points(each)} |"
        for each in figures["ours_minus_best_filters_at_22"]
    ]
    return "\n".join(rows)


def room(of: list[dict]) -> str:
    """How far the networks before any pruning are above the best filter pruning of them: what dropping blocks could gain at most."""
    rooms = []
    for point in of:
        filters = [
            each["mean"] for name, each in point["methods"].items() if name.startswith("filters") and each["seeds"]
        ]
        if point["asked_percent"] == 22 and filters:
            rooms.append(point["teacher_percent"] - max(filters))
    if not rooms:
        return ""
    mean = sum(rooms) / len(rooms)
    return f"The originals themselves are {mean:.2f} points above the best filter pruning of them, mean of {len(rooms)} points at 22%."


def _filters(each: dict) -> str:
    """The best filter pruning of a point, and what it was not compared with."""
    if each["method"] is None:
        return "filters (none was run)"
    rest = f" ({', '.join(each['not_run'])}: not run)" if each["not_run"] else ""
    return f"{each['method']}{rest}"


def ablation() -> str:
    """The default finetuning with one part changed at a time."""
    found = read("ablation/summary.json")
    if found is None or not found["rows"]:
        return ABSENT
    rows = [
        "| network | images | variant | seeds, steps in | top-1, mean | minus the default, points | error of the features |",
        "|---|---|---|---|---|---|---|",
    ]
    short = {"bfloat16": "bf16", "float32": "fp32"}
    for one in found["rows"]:
        change = "" if one["variant"] == "default" else _by_seed(one["differences_points"])
        rows.append(
            f"| {one['network']} | {one['images']} | {one['variant']} | {one['seeds']}, {short[one['precision']]} | {one['mean_percent']:.2f} | {change} | {one['feature_error']:.4f} |"
        )
    return "\n".join([*rows, "", _missing(found["missing"])])


def _missing(count: int) -> str:
    return f"{count} runs of the ablation are missing." if count else "All runs of the ablation are done."


def _by_seed(points: list[float]) -> str:
    """The mean of differences, and each of them where they are several."""
    if not points:
        return ""
    each = ", ".join(f"{one:+.2f}" for one in points)
    return f"{sum(points) / len(points):+.2f}" + (f" ({each})" if len(points) > 1 else "")
