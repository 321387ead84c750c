"""From inspect to ONNX and back, for the networks of torchvision and of timm: does a block go, is the rest refitted, and is it all the same?

    python benchmarks/reproduce/zoo.py [NETWORK...] [--again] [--limit-s 180] [--limit-gib 8]

Random weights, and the smallest input that a network takes of a few. Of each network one block is dropped, what is before the cut refitted on noise,
and the rest exported; the ONNX file must compute in ONNX Runtime what the student computes in torch. Then the original's own export is read back as a
user's file: it must have these blocks or more, and what is left of it without the same block must compute what the network does without it. Every
classifier, detector and segmentation network of torchvision, and of timm the smallest networks of every family. Each runs in a process of
its own, with a limit of time and of memory. Written anew after every network, and resumable: benchmarks/results/zoo.json.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
import traceback
from collections import Counter
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
import onnxruntime
import timm
import torch
from torch import Tensor, fx
from torchvision import models

sys.path.insert(0, str(Path(__file__).resolve().parent))

from tiny.limited import Row, row_of
from tiny.provenance import commit
from tiny.subjects import ROOT

from practise_backends.errors import Refusal, lacks_memory
from practise_deploy.images.calibration import CalibrationProblem, with_scaled_heads
from practise_deploy.images.tiny_set import FitImages
from practise_deploy.network.graph.onnx_graph import to_onnx
from practise_deploy.network.graph.surgery import drop_blocks
from practise_deploy.network.loading.load import load_network
from practise_deploy.network.loading.loaded import Network
from practise_deploy.network.onnx_import.file import described
from practise_deploy.network.onnx_import.replacement import replacement
from practise_deploy.network.onnx_import.translate import translate
from practise_deploy.network.units.blocks import find_blocks
from practise_deploy.refit.partial_student import PartialStudent
from practise_deploy.refit.recover import ONE_RIDGE
from practise_deploy.refit.solvers import SOLVERS
from practise_deploy.run import write_atomically
from practise_deploy.settings import Settings
from practise_deploy.terms import Block

PATH = ROOT / "benchmarks" / "results" / "zoo.json"
SIDES = (64, 96, 128, 192, 224, 256, 299)
IMAGES, TOLERANCE = 10, 1e-4
EACH_FAMILY, MOST_TRIED = 3, 12


def names() -> list[str]:
    """Networks of both libraries, of timm the first of every family."""
    kinds = (models, models.detection, models.segmentation)
    chosen = [f"torchvision:{name}" for kind in kinds for name in models.list_models(kind)]
    families: dict[str, list[str]] = {}
    for name in timm.list_models():
        families.setdefault(timm.models.model_entrypoint(name).__module__.rpartition(".")[2], []).append(name)
    small = ("tiny", "nano", "atto", "pico", "femto", "small", "mini", "xxs", "test", "18", "26", "_s", "b0")
    for found in families.values():
        ranked = sorted(found, key=lambda name: not any(word in name for word in small))
        chosen += [f"timm:{name}" for name in ranked[:EACH_FAMILY]]
    return chosen


def _send(name: str, result: Connection) -> None:
    """Run it all in this process, and send how it ended."""
    began = time.monotonic()
    found: Row = {}
    try:
        _run(name, found)
        found["ended"] = "passed"
    except Refusal as error:
        found["ended"] = f"refused: {error.message}"
    except AssertionError as error:
        found["ended"] = f"failed: {error}"
    except BaseException as error:
        if lacks_memory(error):
            found["ended"] = "killed: no memory within the limit"
        else:
            found |= {"ended": "traceback", "traceback": traceback.format_exc(limit=-4).replace(f"{ROOT}/", "")}
    result.send(found | {"seconds": round(time.monotonic() - began, 1)})


def _run(name: str, found: Row) -> None:
    """All of it; what is found is written down as it is known."""
    torch.manual_seed(0)
    torch.set_num_threads(1)
    network = _loaded(name)
    for weight in network.traced.parameters():
        if weight.ndim > 1 and not weight.any():  # a head that begins at zero would make every comparison one of zeros
            torch.nn.init.normal_(weight, std=0.02)
        elif weight.ndim == 1:  # norms that begin alike are one and the same to an exporter
            weight.data += 0.01 * torch.randn_like(weight)
    blocks = find_blocks(network.traced, network.input_shape)
    gone = [block for block in blocks if block.droppable]
    task = network.summary.task
    found |= {"input": network.input_shape[1:], "task": task.kind.value, "units": len(blocks), "droppable": len(gone)}
    if not gone:
        raise Refusal("no block can be dropped", remedy="")
    dropped = gone[len(gone) // 2]
    found["dropped"] = dropped.name
    student = _refitted(network, dropped)
    model = to_onnx(student, (1, *network.input_shape[1:]))
    x = torch.randn(1, *network.input_shape[1:])
    found["exported"] = _difference(student, model.SerializeToString(), x)
    assert found["exported"] <= TOLERANCE, f"its ONNX is {found['exported']:.1e} away from the student"
    _read_back(network, dropped, len(gone), x, found)


def _loaded(name: str) -> Network:
    """At the smallest side that it runs on."""
    first: Refusal | None = None
    for side in SIDES:
        try:
            return load_network(Settings(network=name, input_size=side), structure_only=True)
        except Refusal as error:
            first = first or error
    assert first is not None
    try:
        return load_network(Settings(network=name), structure_only=True)
    except Refusal:
        raise first from None


def _refitted(network: Network, dropped: Block) -> fx.GraphModule:
    """The network without the block, refitted on noise right at the cut, by one ridge."""
    images = FitImages(torch.randn(IMAGES, *network.input_shape[1:]), None, network.summary.preprocessing)
    problem = CalibrationProblem(
        teacher=with_scaled_heads(network.traced, images),
        feature=network.summary.feature,
        images=images,
        task=network.summary.task,
    )
    with torch.no_grad():
        partial = PartialStudent(problem, [dropped], images, None, to_compare=True)
        if partial.points:
            partial.fit([SOLVERS[ONE_RIDGE]])
            partial.solve({ONE_RIDGE: SOLVERS[ONE_RIDGE]})
            partial.take(ONE_RIDGE)
    return partial.student.eval()


def _read_back(network: Network, dropped: Block, droppable: int, x: Tensor, found: Row) -> None:
    """The original's export as a user's file."""
    whole = to_onnx(network.traced, (1, *network.input_shape[1:]))
    translation = translate(described(Path(network.summary.name), whole), network.input_shape[1:])
    from practise_deploy.network.tracing.trace import annotate_shapes

    annotate_shapes(translation.network, network.input_shape)
    again = [block for block in find_blocks(translation.network, network.input_shape) if block.droppable]
    found["read_back"] = len(again)
    assert len(again) >= droppable, f"{len(again)} blocks can be dropped of its ONNX, {droppable} of itself"
    without, place = drop_blocks(network.traced, [dropped]).eval(), droppable // 2
    # the exporter orders parallel branches anew: the same block is among those of its shape, near its place
    alike = [number for number, block in enumerate(again) if math.prod(block.shape) == math.prod(dropped.shape)]
    for number in sorted(alike, key=lambda number: abs(number - place))[:MOST_TRIED]:
        model = replacement(translation, [again[number]], {}).SerializeToString()
        found["replaced"] = min(_difference(without, model, x), found.get("replaced", math.inf))
        if found["replaced"] <= TOLERANCE:
            return
    raise AssertionError(f"its ONNX without the block is {found.get('replaced', math.inf):.1e} away")


def _difference(network: fx.GraphModule, model: bytes, x: Tensor) -> float:
    """The largest difference of outputs over the largest output."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    computed = session.run(None, {session.get_inputs()[0].name: x.numpy()})
    with torch.no_grad():
        result = network(x)
    wanted = [each.numpy() for each in (result if isinstance(result, tuple) else (result,))]
    return max(
        float(np.abs(a - b).max() / max(float(np.abs(a).max()), 1e-30)) for a, b in zip(wanted, computed, strict=True)
    )


def main() -> None:
    """The named networks, or all: those that were not yet."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NETWORK")
    parser.add_argument("--again", action="store_true", help="also those that are in the JSON")
    parser.add_argument("--limit-s", type=float, default=180)
    parser.add_argument("--limit-gib", type=float, default=8)
    options = parser.parse_args()
    torch.set_num_threads(1)
    rows = {row["network"]: row for row in json.loads(PATH.read_text())["networks"]} if PATH.is_file() else {}
    for name in options.names or names():
        if options.again or name not in rows:
            rows[name] = row_of(name, _send, limit_s=options.limit_s, limit_gib=options.limit_gib) | {
                "commit": commit()
            }
            print(rows[name], flush=True)
            ended = Counter(str(row["ended"]).partition(":")[0] for row in rows.values())
            lines = ",\n".join(json.dumps(rows[each]) for each in sorted(rows))
            head = {"schema": 1, "limit_s": options.limit_s, "tolerance": TOLERANCE, "ended": ended}
            write_atomically(PATH, f'{json.dumps(head)[:-1]}, "networks": [\n{lines}\n]}}\n')


if __name__ == "__main__":
    main()
