"""A part of a report, whatever it is printed on."""

from __future__ import annotations

from dataclasses import dataclass, field

from practise_deploy.report.chain import Step
from practise_deploy.report.charts.chart import Chart
from practise_deploy.report.facts import Facts
from practise_deploy.report.tables import Table


@dataclass(frozen=True, slots=True, kw_only=True)
class Section:
    """A part of the report. folded, more: long tables and lists, by their titles. code: as typed."""

    name: str
    title: str
    lead: str = ""
    chain: tuple[Step, ...] = ()
    charts: tuple[Chart, ...] = ()
    tables: tuple[Table, ...] = ()
    folded: tuple[Table, ...] = ()
    facts: Facts = ()
    remarks: tuple[str, ...] = ()
    more: dict[str, tuple[str, ...]] = field(default_factory=dict)
    code: str = ""
