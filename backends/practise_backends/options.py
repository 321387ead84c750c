"""The options of `practise-measure`, shared with the same commands of `practise-deploy`: one list for both.

Nothing heavy is imported here, so that --help answers at once.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from practise_backends.choices import ClockKind, Precision
from practise_backends.flags import Flag, above_zero, integer, natural, one_of, positive

SCENARIOS = ("SingleStream", "MultiStream", "Offline", "Server")
_MOST_SESSIONS = 1000


def flags_of(options: type) -> tuple[Flag, ...]:
    """The flags of a record of options, in the order of its fields."""
    record_fields = dataclasses.fields(options)
    return tuple(Flag(name=f.name, default=f.default, **f.metadata) for f in record_fields if f.metadata)


def several(text: str) -> int:
    """A whole number from 2 to 1000."""
    if (number := integer(text)) < 2:
        raise ValueError(f"{text} is not 2 or more: one session cannot show how much sessions differ")
    if number > _MOST_SESSIONS:
        raise ValueError(f"{text} is more than {_MOST_SESSIONS}: all are open at once")
    return number


def shape(text: str) -> tuple[str, tuple[int, ...]]:
    """`name=1x3x224x224`."""
    name, _, dims = text.rpartition("=")
    try:
        dimensions = tuple(int(dim) for dim in dims.split("x"))
    except ValueError:
        dimensions = ()
    if not name or not dimensions or min(dimensions) < 1:
        raise ValueError(f"{text!r} does not read like name=1x3x224x224")
    return name, dimensions


def counts(text: str) -> tuple[int, ...]:
    """`1,4,8`."""
    return tuple(dict.fromkeys(positive(part.strip()) for part in text.split(",")))


def scenarios(text: str) -> tuple[str, ...]:
    """`SingleStream,Offline`, or `all`; capitals do not matter."""
    names = {name.lower(): name for name in SCENARIOS}
    requested = SCENARIOS if text.strip().lower() == "all" else [part.strip() for part in text.split(",")]
    unknown = [name for name in requested if name.lower() not in names]
    if unknown:
        raise ValueError(f"LoadGen has no scenario {unknown[0]!r}; it has {', '.join(SCENARIOS)}")
    return tuple(dict.fromkeys(names[name.lower()] for name in requested))


def _flag(
    text: str, parse: Callable[[str], Any] | None = None, metavar: str = "", *, repeated: bool = False
) -> dict[str, Any]:
    """The metadata of a field about its flag."""
    return {"help": text, "parse": parse, "metavar": metavar, "repeated": repeated}


_SHAPE = _flag(
    "of an input with dynamic dimensions; may be repeated", shape, "NAME=1x3x224x224", repeated=True
)
_MIN_SPEEDUP = _flag(
    "exit with 0 when the lower bound of the speed-up's interval is at least this; below 1 it guards against "
    "becoming slower (without it: faster, above 1)",
    above_zero,
    "X",
)


_PRECISION = _flag(
    "what the network is meant to compute in; the share of its layers that do is read from the engine",
    one_of(Precision),
    "|".join(Precision),
)
_CLOCK = _flag(
    "what is timed (default: gpu_compute on a GPU, transfers left out; else end_to_end); ort: wall or cpu fix which of its two clocks counts",
    one_of(ClockKind),
    "|".join(ClockKind),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Measuring:
    """Where and how to measure. options: the backend's own, by name; `flags.option_flags` has their flags."""

    backend: str = field(default="ort", metadata=_flag("where to run", str, "NAME"))
    threads: int = field(default=1, metadata=_flag("threads of the engine", positive, "N"))
    batch: int = field(default=1, metadata=_flag("images a run", positive, "N"))
    measure_budget_s: float = field(
        default=30.0, metadata=_flag("seconds of the paired rounds, warm-up included", above_zero, "S")
    )
    seed: int = field(default=0, metadata=_flag("of the random inputs and of the order", natural, "N"))
    keep_throttled: bool = field(
        default=False, metadata=_flag("keep the rounds in which a quota or heat stopped the processor")
    )
    clock: ClockKind | None = field(default=None, metadata=_CLOCK)
    cuda_graph: bool = field(default=False, metadata=_flag("run through a CUDA graph (trt, trt-rtx)"))
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Options(Measuring):
    """How to measure files, and where to put the results.

    shape: of inputs whose dimensions are dynamic besides the batch, as pairs of name and dimensions.
    """

    precision: Precision = field(default=Precision.FP32, metadata=_PRECISION)
    shape: tuple[tuple[str, tuple[int, ...]], ...] = field(default=(), metadata=_SHAPE)
    sessions: int = field(default=6, metadata=_flag("how often each network is opened", several, "N"))
    footprint: bool = field(
        default=True, metadata=_flag("leave out cold start and memory, which take fresh processes")
    )
    json: bool = field(default=False, metadata=_flag("print exactly one JSON document"))
    markdown: Path | None = field(default=None, metadata=_flag("write a Markdown table there", Path, "FILE"))
    samples: Path | None = field(
        default=None, metadata=_flag("write the raw samples there", Path, "FILE.npz")
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class TableOptions(Measuring):
    """How to measure a kit, where its maker's wishes are not to hold, and where to put the table."""

    output: Path | None = field(
        default=None,
        metadata=_flag(
            "write the table there, its raw samples beside it (default: latency.json in the kit)",
            Path,
            "FILE.json",
        ),
    )
    json: bool = field(default=False, metadata=_flag("print exactly one JSON document"))


@dataclass(frozen=True, slots=True, kw_only=True)
class CompareOptions(Options):
    """How to compare two networks. min_speedup: None asks for faster, that is a lower bound above 1."""

    min_speedup: float | None = field(default=None, metadata=_MIN_SPEEDUP)
    junit: Path | None = field(
        default=None, metadata=_flag("write the requirement as a JUnit test there", Path, "FILE.xml")
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchOptions(Options):
    """What to measure of one network."""

    against: Path | None = field(
        default=None, metadata=_flag("measure this network in the same rounds", Path, "FILE")
    )
    batches: tuple[int, ...] = field(
        default=(), metadata=_flag("measure the throughput at these batches", counts, "1,4,8")
    )
    thread_counts: tuple[int, ...] = field(
        default=(), metadata=_flag("measure the throughput at these numbers of threads", counts, "1,2")
    )
    scenarios: tuple[str, ...] = field(
        default=(),
        metadata=_flag(
            f"run these MLPerf LoadGen scenarios: {', '.join(SCENARIOS)}, or all", scenarios, "NAME,NAME"
        ),
    )
    scenario_s: float = field(default=10.0, metadata=_flag("seconds of each scenario", above_zero, "S"))
