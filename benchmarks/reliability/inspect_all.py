"""`practise-deploy inspect` of every network of torchvision and timm: how it ends, and what can be dropped and refitted.

    python benchmarks/reliability/inspect_all.py [NETWORK...] [--again] [--refits] [--limit-s 300] [--limit-gib 6]

At each network's own input size and without its weights, as nothing depends on them. Each in a process of its own, on one core, with a
limit of time and of memory; to be killed there is an ending too. --refits, as for the table of docs/networks.md: of what can be dropped,
also which cuts have writers before them that least squares solves for. Written anew after every network, and resumable: benchmarks/results/inspect_all.json.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import resource
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable
from importlib.metadata import version
from multiprocessing.connection import Connection
from pathlib import Path

import timm
import torch
from torch import fx
from torchvision import models

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "reproduce"))

from tiny.limited import Row, row_of
from tiny.provenance import commit
from tiny.subjects import ROOT

from practise_deploy import cli
from practise_deploy.network.graph.surgery import drop_blocks
from practise_deploy.network.units.blocks import find_blocks
from practise_deploy.pipeline import context as ground
from practise_deploy.refit.annotation import AnnotatedGraph
from practise_deploy.refit.points import first_point, point_at_cut
from practise_deploy.run import write_atomically
from practise_deploy.terms import Block

PATH = ROOT / "benchmarks" / "results" / "inspect_all.json"


def names() -> list[str]:
    """All networks of both libraries."""
    return [*(f"torchvision:{name}" for name in models.list_models()), *(f"timm:{name}" for name in timm.list_models())]


def _inspect(name: str, refits: bool, result: Connection) -> None:
    """Run the command in this process, and send how it ended."""
    torch.manual_seed(0)
    looked: list[tuple[fx.GraphModule, tuple[Block, ...]]] = []
    ground.find_blocks = _kept(looked)
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
        os.dup2(out.fileno(), 1), os.dup2(err.fileno(), 2)
        sys.argv, os.environ["PRACTISE_DEBUG"] = ["practise-deploy", "inspect", name, "--json"], "1"
        code, fault, began = 0, "", time.monotonic()
        try:
            cli.main()
        except SystemExit as end:
            code = int(end.code or 0)
        except BaseException:
            fault = traceback.format_exc(limit=-3)
        seconds = round(time.monotonic() - began, 1)
        sys.stdout.flush(), sys.stderr.flush()
        out.seek(0), err.seek(0)
        found: Row = {"ended": "traceback", "traceback": fault} if fault else {"ended": code, **_said(err.read())}
        document = out.read()
    if document:
        found |= _counts(json.loads(document))
        found |= _refits(*looked[0], json.loads(document)["network"]["feature"]) if refits else {}
    found |= {"seconds": seconds, "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024}
    result.send(found)


def _kept(looked: list[tuple[fx.GraphModule, tuple[Block, ...]]]) -> Callable[..., tuple[Block, ...]]:
    """find_blocks that keeps what it was asked for and found."""

    def look(traced: fx.GraphModule, input_shape: tuple[int, ...]) -> tuple[Block, ...]:
        looked.append((traced, find_blocks(traced, input_shape)))
        return looked[-1][1]

    return look


def _said(err: str) -> Row:
    """The refusal and its remedy, where there is one."""
    words = dict(line.split(": ", 1) for line in err.splitlines() if line.startswith(("error: ", "remedy: ")))
    return {"refusal" if key == "error" else key: text for key, text in words.items()}


def _counts(document: Row) -> Row:
    """Units, and what of them can go."""
    blocks, facts = document["blocks"], document["network"]
    return {
        "input": [facts["preprocessing"]["channels"], *facts["preprocessing"]["size"]],
        "parameters": facts["parameters"],
        "units": len(blocks),
        "droppable": sum(block["droppable"] for block in blocks),
        "reasons": dict(Counter(_in_general(block["reason"]) for block in blocks if not block["droppable"])),
        "whole": [note.split(" could not ")[0] for note in facts["notes"] if " could not be traced" in note],
    }


def _in_general(reason: str) -> str:
    """A reason without the names and shapes in it."""
    return re.sub(r"(?<=its inner value )\S+|(?<=it holds )\S+(?=, )", "...", reason.split(":")[0])


def _refits(traced: fx.GraphModule, blocks: tuple[Block, ...], feature: str) -> Row:
    """Of what can go: where least squares can begin right at the cut, and where behind it."""
    gone = [block for block in blocks if block.droppable]
    graph = AnnotatedGraph(traced)
    cuts = [point_at_cut(graph, graph, block.entry, block.exit) for block in gone]
    without = [block for block, cut in zip(gone, cuts, strict=True) if cut is None]
    behind = [
        block
        for block in without
        if first_point(drop_blocks(traced, [block], share_weights=True), traced, block, feature) is not None
    ]
    return {"refitted_at_the_cut": len(gone) - len(without), "refitted_behind_it": len(behind)}


def main() -> None:
    """Inspect the named networks, or all, in this order: those that were not yet."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NETWORK", help="such as torchvision:resnet18; default: all")
    parser.add_argument("--again", action="store_true", help="also those that are in the JSON")
    parser.add_argument(
        "--refits", action="store_true", help="also where least squares can begin; slow for deep networks"
    )
    parser.add_argument("--limit-s", type=float, default=300)
    parser.add_argument("--limit-gib", type=float, default=6)
    options = parser.parse_args()
    torch.set_num_threads(1)
    known = names()
    if unknown := set(options.names) - set(known):
        parser.error(f"no such networks: {', '.join(sorted(unknown))}")
    rows = {row["network"]: row for row in json.loads(PATH.read_text())["networks"]} if PATH.is_file() else {}
    for name in options.names or known:
        if options.again or name not in rows:
            found = row_of(name, _inspect, options.refits, limit_s=options.limit_s, limit_gib=options.limit_gib)
            rows[name] = found | {"commit": commit()}
            print(rows[name], flush=True)
            _write(rows, known, {"limit_s": options.limit_s, "limit_gib": options.limit_gib})


def _write(rows: dict[str, Row], known: list[str], limits: dict[str, float]) -> None:
    """A line a network, after what they have in common."""
    versions = {package: version(package) for package in ("torch", "torchvision", "timm")}
    ended = Counter(str(row["ended"]) for row in rows.values())
    head = {"schema": 1, **versions, **limits, "names": len(known), "ran": len(rows), "ended": ended}
    lines = ",\n".join(json.dumps(rows[name]) for name in sorted(rows))
    write_atomically(PATH, f'{json.dumps(head)[:-1]}, "networks": [\n{lines}\n]}}\n')


if __name__ == "__main__":
    main()
