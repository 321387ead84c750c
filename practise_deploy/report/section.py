"""A section of a report, independent of the output format."""

from __future__ import annotations

from dataclasses import dataclass, field

from practise_backends.results.tables import Table
from practise_deploy.report.chain import Step
from practise_deploy.report.charts.chart import Chart
from practise_deploy.report.rows import Rows


@dataclass(frozen=True, slots=True, kw_only=True)
class Section:
    """A section of the report. collapsed, more: long tables and lists behind their titles. code: a command."""

    name: str
    title: str
    intro: str = ""
    chain: tuple[Step, ...] = ()
    charts: tuple[Chart, ...] = ()
    tables: tuple[Table, ...] = ()
    collapsed: tuple[Table, ...] = ()
    rows: Rows = ()
    notes: tuple[str, ...] = ()
    more: dict[str, tuple[str, ...]] = field(default_factory=dict)
    code: str = ""
