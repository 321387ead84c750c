"""What of well-known networks can be dropped and refitted."""

from __future__ import annotations

from .shared import ABSENT, read


def which_networks() -> str:
    """A row for each network."""
    found = read("which_networks.json")
    if found is None:
        return ABSENT
    rows = [
        "| network | input | residual units | can be dropped | refitted right at the cut | if not, behind it | the others stay, for | whole modules |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for each in found["networks"]:
        if "error" in each:
            rows.append(f"| {each['network']} | | | | | | {each['error']} | |")
            continue
        stay = ", ".join(f"{reason} ({count})" for reason, count in each["reasons"].items())
        rows.append(
            f"| {each['network']} | {'x'.join(map(str, each['input']))} | {each['units']} | {each['droppable']} "
            f"| {each['refitted_at_the_cut']} | {each['refitted_behind_it'] or ''} | {stay} | {len(each['whole']) or ''} |"
        )
    made = ", ".join(sorted({each["commit"] for each in found["networks"]}))
    versions = ", ".join(f"{package} {found[package]}" for package in ("torch", "torchvision", "timm"))
    return "\n".join([*rows, "", f"{versions}; commit {made}."])
