"""Text for a terminal. What is from files, networks and kits is made harmless: it may hold characters that command one or turn its letters round."""

from __future__ import annotations

import math
import re

_COMMANDS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]")
"""Control characters, those that end a line unseen, and those that turn the direction of text."""
_SPACES = str.maketrans("\n\r\t", "   ")


def clean(text: str) -> str:
    """Without control characters and marks of direction; line ends and tabs stay."""
    return _COMMANDS.sub("", text)


def one_line(text: str) -> str:
    """The same in one line, so that a name cannot look like a line of ours."""
    return clean(text.translate(_SPACES))


def duration(seconds: float) -> str:
    """Seconds, minutes or hours; a dash where there is no number."""
    if not math.isfinite(seconds):
        return "-"
    if seconds < 0.0005:
        return "0 s"
    if seconds < 60:
        return f"{f'{seconds:#.2g}'.rstrip('.')} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"
