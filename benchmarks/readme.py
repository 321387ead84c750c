"""Writes the tables of the README and the docs from the JSON under benchmarks/results.

python benchmarks/readme.py [--check]
"""

from __future__ import annotations

import sys
from collections.abc import Callable

from tables.accuracy import losses, predicted_sets, promises, too_much
from tables.builds import builds
from tables.deploying import engines, float_operators, frontier, peers, precision, ranges
from tables.foreign import foreign, zoo
from tables.measuring import busy, instrument, noise
from tables.networks import inspect_all
from tables.planning import choice, linear_streams, planning, single_blocks, sites, small_networks, sureness
from tables.reliability import mutations
from tables.shared import ROOT
from tables.tiny import ablation, tiny_sets

TABLES: dict[str, dict[str, Callable[[], str]]] = {
    "README.md": {"builds": builds},
    "docs/accuracy.md": {"losses": losses, "promises": promises, "too_much": too_much},
    "docs/measuring.md": {"noise": noise, "busy": busy, "instrument": instrument},
    "docs/networks.md": {"inspect_all": inspect_all, "zoo": zoo},
    "docs/onnx.md": {"foreign": foreign},
    "docs/planning.md": {
        "planning": planning,
        "choice": choice,
        "single_blocks": single_blocks,
        "predicted_sets": predicted_sets,
        "sites": sites,
        "linear_streams": linear_streams,
        "small_networks": small_networks,
        "sureness": sureness,
    },
    "docs/precision.md": {
        "precision": precision,
        "frontier": frontier,
        "float-operators": float_operators,
        "peers": peers,
        "ranges": ranges,
    },
    "docs/reliability.md": {"mutations": mutations},
    "docs/tensorrt.md": {"engines": engines},
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
