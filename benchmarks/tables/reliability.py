"""Damaged inputs and kills: what went wrong."""

from __future__ import annotations

from .shared import ABSENT, read


def mutations() -> str:
    """A row for each kind of input, and what the kills did."""
    found = read("mutations.json")
    if found is None:
        return ABSENT
    kinds = {name: row for name, row in found["kinds"].items() if "inputs" in row}
    if not kinds:
        return ABSENT
    faults = list(next(iter(kinds.values()))["faults"])
    rows = [
        f"| inputs | tried | ended with 0 | {' | '.join(faults)} | longest, s of the processor |",
        "|---|" + "---|" * (len(faults) + 3),
    ]
    for name, row in kinds.items():
        counts = " | ".join(str(row["faults"][fault]) for fault in faults)
        rows.append(
            f"| {name} | {row['inputs']} | {row['exit_codes'].get('0', 0)} | {counts} | {row['longest_processor_s']:.1f} |"
        )
    totals = " | ".join(str(sum(row["faults"][fault] for row in kinds.values())) for fault in faults)
    well = sum(row["exit_codes"].get("0", 0) for row in kinds.values())
    rows.append(f"| all | {found['inputs']} | {well} | {totals} | |")
    made = sorted({row["commit"] for row in found["kinds"].values()})
    return "\n".join(
        [*rows, "", *_kills(found["kinds"].get("kills")), f"Seed {found['seed']}; commit {', '.join(made)}."]
    )


def _kills(row: dict | None) -> list[str]:
    if row is None:
        return []
    told = [
        f"{row[part]['kills']} kills {words}, in {row[part]['builds']} builds: {len(row[part]['failures'])} differences"
        for part, words in (("inside_writes", "inside writes"), ("at_random_moments", "at random moments"))
    ]
    return [f"{'; '.join(told)}.", ""]
