"""Which ranges int8 should take: the least and largest values, percentiles, or those of least entropy, on other people's files.

    python benchmarks/speed/ranges.py [--wheels FOLDER] [--only NAME ...] [--data ../shared/data]

The files and images are those of benchmarks/reproduce/foreign.py; ranges are taken from 64 of the images to fit, and judged on 100 held-out ones
by what the task is about, against the file in float32. Ranges do not change the speed. Writes benchmarks/results/ranges.json, network by network.
"""

from __future__ import annotations

import argparse
import json
import sys
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from unittest.mock import patch

import onnx
import onnxruntime.quantization
from onnxruntime.quantization import CalibrationMethod, quantize_static

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "reproduce"))
sys.path.insert(0, str(Path(__file__).resolve().parent))

from float_operators import context_of, losses
from foreign import FILES, Foreign
from tiny.provenance import commit
from tiny.subjects import DATA, ROOT, folder_of

from practise_backends.choices import Precision
from practise_backends.rounds.intervals import ORIGINAL
from practise_deploy.deployment.precision import FLOAT_PRODUCTS, to_int8
from practise_deploy.pipeline.stages import Pruned, as_onnx

RESULTS = ROOT / "benchmarks" / "results" / "ranges.json"
IMAGES = 64
METHODS: dict[str, tuple[CalibrationMethod, dict[str, float]]] = {
    "least and largest": (CalibrationMethod.MinMax, {}),
    "99.999th percentile": (CalibrationMethod.Percentile, {"CalibPercentile": 99.999}),
    "99.99th percentile": (CalibrationMethod.Percentile, {"CalibPercentile": 99.99}),
    "99.9th percentile": (CalibrationMethod.Percentile, {"CalibPercentile": 99.9}),
    "least entropy": (CalibrationMethod.Entropy, {}),
}


def measured(foreign: Foreign, wheels: Path, data: Path) -> dict[str, Any]:
    """What every method loses on one network."""
    with TemporaryDirectory() as folder:
        place = Path(folder)
        context = context_of(foreign, wheels, data, place)
        model = as_onnx(Pruned(network=context.network), context.in_precision(Precision.FP32).released_form)
        images = context.images.fit.subsample(IMAGES, seed=0)
        files = {ORIGINAL: place / "original.onnx"}
        onnx.save(model, files[ORIGINAL])
        for number, (name, (method, options)) in enumerate(METHODS.items()):
            quantise = partial(_with_ranges, method, options)
            with patch.object(onnxruntime.quantization, "quantize_static", quantise):
                quantised = to_int8(model, images, symmetric=False)
            files[name] = place / f"{number}.onnx"
            onnx.save(quantised, files[name])
        return {"commit": commit(), "task": context.network.summary.task.kind.value, "lost": losses(context, files)}


def _with_ranges(method: CalibrationMethod, options: dict[str, float], *places: Any, **given: Any) -> None:
    given |= {"calibrate_method": method, "extra_options": FLOAT_PRODUCTS | options}
    quantize_static(*places, **given)


def main() -> None:
    """Measure what was named, and keep the rest of the file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--wheels", type=Path, default=Path("wheels"))
    parser.add_argument("--only", nargs="*")
    parser.add_argument("--data", type=Path, default=DATA)
    asked = parser.parse_args()
    found = json.loads(RESULTS.read_text()) if RESULTS.is_file() else {"schema": 1, "networks": {}}
    found["versions"] = {"onnxruntime": onnxruntime.__version__}
    for foreign in FILES:
        name = foreign.name.partition(" without ")[0]
        if name not in (asked.only or [name]) or foreign.name.endswith("6 branches"):
            continue
        found["networks"][name] = measured(foreign, asked.wheels, folder_of(asked.data))
        RESULTS.write_text(json.dumps(found, indent=1) + "\n")
        lost = found["networks"][name]["lost"]
        print(name, {method: one and round(one["points"]["estimate"], 2) for method, one in lost.items()}, flush=True)


if __name__ == "__main__":
    main()
