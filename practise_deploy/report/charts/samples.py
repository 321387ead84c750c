"""The raw samples of a comparison, read for drawing."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from practise_backends.terms import Comparison

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Samples:
    """rounds_ms: float64[rounds, columns]. engines: the name of each column. valid: the rounds that count, bool[rounds]."""

    rounds_ms: Floats
    engines: tuple[str, ...]
    valid: npt.NDArray[np.bool_]

    @property
    def names(self) -> tuple[str, ...]:
        """Each network once, in order."""
        return tuple(dict.fromkeys(self.engines))

    def of(self, name: str) -> Floats:
        """All runs of one network in valid rounds. Shape: [runs]."""
        runs = self.rounds_ms[self.valid][:, self._columns(name)]
        return runs.ravel()

    def by_round(self, name: str) -> Floats:
        """The median over a network's sessions in every valid round. Shape: [valid rounds]."""
        runs = self.rounds_ms[self.valid][:, self._columns(name)]
        return np.asarray(np.median(runs, axis=1), dtype=np.float64)

    def _columns(self, name: str) -> npt.NDArray[np.bool_]:
        return np.array([engine == name for engine in self.engines])


def samples_of(comparison: Comparison) -> Samples | None:
    """The samples of a comparison; None if they are not available or no round is valid."""
    rounds_ms = np.asarray(comparison.samples.get("rounds_ms", ()), dtype=np.float64)
    engines = tuple(str(name) for name in comparison.samples.get("engines", ()))
    if rounds_ms.ndim != 2 or not engines or rounds_ms.shape[1] != len(engines):
        return None
    valid = np.asarray(np.isfinite(rounds_ms).all(axis=1))
    both = {engine.name for engine in comparison.engines}
    drawn = [column for column, name in enumerate(engines) if name in both]
    names = tuple(engines[column] for column in drawn)
    return Samples(rounds_ms=rounds_ms[:, drawn], engines=names, valid=valid) if valid.any() and drawn else None


def tone_of(index: int) -> str:
    """The tone of the network at an index: the first is the old one."""
    return "old" if index == 0 else "new"
