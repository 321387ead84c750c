"""`practise-measure`: time ONNX files against the first of them."""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

from practise_backends.catalog import available_backends, load_backend
from practise_backends.errors import (
    BackendError,
    BackendMissing,
    CompileError,
    DeviceUnavailable,
    MeasureError,
)
from practise_backends.feeds import Array, Shapes, random_feeds
from practise_backends.intervals import noise_floor, percentile_ms, samples_ms, speedup, typical_ms
from practise_backends.measure import ORIGINAL, REPEAT, measure_rounds
from practise_backends.terms import Artifact, Backend, Conditions, Device, Engine, Interval, Patience, Timings

USAGE, ENVIRONMENT = 2, 3
_SCHEMA = 1


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; the result goes to stdout, an error to stderr."""
    options = _parser().parse_args(arguments)
    try:
        document = measure_files(options)
    except BackendError as error:
        sys.stderr.write(_error_line(error.message, error.remedy))
        return ENVIRONMENT if isinstance(error, BackendMissing | DeviceUnavailable) else USAGE
    sys.stdout.write(json.dumps(document, indent=2) + "\n" if options.json else render(document))
    return 0


def measure_files(options: argparse.Namespace) -> dict[str, Any]:
    """Measure the files of the command line, and say all of it in one document."""
    _check_files(options.files)
    backend = load_backend(options.backend)
    conditions = Conditions(batch=options.batch, threads=options.threads, seed=options.seed)
    patience = _patience(options)
    artifacts = {name: backend.compile(path, conditions) for name, path in _named(options.files).items()}
    feeds = _common_feeds(artifacts, conditions, dict(options.shape))
    engines: dict[str, Engine] = {}
    try:
        for name, artifact in {**artifacts, REPEAT: artifacts[ORIGINAL]}.items():
            engines[name] = backend.open(artifact, conditions)
        timings = measure_rounds(engines, feeds, conditions, patience)
    finally:
        for engine in engines.values():
            engine.close()
    results = [_result(timings, name, artifact, patience.confidence) for name, artifact in artifacts.items()]
    return _document(backend, timings, results, patience.confidence)


def render(document: Mapping[str, Any]) -> str:
    """The document as a plain table."""
    head = ("file", "p50 ms", "95% interval", "p90", "p99", "speed-up", "95% interval")
    confidence = f"{100 * document['noise_floor']['confidence']:g}%"
    rows = [tuple(cell.replace("95%", confidence) for cell in head)]
    rows += [_row(result) for result in document["results"]]
    widths = [max(len(row[at]) for row in rows) for at in range(len(head))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in rows]
    conditions, floor = document["conditions"], document["noise_floor"]
    notes = [
        "",
        f"{document['device']['name']}, backend {document['backend']}, "
        f"{conditions['threads']} thread(s), batch {conditions['batch']}",
        f"the first file against itself: {floor['estimate']:.4f} [{floor['low']:.4f}, {floor['high']:.4f}]",
        f"{document['rounds']} rounds, {len(document['discarded'])} discarded; "
        f"stopped because {document['stopped_because']}",
    ]
    return "\n".join(line.rstrip() for line in lines + notes) + "\n"


class _Parser(argparse.ArgumentParser):
    """An argument parser whose errors are one line."""

    def error(self, message: str) -> NoReturn:
        """Say what is wrong, and leave with the code for usage."""
        self.exit(USAGE, _error_line(message, f"see {self.prog} --help"))


def _parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = _Parser(prog="practise-measure", description="Time ONNX files in paired rounds.")
    parser.add_argument("files", nargs="+", type=Path, metavar="FILE.onnx")
    parser.add_argument("--backend", default="ort", help=f"installed: {', '.join(available_backends())}")
    parser.add_argument("--threads", type=_positive, default=1)
    parser.add_argument("--batch", type=_positive, default=1)
    parser.add_argument("--seed", type=int, default=0, help="of the random feeds and of the order")
    parser.add_argument("--budget-s", type=float, default=20.0, help="seconds, warm-up included")
    parser.add_argument("--min-rounds", type=_positive, default=30, help="at least 10")
    parser.add_argument("--shape", type=_shape, action="append", default=[], metavar="NAME=1x3x224x224")
    parser.add_argument("--json", action="store_true", help="print exactly one JSON document")
    return parser


def _positive(text: str) -> int:
    """A whole number from 1."""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text} is not 1 or more")
    return number


def _shape(text: str) -> tuple[str, tuple[int, ...]]:
    """`name=1x3x224x224`."""
    name, _, dims = text.rpartition("=")
    try:
        shape = tuple(int(dim) for dim in dims.split("x"))
    except ValueError:
        shape = ()
    if not name or not shape or min(shape) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} does not read like name=1x3x224x224")
    return name, shape


def _error_line(message: str, remedy: str) -> str:
    """One message: what, and the remedy."""
    return f"error: {message}; {remedy}\n" if remedy else f"error: {message}\n"


def _check_files(files: Sequence[Path]) -> None:
    """Refuse a file that is not there."""
    for path in files:
        if not path.is_file():
            raise CompileError(f"there is no file {path}", remedy="check the path")


def _patience(options: argparse.Namespace) -> Patience:
    """Patience within the budget; a tenth of it, at most 2 s, is the least warm-up."""
    if not options.budget_s > 0:
        raise MeasureError(f"a budget of {options.budget_s:g} s is not positive", remedy="give --budget-s 20")
    return Patience(
        budget_s=options.budget_s,
        warmup_s=min(2.0, options.budget_s / 10),
        min_rounds=max(10, options.min_rounds),
        max_rounds=max(2000, options.min_rounds),
    )


def _named(files: Sequence[Path]) -> dict[str, Path]:
    """The engines' names: the first file is the original, the others go by number and path."""
    further = {f"{at}: {path}": path for at, path in enumerate(files[1:], start=2)}
    return {ORIGINAL: files[0], **further}


def _common_feeds(
    artifacts: Mapping[str, Artifact], conditions: Conditions, shapes: Shapes
) -> dict[str, Array]:
    """One set of tensors for all files; each takes the inputs that it names."""
    feeds: dict[str, Array] = {}
    for name, artifact in artifacts.items():
        own = {spec.name: shapes[spec.name] for spec in artifact.inputs if spec.name in shapes}
        for key, array in random_feeds(artifact.inputs, conditions.batch, conditions.seed, own).items():
            if key in feeds and (feeds[key].shape, feeds[key].dtype) != (array.shape, array.dtype):
                raise MeasureError(
                    f"input '{key}' is {array.dtype} {array.shape} in '{name}', but {feeds[key].dtype} "
                    f"{feeds[key].shape} in an earlier file",
                    remedy="compare networks of the same input",
                )
            feeds.setdefault(key, array)
    strangers = sorted(set(shapes) - set(feeds))
    if strangers:
        raise MeasureError(f"no file has an input '{strangers[0]}'", remedy=f"the inputs are {sorted(feeds)}")
    return feeds


def _result(timings: Timings, name: str, artifact: Artifact, confidence: float) -> dict[str, Any]:
    """What is said of one file; its speed-up is None for the first."""
    latency = typical_ms(timings, name, confidence)
    samples = samples_ms(timings, name)
    first = name == ORIGINAL
    return {
        "file": str(artifact.content) if isinstance(artifact.content, Path) else name,
        "sha256": artifact.sha256,
        "precision": artifact.precision,
        "precision_share": artifact.precision_share,
        "p50_ms": _interval(latency),
        "p90_ms": _interval(percentile_ms(samples, 90, confidence)),
        "p99_ms": _interval(percentile_ms(samples, 99, confidence)),
        "throughput_per_s": 1e3 * timings.conditions.batch / latency.estimate,
        "speedup": None if first else _interval(speedup(timings, name, confidence=confidence)),
    }


def _document(
    backend: Backend, timings: Timings, results: list[dict[str, Any]], confidence: float
) -> dict[str, Any]:
    """The whole measurement, as JSON holds it."""
    device: Device = backend.device()
    return {
        "schema": _SCHEMA,
        "backend": backend.name,
        "device": dataclasses.asdict(device),
        "conditions": dataclasses.asdict(timings.conditions),
        "results": results,
        "noise_floor": _interval(noise_floor(timings, confidence)),
        "rounds": len(timings.rounds_ms),
        "discarded": list(timings.discarded),
        "warmup_s": timings.warmup_s,
        "stopped_because": timings.stopped_because,
    }


def _interval(found: Interval | None) -> dict[str, float] | None:
    """An interval as JSON holds it."""
    return None if found is None else dataclasses.asdict(found)


def _row(result: Mapping[str, Any]) -> tuple[str, ...]:
    """One file's line of the table; what the samples cannot support is a dash."""
    return (
        result["file"],
        *_cells(result["p50_ms"], "{:.3f}"),
        _cells(result["p90_ms"], "{:.3f}")[0],
        _cells(result["p99_ms"], "{:.3f}")[0],
        *_cells(result["speedup"], "{:.3f}"),
    )


def _cells(found: Mapping[str, float] | None, form: str) -> tuple[str, str]:
    """An interval as two cells."""
    if found is None:
        return "-", ""
    return form.format(found["estimate"]), f"[{form.format(found['low'])}, {form.format(found['high'])}]"
