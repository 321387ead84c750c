"""What is done of a grid, and how long the rest may take."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import mean

from .grid import SCORES, Unit
from .shelf import Shelf


def listed(units: Sequence[Unit], shelf: Shelf) -> str:
    """One line a unit, and the sum; the estimate for one process."""
    records = {unit: shelf.read(unit) for unit in units}
    seconds: dict[tuple[str, int, bool], list[float]] = {}
    for unit, record in records.items():
        if record is not None:
            seconds.setdefault(_kind(unit), []).append(record["seconds"])
    lines = [f"{'done   ' if record else 'missing'} {unit.name}" for unit, record in records.items()]
    missing = [unit for unit, record in records.items() if record is None]
    known = [mean(seconds[_kind(unit)]) for unit in missing if _kind(unit) in seconds]
    rest = f"about {sum(known) / 3600:.1f} h in one process" if known else "time unknown"
    unknown = (
        f", without {len(missing) - len(known)} of a kind not seen yet" if known and len(known) < len(missing) else ""
    )
    lines.append(f"{len(units) - len(missing)} of {len(units)} done; the rest: {rest if missing else 'none'}{unknown}")
    return "\n".join(lines)


def _kind(unit: Unit) -> tuple[str, int, bool]:
    """Units that take alike."""
    return unit.network, unit.steps, unit.method == SCORES
