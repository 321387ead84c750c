"""What a comparison must show to pass: judged at the lower bound of the interval, and failing where it is unknown."""

from __future__ import annotations

from dataclasses import dataclass

from practise_backends.terms import Comparison


@dataclass(frozen=True, slots=True, kw_only=True)
class Requirement:
    """A demand and its outcome. min_speedup: None asks for faster, that is above 1."""

    min_speedup: float | None
    kept: bool
    sentence: str

    @property
    def name(self) -> str:
        """The demand in short."""
        return "faster" if self.min_speedup is None else f"speed-up of at least {self.min_speedup:g}"


def require(comparison: Comparison, min_speedup: float | None = None) -> Requirement:
    """Whether the lower bound of the speed-up's interval is above 1, or at least `min_speedup`."""
    low, estimate = comparison.speedup.low, comparison.speedup.estimate
    kept = low > 1 if min_speedup is None else low >= min_speedup
    criterion = "above 1" if min_speedup is None else f"at least {min_speedup:g}"
    where = f"the lower bound of its {100 * comparison.speedup.confidence:g}% interval is {low:.4f}"
    sentence = f"the speed-up is {'' if kept else 'not shown to be '}{criterion}: {where}"
    if not kept and estimate > (min_speedup or 1):
        sentence += (
            f"; the estimate of {estimate:.4f} is, so more sessions, or a longer measurement, may show it"
        )
    return Requirement(min_speedup=min_speedup, kept=kept, sentence=sentence)
