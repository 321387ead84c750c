"""What planning costs, and what it goes by."""

from __future__ import annotations

import json

from .shared import ABSENT, RESULTS, points, read


def planning() -> str:
    """Planning beside the paper's scoring, and its growth with images and blocks."""
    found = read("planning.json")
    if found is None:
        return ABSENT
    rows = [
        "| network | images | blocks | planning | of it, verified | refit of the choice | peak memory | the paper's scoring | forwards: of the paper's | time: of the paper's | `--recipe paper` |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for case in found["cases"]:
        mine, paper, refit = case["planning"], case.get("paper"), case["parts"]["refit"]
        beside = ["", "", "", ""]
        if paper:
            beside = [
                _cost(paper),
                *(f"1/{paper[key] / mine[key]:.0f}" for key in ("image_forwards", "seconds")),
                _cost(paper["together"]),
            ]
        rows.append(
            f"| {case['network']} | {case['images']} | {case['blocks']} | {_cost(mine)} | {_verified(case['verified'])} | {_cost(refit)} "
            f"| {_memory(case)} | {' | '.join(beside)} |"
        )
    return "\n".join([*rows, "", _made_by(found["cases"])])


def _made_by(cases: list[dict]) -> str:
    """Which commit every network's rows are of: figures of different commits, and machines, are not to be compared."""
    by_network = {case["network"]: case["commit"] for case in cases}
    return "Rows by commit: " + ", ".join(f"{network} {made}" for network, made in by_network.items()) + "."


def _memory(case: dict) -> str:
    return f"{case['peak_memory_of_planning_gb']:.1f} GB, {case['peak_memory_gb']:.1f} GB with the refit"


def _verified(found: dict) -> str:
    return f"{found['sets']} sets, {found['seconds_a_set']:.1f} s each" if found["sets"] else "none"


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
            "| criterion | rank correlation after finetuning | minus that of `refit, features` | before it | its best set | mean of its best five |",
            "|---|---|---|---|---|---|",
        ]
        rows += [
            f"| {one['criterion']} | {_interval(one['finetuned'])} | {_beside(one)} | {_interval(one['refit'])} | {one['best_percent']:.2f}% "
            f"| {one['best_few_percent']:.2f}% |"
            for one in found["criteria"]
        ]
        parts.append("\n".join(rows))
    return "\n\n".join(parts) or ABSENT


def single_blocks() -> str:
    """How near the error of a block comes to that of its whole recovery, by what was refitted for it."""
    rows = [
        "| network | images | blocks | refitted to judge a block | rank correlation with all sites refitted | error, times that of all sites |",
        "|---|---|---|---|---|---|",
    ]
    for path in sorted((RESULTS / "single_blocks").glob("*.json")):
        found = json.loads(path.read_text())
        rows += [
            f"| {found['network']} | {found['images']} | {one['blocks']} | {_refitted(one['refitted'])} "
            f"| {one['rank_correlation']:.2f} | {_interval(one['times_the_whole'])} |"
            for one in found["refits"]
        ]
    return "\n".join(rows) if len(rows) > 2 else ABSENT


def _refitted(what: str) -> str:
    return "nothing" if what == "plain drop" else f"the {what}"


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
                "" if alone else points(one[key]) for key in ("points_against_features", "points_of_the_better_half")
            )
            rows.append(
                f"| {one['criterion']} | {one['mean_percent']:.2f} | {whole} | {one['mean_percent_of_the_better_half']:.2f} | {better} |"
            )
        parts.append("\n".join(rows))
    return "\n\n".join(parts) or ABSENT


def small_networks() -> str:
    """What the refit gives where linear layers write to the streams, by network and number of images."""
    rows = [
        "| network | blocks | images | original | plain drop | refit | minus plain, points | plain drop, finetuned | refit, finetuned | minus plain, points |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for path in sorted((RESULTS / "small_networks").glob("*.json")):
        found = json.loads(path.read_text())
        for one in found["rows"]:
            percent, gained = one["mean_percent"], one["points_gained"]
            rows.append(
                f"| {found['network']} | {found['dropped']} of {found['blocks']}, {one['sets']} sets | {one['images']} "
                f"| {found['teacher_percent']:.2f} | {percent['plain drop']:.2f} | {percent['refit']:.2f} | {points(gained['refit'])} "
                f"| {percent['plain drop, finetuned']:.2f} | {percent['refit, finetuned']:.2f} | {points(gained['before finetuning'])} |"
            )
    return "\n".join(rows) if len(rows) > 2 else ABSENT


def sureness() -> str:
    """What is claimed of the choice of a set, beside what other tiny sets choose."""
    path = RESULTS / "sureness.json"
    if not path.is_file():
        return ABSENT
    rows = [
        "| network | images | tiny sets | different sets chosen | claimed: chosen again in | chosen again by another tiny set | a block's share is off by at most |",
        "|---|---|---|---|---|---|---|",
    ]
    rows += [
        f"| {one['network']} | {one['images']} | {one['draws']} | {one['sets']} | {100 * one['claimed_share_of_the_set']:.0f}% "
        f"| {_percent(one['chosen_again_share'])} | {100 * one['largest_difference_of_a_block']:.0f} points |"
        for one in json.loads(path.read_text())["rows"]
    ]
    return "\n".join(rows)


def _percent(share: float | None) -> str:
    return "" if share is None else f"{100 * share:.0f}%"


def _beside(one: dict) -> str:
    """How much better than the product's criterion, on the same sets."""
    return "" if one["criterion"] == "refit, features" else points(one.get("finetuned_minus_basis"))


def _interval(found: dict) -> str:
    """An estimate, and its interval where there are enough samples for one."""
    return f"{found['estimate']:.2f}" + ("" if found["low"] is None else f" [{found['low']:.2f}, {found['high']:.2f}]")


def linear_streams() -> str:
    """What choosing a solver for each point buys against one ridge at all, by network."""
    rows = [
        "| network | images | sets | after | solvers | error, median ratio to one ridge | one ridge is better in | top-1 with one ridge | points against it |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for path in sorted((RESULTS / "linear_streams").glob("*.json")):
        found = json.loads(path.read_text())
        for row in found["summary"]:
            gain = row["points"]
            told = points(gain) if isinstance(gain, dict) else f"{gain:+.2f}"
            rows.append(
                f"| {found['network']} | {found['images']} | {row['sets']} | {row['after']} | {row['course']} | {row['median_error_ratio']:.2f} "
                f"| {row['one_ridge_better']} | {row['mean_percent_one_ridge']:.2f}% | {told} |"
            )
    return "\n".join(rows) if len(rows) > 2 else ABSENT
