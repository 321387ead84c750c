"""What int8 gains on ONNX Runtime, and what it costs: float32 and two forms of int8 in the same paired rounds.

    python benchmarks/speed/precision.py [resnet56] [efficientnet-lite0] [torchvision:resnet18] [torchvision:mobilenet_v2]
        [--data ../shared/data]

Weights of the torchvision networks are random, which does not change their speed; the trained ones are judged on held-out images
as well. Writes benchmarks/results/precision.json, network by network.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import onnx

from practise_backends.interfaces import MeasurementSetup
from practise_backends.rounds.estimates import estimate_latencies
from practise_backends.rounds.intervals import ORIGINAL
from practise_backends.rounds.sessions import Candidate, measure, opened
from practise_backends.runtimes.ort import OrtBackend
from practise_backends.terms import Conditions, StoppingRule
from practise_deploy.deployment.precision import in_precision
from practise_deploy.deployment.verify import Runners, engine_runner, torch_runner, verify
from practise_deploy.images.tiny_set import HeldOutImages
from practise_deploy.network.graph.onnx_graph import to_onnx
from practise_deploy.pipeline.context import BuildContext
from practise_deploy.run import Run, Silent

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "reproduce"))
from tiny.provenance import commit
from tiny.subjects import DATA, folder_of, settings_of

sys.path.insert(0, str(Path(__file__).resolve().parent))

RESULTS = Path(__file__).resolve().parents[1] / "results" / "precision.json"
NETWORKS = ("resnet56", "efficientnet-lite0", "torchvision:resnet18", "torchvision:mobilenet_v2")
FORMS = {"int8": False, "int8 in TensorRT's form": True}
THREADS, SECONDS, SESSIONS, FIT = 1, 40.0, 4, 500


def context_of(name: str, data: Path, folder: Path) -> BuildContext:
    """A network with its images; those of torchvision have random weights and no images."""
    if name.startswith("torchvision:"):
        from practise_deploy.settings import Settings

        return BuildContext(settings=Settings(network=name, out=folder), run=Run(folder), structure_only=True)
    settings = settings_of(name, data).model_copy(update={"fit_images": FIT, "out": folder})
    return BuildContext(settings=settings, run=Run(folder))


def speeds(files: dict[str, Path], shapes: Mapping[str, tuple[int, ...]] | None = None) -> dict[str, Any]:
    """All networks in the same rounds. shapes: of inputs that the files leave open."""
    at = MeasurementSetup(
        backend=OrtBackend(),
        conditions=Conditions(threads=THREADS),
        stopping_rule=StoppingRule(budget_s=SECONDS, sessions=SESSIONS, keep_throttled=True),
        shapes=shapes or {},
    )
    with opened({name: Candidate(model=file, sessions=SESSIONS) for name, file in files.items()}, at) as found:
        timings = measure(found, at)
    levels = estimate_latencies(timings)
    return {
        "rounds": len(timings.rounds_ms),
        "discarded": len(timings.discarded),
        "aa_ratio": asdict(levels.noise_floor()),
        "latency_ms": {name: asdict(levels.typical_ms(name)) for name in files},
        "speedup": {name: asdict(levels.speedup(name)) for name in files if name != ORIGINAL},
    }


def quality(context: BuildContext, files: dict[str, Path], images: HeldOutImages) -> dict[str, Any]:
    """What each file says of the held-out images, beside the network in torch."""
    found = {}
    for name, file in files.items():
        backend, plain = OrtBackend(), Conditions(threads=2)
        engine = backend.open(backend.compile(file, plain), plain)
        teacher = torch_runner(context.network.traced)
        forms = Runners(teacher=teacher, student=teacher, onnx=engine_runner(engine, 1), engine=None, precision="int8")
        told = verify(forms, images, Silent())
        last = told.links[-1]
        found[name] = {
            "accuracy": {key: asdict(one) for key, one in told.accuracy.items() if key in ("teacher", "ONNX")},
            "drop_points": None if told.loss is None else asdict(told.loss.points),
            "relative_rms": last.relative_rms,
            "cosine": last.cosine,
            "agreement_percent": asdict(last.agreement_percent),
        }
    return found


def measured(name: str, data: Path) -> dict[str, Any]:
    """One network."""
    with TemporaryDirectory() as place:
        folder = Path(place)
        context = context_of(name, data, folder / "run")
        trained = not name.startswith("torchvision:")
        model = to_onnx(context.network.traced, (1, *context.network.input_shape[1:]))
        fit = context.images.fit if trained else None
        files = {ORIGINAL: folder / "fp32.onnx"}
        onnx.save(model, files[ORIGINAL])
        for form, symmetric in FORMS.items():
            files[form] = folder / f"{symmetric}.onnx"
            onnx.save(in_precision(model, "int8", fit, symmetric=symmetric), files[form])
        shares = {
            form: OrtBackend().compile(files[form], Conditions(precision="int8")).precision_share for form in FORMS
        }
        return {
            "commit": commit(),
            **speeds(files),
            "precision_share": shares,
            "images_for_ranges": len(fit) if fit else 0,
            "quality": quality(context, files, context.images.held_out) if trained else {},
            "file_mb": {form: file.stat().st_size / 1e6 for form, file in files.items()},
        }


def main() -> None:
    """Measure what was named, and keep the rest of the file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("networks", nargs="*", default=NETWORKS)
    parser.add_argument("--data", type=Path, default=DATA)
    given = parser.parse_args()
    data = folder_of(given.data)
    found = json.loads(RESULTS.read_text()) if RESULTS.is_file() else {"schema": 1, "networks": {}}
    device = OrtBackend().device()
    found["device"] = {"name": device.name, "versions": device.versions}
    found["threads"], found["sessions"] = THREADS, SESSIONS
    for name in given.networks:
        found["networks"][name] = measured(name, data)
        RESULTS.write_text(json.dumps(found, indent=1) + "\n")
        print(name, json.dumps(found["networks"][name]["speedup"]))


if __name__ == "__main__":
    main()
