"""TensorRT on real networks: what the engines consist of, and on a GPU how fast they are.

    python benchmarks/speed/engines.py [resnet18] [mobilenet_v2] [efficientnet-lite0] [--backend trt-rtx] [--target-archs sm86,sm89,sm120] [--cuda torch]

With --for, engines are built ahead and proved from their layers: no GPU is needed. Without it, on a GPU, each precision's
pruned network also runs against the plain one in paired rounds, every session a build of its own, with and without a CUDA
graph, and the float32 network against the other precisions. Pruned: without the first THREE droppable blocks. Weights
are random (of the networks' own initialisation), which neither the layers nor the speed depend on.
Writes benchmarks/results/tensorrt.json: one entry a device or list of targets.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import onnx
import torch
from torch import fx

from practise_backends.errors import BackendError
from practise_backends.interfaces import Backend, MeasurementSetup
from practise_backends.results.compare import compare
from practise_backends.runtimes.catalog import load_backend
from practise_backends.runtimes.tensorrt.cuda import PACKAGES
from practise_backends.terms import Conditions, StoppingRule
from practise_deploy.deployment.precision import in_precision
from practise_deploy.network.graph.onnx_graph import to_onnx
from practise_deploy.network.graph.surgery import drop_blocks
from practise_deploy.network.tracing.trace import trace
from practise_deploy.network.units.blocks import droppable, find_blocks

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "reproduce"))
from tiny.provenance import commit

RESULTS = Path(__file__).resolve().parents[1] / "results" / "tensorrt.json"
NETWORKS = ("resnet18", "mobilenet_v2", "efficientnet-lite0")
PRECISIONS = ("fp32", "fp16", "int8")
INPUT, THREE = (1, 3, 224, 224), 3
SECONDS, SESSIONS = 20.0, 4


def make(name: str) -> torch.nn.Module:
    """A network with the weights of its own initialisation."""
    torch.manual_seed(0)
    if name == "efficientnet-lite0":
        from efficientnet_lite_pytorch import EfficientNet

        return EfficientNet.from_name(name).eval()
    import torchvision

    return getattr(torchvision.models, name)().eval()


def pair_of(name: str) -> dict[str, fx.GraphModule]:
    """The plain network and the pruned one."""
    plain, _ = trace(make(name), INPUT)
    return {"plain": plain, "pruned": drop_blocks(plain, droppable(find_blocks(plain, INPUT))[:THREE])}


def written(name: str, folder: Path) -> dict[tuple[str, str, str], Path]:
    """(plain or pruned, precision, static or dynamic) -> its ONNX file."""
    files = {}
    for which, network in pair_of(name).items():
        for batch in ("static", "dynamic"):
            model = to_onnx(network, INPUT, dynamic_batch=batch == "dynamic")
            for precision in PRECISIONS:
                file = folder / f"{which}-{precision}-{batch}.onnx"
                onnx.save(in_precision(model, precision, None, symmetric=True), file)
                files[which, precision, batch] = file
    return files


def engines(files: dict[tuple[str, str, str], Path], backend: Backend) -> list[dict[str, Any]]:
    """What each network is fused to."""
    rows = []
    for (which, precision, batch), file in files.items():
        began = time.monotonic()
        artifact: Any = backend.compile(file, Conditions(precision=precision, clock="gpu_compute"))
        seconds = time.monotonic() - began
        fused = {node for layer in artifact.layers for node in layer.nodes}
        convolutions = [node.name for node in onnx.load(file).graph.node if node.op_type == "Conv"]
        rows.append(
            {
                "network": which,
                "precision": precision,
                "batch": batch,
                "layers": len(artifact.layers),
                "convolutions": len(convolutions),
                "convolutions_in_layers": sum(name in fused for name in convolutions),
                "precision_share": artifact.precision_share,
                "engine_mb": len(artifact.content) / 1e6,
                "build_s": seconds,
                "notes": list(artifact.notes),
            }
        )
    return rows


def runs(files: dict[tuple[str, str, str], Path], backend: Backend) -> list[dict[str, Any]]:
    """Pruned against plain, and every precision against float32, on the GPU at hand."""
    pairs = [(p, files["plain", p, "static"], files["pruned", p, "static"], "pruned over plain") for p in PRECISIONS]
    wide = files["plain", "fp32", "static"]
    pairs += [(p, wide, files["plain", p, "static"], "over fp32") for p in PRECISIONS[1:]]
    rows = []
    for precision, before, after, what in pairs:
        for graph in (False, True):
            conditions = Conditions(precision=precision, clock="gpu_compute", cuda_graph=graph)
            stopping_rule = StoppingRule(budget_s=SECONDS, sessions=SESSIONS)
            row: dict[str, Any] = {"what": what, "precision": precision, "cuda_graph": graph}
            try:
                found = compare(
                    before, after, MeasurementSetup(backend=backend, conditions=conditions, stopping_rule=stopping_rule)
                )
                row |= {
                    "speedup": asdict(found.speedup),
                    "aa_ratio": asdict(found.aa_ratio),
                    "builds_differ_percent": found.session_percent,
                    "rounds": found.rounds,
                    "cuda_package": found.device.facts["cuda_package"],
                    "engines": [
                        {
                            "p50_ms": None if one.p50_ms is None else asdict(one.p50_ms),
                            "parts_ms": {key: asdict(part) for key, part in one.parts_ms.items()},
                            "precision_share": one.precision_share,
                        }
                        for one in found.engines
                    ],
                    "gpu": None if found.environment is None else found.environment.gpu,
                    "notes": list(found.notes),
                }
            except BackendError as error:
                row["refused"] = error.message
            rows.append(row)
    return rows


def main() -> None:
    """Build, and measure where there is a GPU; other devices' entries are kept."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("networks", nargs="*", default=NETWORKS)
    parser.add_argument("--backend", default="trt-rtx", choices=("trt", "trt-rtx"))
    parser.add_argument("--target-archs", dest="ahead", default="", metavar="sm86,sm89")
    parser.add_argument(
        "--cuda", default="torch", choices=PACKAGES, help="what runs the engines; pycuda has no CUDA graphs"
    )
    given = parser.parse_args()
    targets = tuple(each for each in given.ahead.split(",") if each)
    backend = load_backend(given.backend, {"target_archs": targets} if targets else {"cuda": given.cuda})
    device = backend.device()
    found = json.loads(RESULTS.read_text()) if RESULTS.is_file() else {"schema": 1, "devices": {}}
    entry = found["devices"].setdefault(f"{given.backend}, {device.name}", {"networks": {}})
    entry |= {"backend": given.backend, "targets": list(targets), "versions": device.versions, "facts": device.facts}
    for name in given.networks:
        with TemporaryDirectory() as folder:
            files = written(name, Path(folder))
            entry["networks"][name] = {
                "commit": commit(),
                "engines": engines(files, backend),
                "runs": [] if targets else runs(files, backend),
            }
        RESULTS.write_text(json.dumps(found, indent=1) + "\n")
        print(name, len(entry["networks"][name]["engines"]), "engines,", len(entry["networks"][name]["runs"]), "runs")


if __name__ == "__main__":
    main()
