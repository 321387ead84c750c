"""How well latency is measured, and what the instrument costs."""

from __future__ import annotations

from .shared import ABSENT, read


def noise() -> str:
    """One file against itself, and two tables of one network, beside a CPU hog."""
    found = read("noise.json")
    if found is None:
        return ABSENT
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


def busy() -> str:
    """One file against itself, and the savings of blocks, beside several busy processes."""
    found = read("busy.json")
    if found is None:
        return ABSENT
    rows = [
        "| busy processes | a file against itself: within 0.5% | its interval covers 1 | largest error | clock | blocks of MobileNetV2 whose saving is above zero |",
        "|---|---|---|---|---|---|",
    ]
    for count, one in found["hogs"].items():
        of, saved = len(one["against_itself"]), one["savings"]
        clocks = ", ".join(sorted({row["clock"] for row in one["against_itself"]} | {saved["clock"]}))
        rows.append(
            f"| {count} | {one['within_half_a_percent']} of {of} | {one['covers_1']} of {of} | {one['worst_percent']:.2f}% | {clocks} "
            f"| {saved['above_zero']} of {len(saved['reduction_percent'])} |"
        )
    return "\n".join(rows)


def instrument() -> str:
    """What the instrument itself costs."""
    found = read("instrument.json")
    if found is None:
        return ABSENT
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


def _tau(value: float | None) -> str:
    return "no pair" if value is None else f"{value:.2f}"
