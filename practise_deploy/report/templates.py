"""The templates of this package, which escape foreign text and fail on undefined variables."""

from __future__ import annotations

import re
from functools import cache
from typing import TYPE_CHECKING, Any

from practise_backends.results.tables import Table, escaped, in_markdown
from practise_backends.terminal import clean
from practise_deploy.report.chain import Step
from practise_deploy.report.charts.chart import Chart
from practise_deploy.report.charts.drawing import NARROW, WIDE, Drawing, draw, outline

if TYPE_CHECKING:
    from jinja2 import Environment

_SWATCHES = {
    "line": "M1 7H21",
    "steps": "M1 11H11V3H21",
    "dashes": "M1 7H21",
    "guide": "M1 7H21",
    "dots": "M4 8h.01M10 5h.01M17 9h.01",
    "ticks": "M11 2v10",
    "arrows": "M11 3l-4 7h8z",
}


def page(name: str, view: dict[str, Any]) -> str:
    """Render a template, HTML or Markdown, without terminal control characters."""
    environment = html() if name.endswith(".html.j2") else markdown()
    text = clean(environment.get_template(name).render(view))
    return text if environment is html() else _tidy(text)


@cache
def html() -> Environment:
    """The HTML environment, which escapes all values."""
    environment = _environment(autoescape=True)
    environment.filters |= {"drawings": _drawings, "swatch": _swatch, "parts": _parts}
    return environment


@cache
def markdown() -> Environment:
    """The Markdown environment."""
    environment = _environment(autoescape=False, finalize=_escaped)
    environment.filters |= {"table": _table, "code": _code, "chain": _chain}
    return environment


def _tidy(text: str) -> str:
    """Markdown without superfluous empty lines."""
    return re.sub(r"\n{3,}", "\n\n", text).strip() + "\n"


def _environment(**options: Any) -> Environment:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    loader = PackageLoader("practise_deploy", "report")
    return Environment(loader=loader, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, **options)


def _drawings(chart: Chart) -> tuple[Drawing, Drawing]:
    """Drawings for wide and narrow screens; the page shows one of them."""
    return draw(chart, WIDE), draw(chart, NARROW)


def _swatch(shape: str) -> str:
    """The path of a mark or a piece of a curve, for the key of a chart."""
    return _SWATCHES.get(shape) or outline(shape, 11, 7, 4.5)


def _parts(cell: str) -> list[str]:
    """Split a value from its interval, where a narrow cell may wrap."""
    return re.split(r" (?=\()", cell, maxsplit=1)


class _Written(str):
    """Markdown that is already escaped."""


def _escaped(text: Any) -> str:
    """Text escaped for Markdown, on one line."""
    if isinstance(text, _Written):
        return text
    return escaped(str(text))


def _table(table: Table) -> _Written:
    """A table with its title and note."""
    parts = (f"**{escaped(table.title)}**", in_markdown(table), escaped(table.note))
    return _Written("\n\n".join(part for part in parts if part))


def _code(text: str) -> _Written:
    """An indented code block."""
    return _Written("\n".join(f"    {line}" for line in text.splitlines()))


def _chain(steps: tuple[Step, ...]) -> _Written:
    """The chain as a numbered list."""
    lines = [
        f"{position}. **{escaped(step.name)}**" + (f": {escaped(', '.join(step.compared))}" if step.compared else "")
        for position, step in enumerate(steps, 1)
    ]
    return _Written("\n".join(lines))
