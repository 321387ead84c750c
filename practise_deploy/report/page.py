"""A release as one self-contained HTML page, and in short as Markdown."""

from __future__ import annotations

from typing import Any

from practise_deploy.outcome import Release
from practise_deploy.report import templates
from practise_deploy.report.headline import headline
from practise_deploy.report.sections import sections

_ESSENTIAL = (  # sections of the Markdown version
    "gate",
    "blocks",
    "plan",
    "trade",
    "verification",
    "bench",
    "throughput",
    "noise",
    "environment",
    "reproduce",
)


def render_html(release: Release) -> str:
    """One page that loads nothing else."""
    return templates.page("page.html.j2", _view(release))


def render_markdown(release: Release) -> str:
    """A short Markdown version."""
    return templates.page("page.md.j2", {**_view(release), "essential": _ESSENTIAL})


def _view(release: Release) -> dict[str, Any]:
    """The variables of the templates."""
    return {"release": release, "headline": headline(release), "sections": sections(release)}
