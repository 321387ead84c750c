"""Networks opened for a measurement, several sessions each, and closed afterwards.

Two sessions of one file differ in their speed (where their memory lies; for TensorRT, how the engine was
built), and go on differing for as long as they live. So every network is opened several times. What a
session gets depends on when it was opened and first run: those opened later were found to be faster, and
networks opened strictly in alternation to differ, even a file from itself. So the sessions of every
network are spread evenly over the order of opening, alike from both ends, so that none comes sooner on
average, and each runs once as soon as it is open.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from practise_backends.choices import Precision
from practise_backends.errors import about
from practise_backends.interfaces import Engine, MeasurementSetup, Progress
from practise_backends.machine.environment import SystemMonitor
from practise_backends.machine.memory import available_memory
from practise_backends.rounds.feeds import Array, select_feeds, shared_feeds
from practise_backends.rounds.intervals import ORIGINAL
from practise_backends.rounds.measure import Instruments, measure_rounds
from practise_backends.runtimes.catalog import artifact_of
from practise_backends.runtimes.external_data import size_of
from practise_backends.terms import Artifact, Conditions, Timings

_MEMORY_SHARE = 0.5
_MOST_OF_IT = 0.9
_TIMES_THE_FILE = 3  # weights as loaded, packed for the processor, and room for activations
_FEWEST = {ORIGINAL: 2}  # or there is no noise floor


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A network to be measured, and how many sessions of it. precision: where it is not that of the conditions."""

    model: bytes | Path
    sessions: int
    precision: Precision | None = None

    def conditions(self, setup: MeasurementSetup) -> Conditions:
        """What it runs under."""
        return (
            setup.conditions
            if self.precision is None
            else replace(setup.conditions, precision=self.precision)
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Opened:
    """Loaded networks by name. notes: deviations from the request, and why."""

    artifacts: dict[str, Artifact]
    engines: dict[str, list[Engine]]
    feeds: dict[str, Array]
    notes: tuple[str, ...] = ()


@dataclass(slots=True)
class _Loading:
    """What is loaded so far."""

    artifacts: dict[str, Artifact] = field(default_factory=dict)
    engines: dict[str, list[Engine]] = field(default_factory=dict)

    def close(self) -> None:
        with ExitStack() as all_of_them:  # one that fails to close does not keep the others open
            for engines in self.engines.values():
                for engine in engines:
                    all_of_them.callback(engine.close)


@contextmanager
def opened(
    candidates: Mapping[str, Candidate], setup: MeasurementSetup, progress: Progress | None = None
) -> Iterator[Opened]:
    """All candidates, compiled and opened as the module says; closed at the end.

    Each is compiled once; where two builds of one network differ in their speed (`builds_differ`), once a session.
    Where the sessions would fill more than half of the free memory, fewer are opened, and a note says so.
    Raises: CompileError, MeasureError.
    """
    loading = _Loading()
    try:
        sessions, notes = _affordable(candidates)
        builds = _compiled(candidates, sessions, setup, progress)
        loading.artifacts = {name: artifacts[0] for name, artifacts in builds.items()}
        inputs = {name: artifact.inputs for name, artifact in loading.artifacts.items()}
        with _about(*candidates.values()):
            feeds = shared_feeds(inputs, setup)
        loading.engines = {name: [] for name in candidates}
        order = _opening_order(sessions, setup.conditions.seed)
        for count, name in enumerate(order):
            _show(progress, count, len(order), "loading")
            built, session = builds[name], len(loading.engines[name])
            with _about(candidates[name]):
                engine = setup.backend.open(built[session % len(built)], candidates[name].conditions(setup))
                loading.engines[name].append(engine)
                engine.run(select_feeds(engine.inputs, feeds, name))
        warned = dict.fromkeys(
            note for artifacts in builds.values() for artifact in artifacts for note in artifact.notes
        )
        warned |= dict.fromkeys(_precision_notes(builds))
        yield Opened(
            artifacts=loading.artifacts, engines=loading.engines, feeds=feeds, notes=(*notes, *warned)
        )
    finally:
        loading.close()


def _about(*candidates: Candidate) -> AbstractContextManager[None]:
    """Errors inside the context name the files of these networks."""
    files = dict.fromkeys(
        str(candidate.model) for candidate in candidates if isinstance(candidate.model, Path)
    )
    return about(", ".join(files)) if files else nullcontext()


def measure(networks: Opened, setup: MeasurementSetup, progress: Progress | None = None) -> Timings:
    """Paired rounds of what was opened."""
    monitor = SystemMonitor(gpu=setup.backend.capabilities.on_gpu)
    conditions, rule = setup.conditions, setup.stopping_rule
    return measure_rounds(
        networks.engines,
        networks.feeds,
        conditions,
        rule,
        progress=progress,
        instruments=Instruments(monitor=monitor),
    )


def _compiled(
    candidates: Mapping[str, Candidate],
    sessions: Mapping[str, int],
    setup: MeasurementSetup,
    progress: Progress | None,
) -> dict[str, list[Artifact]]:
    """Every network's builds: one for all its sessions, or one for each."""
    differ = setup.backend.capabilities.builds_differ
    todo = [(name, build) for name in candidates for build in range(sessions[name] if differ else 1)]
    builds: dict[str, list[Artifact]] = {name: [] for name in candidates}
    for count, (name, build) in enumerate(todo):
        _show(progress, count, len(todo), "compiling")
        with _about(candidates[name]):
            artifact = artifact_of(
                setup.backend,
                candidates[name].model,
                candidates[name].conditions(setup),
                build=build,
                shapes=setup.shapes,
            )
            builds[name].append(artifact)
    return builds


def _precision_notes(builds: Mapping[str, Sequence[Artifact]]) -> Iterator[str]:
    """Networks that do not compute in the precision that they are measured as; where several share a note, the first is named."""
    seen = set()
    for name, (first, *_) in builds.items():
        share, precision = first.precision_share, first.precision
        if share is None and precision != Precision.FP32:
            note = f"in how many of its layers it computes in {precision} cannot be told"
        elif share is not None and share < _MOST_OF_IT:
            note = f"{precision} in {100 * share:.0f}% of its arithmetic layers; --precision says what it is meant to be"
        else:
            continue
        if note not in seen:
            seen.add(note)
            yield f"{name}: {note}"


def _opening_order(sessions: Mapping[str, int], seed: int) -> list[str]:
    """The order of opening the sessions: those of each network spread evenly, symmetrically from both ends."""
    rng = np.random.default_rng(seed)
    places = [(place, name) for name, count in sessions.items() for place in _spread(count, rng)]
    return [name for _, name in sorted(places)]


def _spread(count: int, rng: np.random.Generator) -> list[float]:
    """Places between 0 and 1 whose mean is a half: one drawn in each stretch, mirrored; a single one anywhere."""
    if count == 1:
        return [float(rng.random())]
    first = [(at + float(rng.random())) / count for at in range(count // 2)]
    middle = [0.5 + (float(rng.random()) - 0.5) / count] if count % 2 else []
    return [*first, *middle, *(1 - place for place in first)]


def _affordable(candidates: Mapping[str, Candidate]) -> tuple[dict[str, int], tuple[str, ...]]:
    """How many sessions of each the memory allows, and a note where that is fewer than asked."""
    requested = {name: candidate.sessions for name, candidate in candidates.items()}
    free = available_memory()
    sizes = {name: _TIMES_THE_FILE * size_of(candidate.model) for name, candidate in candidates.items()}
    most, fewer = max(requested.values()), requested
    if free is None:
        return requested, ()
    while most > 1 and sum(sizes[name] * count for name, count in fewer.items()) > _MEMORY_SHARE * free:
        most -= 1
        fewer = {name: min(max(most, _FEWEST.get(name, 1)), count) for name, count in requested.items()}
    if fewer == requested:
        return requested, ()
    note = (
        f"at most {max(fewer.values())} sessions of each network instead of {max(requested.values())}: "
        f"{free / 2**20:.0f} MiB of memory are free"
    )
    return fewer, (note,)


def _show(progress: Progress | None, done: int, total: int, what: str) -> None:
    if progress is not None:
        progress.advance(0, 1, f"{what} {done + 1} of {total}")
