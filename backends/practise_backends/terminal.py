"""Text from files, networks and kits, made harmless for a terminal: it may hold characters that command one or turn its letters round."""

from __future__ import annotations

_SPACES = str.maketrans("\n\r\t", "   ")


def clean(text: str) -> str:
    """Without control characters and marks of direction; line ends and tabs stay."""
    return "".join(letter for letter in text if letter.isprintable() or letter in "\n\t")


def one_line(text: str) -> str:
    """The same in one line, so that a name cannot look like a line of ours."""
    return clean(text.translate(_SPACES))
