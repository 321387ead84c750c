"""Which networks a latency table measures in the same rounds.

The original, opened four times; of every latency class (structurally equal blocks) one block left out,
opened twice, and a twin of it as a spot check; and some random sets of blocks, which say whether savings
add up.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from practise_backends.rounds.intervals import ORIGINAL

SETS = 6
ORIGINALS, FIRSTS, TWINS = 4, 2, 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Cut:
    """A block that can be left out, and its latency class: blocks of one class have equal operators and shapes."""

    block: str
    latency_class: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Variant:
    """The network without some blocks, and how many sessions of it."""

    dropped: tuple[str, ...]
    sessions: int

    @property
    def name(self) -> str:
        """What its engines are called."""
        return " + ".join(self.dropped) or ORIGINAL


@dataclass(frozen=True, slots=True, kw_only=True)
class Design:
    """What is measured together. firsts, twins: by latency class."""

    firsts: dict[int, str]
    twins: dict[int, str]
    sets: tuple[tuple[str, ...], ...]

    def measured(self, latency_class: int) -> list[str]:
        """The blocks that stand for their class: its first one, and a twin where there is one."""
        return [blocks[latency_class] for blocks in (self.firsts, self.twins) if latency_class in blocks]

    def variants(self) -> tuple[Variant, ...]:
        """All networks of the measurement, the original first."""
        return (
            Variant(dropped=(), sessions=ORIGINALS),
            *(Variant(dropped=(block,), sessions=FIRSTS) for block in self.firsts.values()),
            *(Variant(dropped=(block,), sessions=TWINS) for block in self.twins.values()),
            *(Variant(dropped=names, sessions=1) for names in self.sets),
        )


def design_of(cuts: Sequence[Cut], seed: int, sets: int = SETS) -> Design:
    """One block of every class, a twin drawn at random where there is one, and random sets of blocks.

    A set takes a random number of blocks from every class, two in all at least and, where there are three
    or more blocks, not all of them.
    """
    rng = np.random.default_rng(seed)
    classes: dict[int, list[str]] = {}
    for cut in cuts:
        classes.setdefault(cut.latency_class, []).append(cut.block)
    twins = {key: str(rng.choice(names[1:])) for key, names in classes.items() if len(names) > 1}
    drawn: list[tuple[str, ...]] = []
    for _ in range(20 * sets):
        chosen = {
            str(name)
            for names in classes.values()
            for name in rng.choice(names, rng.integers(0, len(names) + 1), replace=False)
        }
        ordered = tuple(cut.block for cut in cuts if cut.block in chosen)
        small_enough = len(ordered) < len(cuts) or len(cuts) == 2
        if len(ordered) > 1 and small_enough and ordered not in drawn and len(drawn) < sets:
            drawn.append(ordered)
    return Design(firsts={key: names[0] for key, names in classes.items()}, twins=twins, sets=tuple(drawn))
