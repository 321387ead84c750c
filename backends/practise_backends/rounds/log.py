"""The rounds of a measurement so far, and the rules by which a round is discarded.

Fixed beforehand, for all measurements: a round is discarded whole when
- any engine took more than 5 times its running median (an interruption hit it), or
- its median engine took more than 1.5 times its running median (the device throttled, or was taken away), or
- the system monitor reports trouble (a quota or heat stopped the processor) since it was last asked.
The running median is of the last 51 rounds, discarded ones included, renewed when 10 or more have been added, so that
a lasting change of speed is not discarded for good.

Clocks: a run is interrupted where it took over 5% longer than its thread had a processor. Where over a tenth of the runs
were, the samples are CPU times: what a run waits for a processor comes in whole time slices, which hide a small saving in most
rounds, so that a robust estimate of wall-clock ratios lies too near to 1. Otherwise they are wall-clock times.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from practise_backends.terms import CPU, WALL

Row = npt.NDArray[np.float64]

_SPIKE = 5.0
_SLOW = 1.5
_RENEW = 10
_MEMORY = 51
_INTERRUPTED, _FIXED_MS = 1.05, 0.01
_OFTEN = 0.1


@dataclass(slots=True, kw_only=True)
class RoundLog:
    """Rounds in the order in which they ran. medians: the running medians, milliseconds by column.

    walls, cpus: every round by either clock; cpus are NaN where an engine cannot tell. interrupted: how many runs were.
    asked: the clock that counts whatever disturbs; empty where the interruptions decide.
    """

    names: tuple[str, ...]
    medians: Row
    asked: str = ""
    walls: list[Row] = field(default_factory=list)
    cpus: list[Row] = field(default_factory=list)
    interrupted: int = 0
    reasons: dict[int, str] = field(default_factory=dict)
    monitored: int = 0
    renewed: int = 0

    @property
    def interrupted_share(self) -> float:
        """Of all runs, those that other processes interrupted; 0 where that cannot be told."""
        return self.interrupted / max(1, len(self.walls) * len(self.names))

    @property
    def clock(self) -> str:
        """By which clock the samples are, WALL or CPU: the one that was asked for, or else by how often runs were interrupted."""
        return self.asked or (CPU if self.interrupted_share > _OFTEN else WALL)

    @property
    def rows(self) -> list[Row]:
        """The rounds by that clock."""
        return self.cpus if self.clock == CPU else self.walls

    @property
    def valid_rounds(self) -> int:
        """Rounds that were not discarded."""
        return len(self.rows) - len(self.reasons)

    def add(self, rounds: Row) -> None:
        """Record rounds, and discard some by the rules on their times. Shapes: float64[rounds, columns, wall and CPU]."""
        clock, (walls, cpus) = self.clock, np.moveaxis(rounds, -1, 0)
        self.walls.extend(walls)
        self.cpus.extend(cpus)
        has_cpu_time = ~np.isnan(cpus).any(axis=1)
        self.interrupted += int((walls > _INTERRUPTED * cpus + _FIXED_MS)[has_cpu_time].sum())
        if self.clock != clock:
            self._renew()
        self._discard_outliers(np.array(self.rows[-len(rounds) :]), len(self.rows) - len(rounds))
        if len(self.rows) - self.renewed >= _RENEW:
            self._renew()

    def _renew(self) -> None:
        """The running medians anew."""
        self.medians = np.asarray(np.median(self.rows[-_MEMORY:], axis=0))
        self.renewed = len(self.rows)

    def mark_monitored(self, trouble: str) -> None:
        """Discard the rounds since the last call if the system monitor reports trouble."""
        if trouble:
            for at in range(self.monitored, len(self.rows)):
                self.reasons.setdefault(at, trouble)
        self.monitored = len(self.rows)

    def masked(self) -> Row:
        """All rounds, the discarded ones as NaN: float64[rounds, columns]."""
        rows = np.array(self.rows)
        rows[sorted(self.reasons)] = np.nan
        return rows

    def valid(self) -> Row:
        """The rounds that were not discarded: float64[valid rounds, columns]."""
        return np.array([row for at, row in enumerate(self.rows) if at not in self.reasons])

    def discarded(self) -> tuple[str, ...]:
        """One sentence a discarded round; rounds are counted from 0, as in `Timings.rounds_ms`."""
        return tuple(f"round {at}: {reason}" for at, reason in sorted(self.reasons.items()))

    def _discard_outliers(self, rounds: Row, first: int) -> None:
        """Discard rounds by their times relative to the current running medians. first: the number of the first round."""
        slowdown = rounds / self.medians
        round_slowdown = np.median(slowdown, axis=1)
        for at in np.flatnonzero((slowdown.max(axis=1) > _SPIKE) | (round_slowdown > _SLOW)):
            worst = int(slowdown[at].argmax())
            self.reasons[first + int(at)] = (
                f"'{self.names[worst]}' took {rounds[at, worst]:.4g} ms, more than {_SPIKE:g} times its running "
                f"median of {self.medians[worst]:.4g} ms"
                if slowdown[at, worst] > _SPIKE
                else f"the whole round took {round_slowdown[at]:.3g} times its running median: throttled or taken away"
            )
