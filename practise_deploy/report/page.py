"""A release as one self-contained HTML page, and in short as Markdown."""

from __future__ import annotations

import re
from functools import cache
from typing import TYPE_CHECKING, Any

from practise_deploy.report.sections import headline, sections
from practise_deploy.report.tables import Table
from practise_deploy.terms import Release

if TYPE_CHECKING:
    from jinja2 import Environment

_SPECIAL = re.compile(r"([\\`*\[\]|])")


def render_html(release: Release) -> str:
    """One page that loads nothing else."""
    return _html().get_template("page.html.j2").render(_view(release))


def render_markdown(release: Release) -> str:
    """The same in short."""
    text = _markdown().get_template("page.md.j2").render(_view(release))
    return re.sub(r"\n{3,}", "\n\n", text).strip() + "\n"


def _view(release: Release) -> dict[str, Any]:
    """What the templates read."""
    return {"release": release, "headline": headline(release), "sections": sections(release)}


@cache
def _html() -> Environment:
    return _environment(autoescape=True)


@cache
def _markdown() -> Environment:
    environment = _environment(autoescape=False, finalize=_escaped)
    environment.filters |= {"table": _table, "code": _code}
    return environment


def _environment(**options: Any) -> Environment:
    """Templates of this package, which fail where a word is missing."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    loader = PackageLoader("practise_deploy", "report")
    return Environment(loader=loader, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, **options)


class _Written(str):
    """Markdown, not to be escaped again."""


def _escaped(found: Any) -> str:
    """Text that Markdown shows as it is, in one line."""
    if isinstance(found, _Written):
        return found
    line = " ".join(str(found).split())
    return _SPECIAL.sub(r"\\\1", line.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;"))


def _table(found: Table) -> _Written:
    """A table with its title and note."""
    rules = [":--" if at in found.left else "--:" for at in range(len(found.head))]
    cells = [[_escaped(cell) for cell in row] for row in (found.head, *found.rows)]
    lines = [f"| {' | '.join(row)} |" for row in (cells[0], rules, *cells[1:])]
    parts = (f"**{_escaped(found.title)}**", "\n".join(lines), _escaped(found.note))
    return _Written("\n\n".join(part for part in parts if part))


def _code(text: str) -> _Written:
    """Lines as typed."""
    return _Written("\n".join(f"    {line}" for line in text.splitlines()))
