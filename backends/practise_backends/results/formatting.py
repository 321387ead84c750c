"""Number formatting: the digits that the interval supports, a unit, a dash for an absent value."""

from __future__ import annotations

import math
from collections.abc import Sequence

from practise_backends.terminal import one_line
from practise_backends.terms import Interval, Measurement

ABSENT = "–"
_MOST_DIGITS = 4
_SIZES = ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"))


def number(value: float | None, digits: int = 3) -> str:
    """A number with `digits` significant digits."""
    if value is None or not math.isfinite(value):
        return ABSENT
    if value == 0:
        return "0"
    magnitude = _magnitude(value)
    if not -4 <= magnitude < 9:
        mantissa, _, power = f"{value:.{digits - 1}e}".partition("e")
        return _signed(f"{mantissa}e{int(power)}")
    return _fixed(value, max(0, digits - 1 - magnitude))


def quantity(value: float | None, unit: str, *, absent: str = "", digits: int = 3) -> str:
    """A number with its unit, or a dash with the reason for its absence."""
    if value is None or not math.isfinite(value):
        return missing(absent)
    return f"{number(value, digits)}{unit}"


def interval(value: Interval | None, unit: str = "", *, absent: str = "") -> str:
    """An estimate and its interval, `1.24 ms (1.21 to 1.27)`, or a dash with the reason."""
    if value is None or not math.isfinite(value.estimate):
        return missing(absent)
    decimals = _decimals(value)
    if decimals > 5 or not math.isfinite(value.low + value.high):
        return f"{number(value.estimate)}{unit} ({number(value.low)} to {number(value.high)})"
    low, high = (_fixed(end, decimals) for end in (value.low, value.high))
    return f"{_fixed(value.estimate, decimals)}{unit} ({low} to {high})"


def missing(reason: str) -> str:
    """A dash with the reason."""
    return f"{ABSENT} ({reason})" if reason else ABSENT


def count(value: float) -> str:
    """A count, a large one with an SI suffix: 896, 25.6 M."""
    for size, letter in _SIZES:
        if abs(value) >= size:
            return f"{number(value / size)} {letter}"
    return f"{value:g}"


def size(byte_count: float) -> str:
    """Bytes in megabytes."""
    return f"{number(byte_count / 1e6)} MB"


def listed(names: Sequence[str], *, none: str = "none") -> str:
    """Names in one line."""
    return ", ".join(names) if names else none


def plural(amount: int, singular: str, plural_form: str = "") -> str:
    """A count with its noun."""
    return f"{amount:,} {singular if amount == 1 else plural_form or singular + 's'}"


def confidence(value: Interval) -> str:
    """The confidence of an interval, `95%`."""
    return f"{100 * value.confidence:g}%"


def conditions(measurement: Measurement) -> str:
    """The conditions that the latency depends on, in one line."""
    setup, package = measurement.conditions, measurement.device.facts.get("cuda_package")
    clock, threads = setup.clock.replace("_", " "), plural(setup.threads, "thread")
    graph = ", CUDA graph" if setup.cuda_graph else ""
    through = f", through {one_line(package)}" if package else ""
    return (
        f"batch {setup.batch}, {threads}, {setup.precision}, {clock} time{graph}, seed {setup.seed}{through}"
    )


def rounds(measurement: Measurement) -> str:
    """How many rounds were run, and how many of them were discarded."""
    return f"{len(measurement.discarded):,} of {measurement.rounds:,} rounds discarded"


def _decimals(value: Interval) -> int:
    """Decimals that show two digits of the interval's width and at most four of the estimate."""
    width = value.high - value.low
    largest = max(abs(value.low), abs(value.high), abs(value.estimate))
    if not math.isfinite(width + largest) or largest == 0:
        return 2
    decimals = 1 - _magnitude(width) if width > 0 else _MOST_DIGITS
    return max(0, min(decimals, _MOST_DIGITS - 1 - _magnitude(largest)))


def _magnitude(value: float) -> int:
    """The power of ten."""
    return math.floor(math.log10(abs(value)))


def _fixed(value: float, decimals: int) -> str:
    """Fixed decimals, with a true minus sign and never minus zero."""
    text = f"{value:,.{decimals}f}"
    return _signed(text if float(text.replace(",", "")) else text.lstrip("-"))


def _signed(text: str) -> str:
    """With a true minus sign."""
    return "−" + text[1:] if text.startswith("-") else text
