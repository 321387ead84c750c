"""Writes the tables of the README and the docs from the JSON under benchmarks/results.

python benchmarks/readme.py [--check]
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"
TITLES = {
    "digits": "embedded digits (ResNet-20, 28x28)",
    "efficientnet-lite0": "EfficientNet-Lite0 (Imagenette, 224x224)",
    "efficientnet-lite0-25": "EfficientNet-Lite0, fewer images",
    "resnet56": "ResNet-56 (CIFAR-10, 32x32)",
}


def builds() -> str:
    """The builds as a Markdown table."""
    rows = [
        "| network | images to fit | asked | blocks dropped | latency p50 | speed-up (95% interval) | top-1 | change in points | wall time, peak memory |",
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
    drop = found["verification"]["drop_points"]
    return (
        f"| {title} | {found['images']['fit']} | {_asked(found)} | {len(found['plan']['dropped'])} "
        f"| {_ms(before)} → {_ms(after)} ms "
        f"| {ratio['estimate']:.3f} [{ratio['low']:.3f}, {ratio['high']:.3f}] "
        f"| {_top1(accuracy['teacher'])} → {_top1(accuracy['engine'])} "
        f"| {-drop['estimate']:+.1f} [{-drop['high']:+.1f}, {-drop['low']:+.1f}] "
        f"| {found['wall_s'] / 60:.1f} min, {found['peak_memory_mb'] / 1000:.1f} GB |"
    )


def _asked(found: dict) -> str:
    """The target, and whether the build kept it at the bad end of the interval."""
    target, verdict = f"{found['plan']['target_percent']:g}% less", found["verdict"]
    return f"{target}: kept" if verdict["kept"] else f"{target}: missed ({verdict['reasons'][0].split('; ')[-1]})"


def _ms(engine: dict) -> str:
    return f"{engine['p50_ms']['estimate']:.3g}"


def _top1(found: dict) -> str:
    return f"{found['percent']['estimate']:.1f}%"


def noise() -> str:
    """One file against itself, and two tables of one network, beside a CPU hog."""
    found = _read("noise.json")
    if found is None:
        return "Not measured yet."
    aa, count = found["aa"], len(found["aa"]["repeats"])
    rows = [
        f"| beside {found['hogs']} CPU hog(s) | paired rounds | sequential (10 warm-ups, 100 runs, mean) |",
        "|---|---|---|",
        f"| {aa['network']} against itself: within 1% | {aa['within_1_percent']} of {count} | {aa['sequential_within_1_percent']} of {count} |",
        f"| its interval covers 1 | {aa['covers_1']} of {count} | (no interval) |",
        f"| both | {sum(abs(r['ratio'] - 1) <= 0.01 and r['low'] <= 1 <= r['high'] for r in aa['repeats'])} of {count} | |",
        f"| largest error | {aa['worst_percent']:.2f}% | {aa['sequential_worst_percent']:.1f}% |",
    ]
    for network, each in found["tables"].items():
        blocks = len(each["blocks"])
        rows += [
            f"| two tables of {network} ({blocks} blocks): Kendall's tau, pairs told apart | {_tau(each['kendall_tau'])} ({each['pairs_told_apart']} pairs) | {_tau(each['sequential_kendall_tau_same_pairs'])} (same pairs) |",
            f"| mean difference of a block's two savings, % of the latency | {each['spread_percent']:.2f} | {each['sequential_spread_percent']:.2f} |",
            f"| savings below zero, of {2 * blocks} | {sum(s[0] < 0 for t in each['saving_percent'] for s in t)} | {sum(each['sequential_negative'])} |",
        ]
    return "\n".join(rows)


def instrument() -> str:
    """What the instrument itself costs."""
    found = _read("instrument.json")
    if found is None:
        return "Not measured yet."
    rows = ["| what | measured |", "|---|---|"]
    rows += [
        f"| the loop's own time, {2 * one['sessions_of_each']} engines of {one['median_ms']:.2f} ms | {one['overhead_percent']:.2f}% of the time that the engines ran |"
        for one in found["loop"]
    ]
    made = found["variant"]
    rows.append(
        f"| a variant of {made['network']} with its file, of {made['blocks']} | {made['median_ms']:.1f} ms (slowest {made['slowest_ms']:.1f} ms) |"
    )
    return "\n".join(rows)


def tiny_sets() -> str:
    """Accuracy at equal latency, a table for every point that has results, and the figures of the comparison."""
    found = _read("tiny_sets.json")
    if found is None:
        return "Not measured yet."
    known = [point for point in found["points"] if any(each["seeds"] for each in point["methods"].values())]
    parts = [_point(point) for point in known]
    missing = len(found["missing"])
    state = f"{missing} of {found['done'] + missing} units are missing." if missing else "All units are done."
    return "\n\n".join([*parts, _figures(found["figures"]), state])


def _point(point: dict) -> str:
    rows = [
        f"**{point['network']}, {point['asked_percent']}% asked, {point['images']} images, {point['steps']} steps** (original {point['teacher_percent']:.2f}%)",
        "",
        "| method | seeds | top-1, mean ± std | less latency | `ours` minus it, points |",
        "|---|---|---|---|---|",
    ]
    for name, each in point["methods"].items():
        if not each["seeds"]:
            rows.append(f"| {name} | missing | | | |")
            continue
        wanted = len(each["seeds"]) + len(each["missing_seeds"])
        seeds = f"{len(each['seeds'])} of {wanted}" if each["missing_seeds"] else f"{wanted}"
        spread = "" if each["std"] is None else f" ± {each['std']:.2f}"
        cut, how = each["reduction_percent"], "measured" if each["reduction_measured"] else "predicted"
        less = f"{cut['estimate']:.1f}% [{cut['low']:.1f}, {cut['high']:.1f}], {how}"
        rows.append(f"| {name} | {seeds} | {each['mean']:.2f}{spread} | {less} | {_points(each.get('ours_minus'))} |")
    return "\n".join(rows)


def _figures(figures: dict) -> str:
    """The paper's recipe at few images, and the best filter pruning at 22%."""
    rows = ["| `ours` minus | at | points |", "|---|---|---|"]
    few = figures["ours_minus_paper_mean_at_50_images"]
    rows.append(f"| paper | mean of {few['points']} points at 50 images | {_points(few)} |")
    rows += [
        f"| {each['method'] or 'filters'} (the best filter pruning) | {each['network']}, 22%, {each['images']} images | {_points(each)} |"
        for each in figures["ours_minus_best_filters_at_22"]
    ]
    return "\n".join(rows)


def _points(found: dict | None) -> str:
    """A difference with its interval, where there is one."""
    if found is None or found["estimate"] is None:
        return ""
    if found.get("low") is None:
        return f"{found['estimate']:+.2f}"
    return f"{found['estimate']:+.2f} [{found['low']:+.2f}, {found['high']:+.2f}]"


def ablation() -> str:
    """The default finetuning with one part changed at a time."""
    found = _read("ablation/summary.json")
    if found is None or not found["rows"]:
        return "Not measured yet."
    rows = [
        "| network | images | variant | seeds | top-1, mean | minus the default, points | error of the features |",
        "|---|---|---|---|---|---|---|",
    ]
    for one in found["rows"]:
        change = "" if one["variant"] == "default" else _by_seed(one["differences_points"])
        rows.append(
            f"| {one['network']} | {one['images']} | {one['variant']} | {one['seeds']} | {one['mean_percent']:.2f} | {change} | {one['feature_error']:.4f} |"
        )
    return "\n".join([*rows, "", f"{found['missing']} runs of the ablation are missing."])


def _by_seed(points: list[float]) -> str:
    """The mean of differences, and each of them where they are several."""
    if not points:
        return ""
    each = ", ".join(f"{one:+.2f}" for one in points)
    return f"{sum(points) / len(points):+.2f}" + (f" ({each})" if len(points) > 1 else "")


def planning() -> str:
    """Planning beside the paper's scoring, and its growth with images and blocks."""
    found = _read("planning.json")
    if found is None:
        return "Not measured yet."
    rows = [
        "| network | images | blocks | planning | refit of the choice | peak memory | the paper's scoring | forwards: of the paper's | time: of the paper's |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for case in found["cases"]:
        mine, paper, refit = case["planning"], case.get("paper"), case["parts"]["refit"]
        beside = ["", "", ""]
        if paper:
            beside = [
                _cost(paper),
                *(f"1/{paper[key] / mine[key]:.0f}" for key in ("image_forwards", "seconds")),
            ]
        rows.append(
            f"| {case['network']} | {case['images']} | {case['blocks']} | {_cost(mine)} | {_cost(refit)} "
            f"| {_memory(case)} | {' | '.join(beside)} |"
        )
    return "\n".join(rows)


def _memory(case: dict) -> str:
    of_planning = case.get("peak_memory_of_planning_gb")
    whole = f"{case['peak_memory_gb']:.1f} GB"
    return f"{whole} with the refit" if of_planning is None else f"{of_planning:.1f} GB, {whole} with the refit"


def _cost(found: dict) -> str:
    return f"{found['seconds']:,.0f} s, {found['image_forwards']:,.0f} forwards"


def choice() -> str:
    """What each criterion tells of a set's accuracy, by network."""
    parts = []
    for path in sorted((RESULTS / "choice").glob("*.json")):
        found = json.loads(path.read_text())
        parts.append(
            f"**{found['network']}**, {len(found['sets'])} sets of {found['blocks']} blocks, {found['images']} images, "
            f"{found['steps']} steps: {found['mean_percent']:.2f}% on average, {found['most_percent']:.2f}% the best of all"
        )
        rows = [
            "| criterion | rank correlation after finetuning | before it | its best set | mean of its best five |",
            "|---|---|---|---|---|",
        ]
        rows += [
            f"| {one['criterion']} | {_rank(one['finetuned'])} | {_rank(one['refit'])} | {one['best_percent']:.2f}% "
            f"| {one['best_few_percent']:.2f}% |"
            for one in found["criteria"]
        ]
        parts.append("\n".join(rows))
    return "\n\n".join(parts) or "Not measured yet."


def sites() -> str:
    """What the refit gives by what its sites' ways are compared by."""
    parts = []
    for path in sorted((RESULTS / "sites").glob("*.json")):
        found = json.loads(path.read_text())
        parts.append(
            f"**{found['network']}**, {len(found['sets'])} sets of {found['blocks']} blocks, {found['images']} images"
        )
        rows = [
            "| ways compared by | top-1 of the refit, mean | minus features, points | the better half of the sets | minus features, points |",
            "|---|---|---|---|---|",
        ]
        for one in found["criteria"]:
            alone = one["criterion"] == "features"
            whole, better = (
                "" if alone else _points(one[key]) for key in ("points_against_features", "points_of_the_better_half")
            )
            rows.append(
                f"| {one['criterion']} | {one['mean_percent']:.2f} | {whole} | {one['mean_percent_of_the_better_half']:.2f} | {better} |"
            )
        parts.append("\n".join(rows))
    return "\n\n".join(parts) or "Not measured yet."


def _rank(found: dict) -> str:
    return f"{found['estimate']:.2f} [{found['low']:.2f}, {found['high']:.2f}]"


def _read(name: str) -> dict | None:
    path = RESULTS / name
    return json.loads(path.read_text()) if path.is_file() else None


def _tau(value: float | None) -> str:
    return "no pair" if value is None else f"{value:.2f}"


TABLES: dict[str, dict[str, Callable[[], str]]] = {
    "README.md": {"builds": builds},
    "docs/measuring.md": {"noise": noise, "instrument": instrument},
    "docs/planning.md": {"planning": planning, "choice": choice, "sites": sites},
    "docs/tiny-sets.md": {"tiny_sets": tiny_sets, "ablation": ablation},
}


def written(text: str, name: str, made: str) -> str:
    """A page with one table made anew, between its marks."""
    begin, end = f"<!-- {name}: made by benchmarks/readme.py -->", f"<!-- end of {name} -->"
    head, rest = text.split(begin)
    return f"{head}{begin}\n{made}\n{end}{rest.split(end)[1]}"


def main() -> int:
    """Rewrite the pages, or with --check say whether they are up to date."""
    stale = 0
    for page, tables in TABLES.items():
        path = ROOT / page
        text = fresh = path.read_text(encoding="utf-8")
        for name, make in tables.items():
            fresh = written(fresh, name, make())
        if "--check" in sys.argv:
            stale += fresh != text
        else:
            path.write_text(fresh, encoding="utf-8")
    return int(stale > 0)


if __name__ == "__main__":
    sys.exit(main())
