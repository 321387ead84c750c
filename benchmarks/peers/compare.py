"""Peers side by side: what other tools make of the same network and the same images, beside this one's releases, in one paired session.

    python benchmarks/peers/compare.py [efficientnet-lite0] [resnet56] --python nncf=ENV/bin/python onnxsim=ENV/bin/python \
        torch_pruning=ENV/bin/python [--data ../shared/data]

Every peer runs in an environment of its own, by the script of its name in this folder; torch_pruning's holds this package too, since the
student mimics its teacher as ours does. What --python does not name is left out, and said. All files are measured in the same rounds, with
one thread, against the original in fp32, and judged by the labels of the same test images.
Writes benchmarks/results/peers.json, network by network.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from contextlib import ExitStack, closing
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import onnx

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "reproduce"))
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "speed"))

from builds import builds
from precision import speeds
from tiny.provenance import commit
from tiny.subjects import DATA, ROOT, folder_of

from practise_backends.choices import Precision
from practise_backends.rounds.intervals import ORIGINAL
from practise_backends.runtimes.ort import OrtBackend
from practise_backends.terms import Conditions
from practise_deploy.deployment.precision import in_precision
from practise_deploy.deployment.verify import engine_runner, look_at
from practise_deploy.network.graph.onnx_graph import to_onnx
from practise_deploy.pipeline.context import BuildContext
from practise_deploy.run import Run, Silent
from practise_deploy.settings import read_settings
from practise_deploy.tasks.judging import accuracy_of

RESULTS = ROOT / "benchmarks" / "results" / "peers.json"
NETWORKS = {"efficientnet-lite0": "efficientnet-lite0-25", "resnet56": "resnet56"}
"""By name: the build of the README whose network, images and test images are taken."""
OURS = {
    "int8, 15% less": ["--precision", "int8", "--reduce", "15%"],
    "int8, 30% less": ["--precision", "int8", "--reduce", "30%"],
}


@dataclass(frozen=True)
class Peer:
    """A way to a faster file. script: in this folder. strength: how much it prunes, where it prunes."""

    label: str
    script: str
    strength: float = 0.0


PEERS = (
    Peer("ONNX Runtime's static int8, as it comes", "onnxruntime"),
    Peer("NNCF's post-training int8", "nncf"),
    *(Peer(f"onnxsim, {share:.0%} of the channels gone, ridge", "onnxsim", share) for share in (0.1, 0.2, 0.3)),
    *(
        Peer(f"torch-pruning, {share:.0%} of the channels gone, mimicking", "torch_pruning", share)
        for share in (0.1, 0.2, 0.3)
    ),
)


def measured(name: str, data: Path, pythons: dict[str, str]) -> dict[str, Any]:
    """One network."""
    given = builds(data)[NETWORKS[name]]
    at = given.index("--reduce")
    arguments = [*given[:at], *given[at + 2 :]]
    with TemporaryDirectory() as folder:
        place = Path(folder)
        context = _context(arguments, place / "run")
        files, told = {ORIGINAL: place / "original.onnx"}, {}
        model = to_onnx(context.network.traced, (1, *context.network.input_shape[1:]))
        onnx.save(model, files[ORIGINAL])
        fit = context.images.fit
        np.save(place / "calibration.npy", fit.batch(range(len(fit))).numpy())
        (place / "settings.json").write_text(json.dumps(_settings(arguments)))
        for peer in PEERS:
            if peer.script in pythons:
                told[peer.label], files[peer.label] = _made(peer, pythons[peer.script], place, len(files))
        files["ours: int8, nothing dropped"] = place / "int8.onnx"
        onnx.save(in_precision(model, Precision.INT8, fit, symmetric=False), place / "int8.onnx")
        for label, more in OURS.items():
            files[f"ours: {label}"] = _built([*arguments, *more], place / f"build{len(files)}")
        return {
            "commit": commit(),
            "fit_images": len(fit),
            "test_images": len(context.images.held_out),
            "versions": told,
            "left_out": sorted({peer.script for peer in PEERS} - {*pythons}),
            **_judged(context, files),
            **speeds(files),
        }


def _settings(arguments: list[str]) -> dict[str, Any]:
    network, *options = arguments
    return {"network": network, "threads": 1} | {
        flag.removeprefix("--").replace("-", "_"): int(value) if value.isdecimal() else value
        for flag, value in zip(options[::2], options[1::2], strict=True)
    }


def _context(arguments: list[str], out: Path) -> BuildContext:
    settings = read_settings(_settings(arguments) | {"out": out})
    return BuildContext(settings=settings, run=Run(settings.run_folder))


def _made(peer: Peer, python: str, place: Path, number: int) -> tuple[dict[str, str], Path]:
    """The versions that made it, and the file."""
    file = place / f"{number}.onnx"
    command = [
        python,
        Path(__file__).resolve().parent / "tools" / f"{peer.script}_maker.py",
        place,
        file,
        str(peer.strength),
    ]
    print(peer.label, flush=True)
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return json.loads(done.stdout.splitlines()[-1]), file


def _built(arguments: list[str], out: Path) -> Path:
    """The release of a build as a user would start it; its promise may be broken, which the loss tells."""
    more = [] if "--threads" in arguments else ["--threads", "1"]
    command = [
        sys.executable,
        "-m",
        "practise_deploy.cli",
        "build",
        *arguments,
        *more,
        "--no-frontier",
        "--out",
        str(out),
    ]
    subprocess.run(command, check=False, stdout=subprocess.DEVNULL)
    return out / "model.onnx"


def _judged(context: BuildContext, files: dict[str, Path]) -> dict[str, Any]:
    """Accuracy of every file on the test images, and what it lost against the original."""
    network, images, at = context.network.summary, context.images.held_out, Conditions(threads=1)
    truth = images.labels.numpy()
    with ExitStack() as held:
        runners = {}
        for name, file in files.items():
            backend = OrtBackend()
            engine = held.enter_context(closing(backend.open(backend.compile(file, at), at)))
            runners[name] = engine_runner(engine, 1, network.preprocessing)
        pairs = [(ORIGINAL, name) for name in files if name != ORIGINAL]
        found = look_at(runners, pairs, images, Silent(), network.task)
    return {
        "accuracy": {name: asdict(accuracy_of(network.task, found.answers[name], truth)) for name in files},
        "lost": {name: asdict(found.loss(ORIGINAL, name, truth)) for _, name in pairs},
    }


def main() -> None:
    """The named networks, or all; the rest of the file is kept."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("networks", nargs="*", default=list(NETWORKS))
    parser.add_argument("--python", nargs="*", default=[], metavar="PEER=PATH")
    parser.add_argument("--data", type=Path, default=DATA)
    given = parser.parse_args()
    pythons = {"onnxruntime": sys.executable} | dict(each.split("=", 1) for each in given.python)
    found = json.loads(RESULTS.read_text()) if RESULTS.is_file() else {"schema": 1, "networks": {}}
    found["device"] = {"name": OrtBackend().device().name, "versions": OrtBackend().device().versions}
    for name in given.networks:
        one = measured(name, folder_of(given.data), pythons)
        found["networks"][name] = one
        RESULTS.write_text(json.dumps(found, indent=1) + "\n")
        for label, ratio in one["speedup"].items():
            lost = one["lost"][label]["points"]
            print(f"{name}: {label}: {ratio['estimate']:.2f} times as fast, lost {lost['estimate']:.2f}", flush=True)


if __name__ == "__main__":
    main()
