"""Dropped blocks and precision, measured together and chosen together: what each gives alone, and what is built in the end.

    python benchmarks/reproduce/frontier.py [efficientnet-lite0] [resnet56] [--data ../shared/data]

Each is one command, `build --precision auto --max-drop 1`, a process of its own, with one thread; all speed-ups are over the original in fp32.
The release is proven on the test images, by their labels. One JSON a network under benchmarks/results/frontier/.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from builds import RESULTS, builds, run
from tiny.subjects import DATA, folder_of

_BASED_ON = {"efficientnet-lite0": "efficientnet-lite0-25", "resnet56": "resnet56"}
"""The builds of the README whose network and images are taken."""


def arguments(name: str, data: Path) -> list[str]:
    """The same network, images and threads, with another target."""
    given = builds(data)[_BASED_ON[name]]
    at = given.index("--reduce")
    given = [*given[:at], *given[at + 2 :], "--precision", "auto", "--max-drop", "1"]
    return given if "--threads" in given else [*given, "--threads", "1"]


def main() -> None:
    """The named networks, or all."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", default=list(_BASED_ON))
    parser.add_argument("--data", type=Path, default=DATA)
    given = parser.parse_args()
    folder = RESULTS / "frontier"
    folder.mkdir(parents=True, exist_ok=True)
    for name in given.names:
        found = run(name, arguments(name, folder_of(given.data)), folder_of(given.data))
        (folder / f"{name}.json").write_text(json.dumps(found, indent=1) + "\n")
        print(name, found["verdict"]["sentence"], f"{found['wall_s']:.0f} s", flush=True)


if __name__ == "__main__":
    main()
