"""What the functions return: the records of a build, which show themselves in one line, and in a notebook as tables."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, fields, replace
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

from torch import nn

from practise_backends import terms as measured
from practise_backends.results.formatting import interval, listed, plural
from practise_backends.results.requirement import Requirement
from practise_backends.terminal import one_line
from practise_backends.terms import Interval
from practise_deploy import outcome, terms
from practise_deploy.api.words import in_python
from practise_deploy.network.loading.named_inputs import OfNamedInputs
from practise_deploy.pipeline.stages import Pruned
from practise_deploy.planning.levers import choose_point, described
from practise_deploy.report import summaries, templates
from practise_deploy.report.formatting import count_of_points, times
from practise_deploy.report.levers import levers_section
from practise_deploy.report.rows import target
from practise_deploy.report.section import Section
from practise_deploy.report.tables import ELSEWHERE, teacher_link
from practise_deploy.terms import Block, NetworkSummary, Recoverability

_Shown = TypeVar("_Shown", bound="Shown")


class Shown(ABC):
    """A result that shows itself."""

    __slots__ = ()

    @property
    @abstractmethod
    def _line(self) -> str: ...

    @property
    @abstractmethod
    def _section(self) -> Section: ...

    def __repr__(self) -> str:
        return one_line(in_python(self._line))

    def _repr_html_(self) -> str:
        """What a notebook shows: the line, then the rows, notes and tables that the command line prints."""
        section = self._section
        rows = tuple((name, in_python(text)) for name, text in section.rows)
        section = replace(section, rows=rows, notes=tuple(map(in_python, section.notes)))
        return templates.page("notebook.html.j2", {"line": repr(self), "section": section})


def shown(kind: type[_Shown], record: Any, **further: Any) -> _Shown:
    """A record as the kind that shows itself."""
    return kind(**{field.name: getattr(record, field.name) for field in fields(record)}, **further)


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Inspection(Shown):
    """A network's residual blocks. `droppable` of a block says whether it can be dropped, `reason` why not."""

    network: NetworkSummary
    blocks: tuple[Block, ...]

    @property
    def _line(self) -> str:
        droppable = sum(block.droppable for block in self.blocks)
        return f"{self.network.name}: {plural(len(self.blocks), 'block')}, of which {droppable} can be dropped"

    @property
    def _section(self) -> Section:
        return summaries.inspection(self.blocks, self.network)


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class LatencyTable(Shown, measured.LatencyTable):
    """What every block costs on the device."""

    @property
    def _line(self) -> str:
        distinguishable = sum(saving.distinguishable for saving in self.savings)
        return (
            f"{self.network} on {self.device.name or self.backend}: {interval(self.baseline_ms, ' ms')}; "
            f"{distinguishable} of {plural(len(self.savings), 'block')} cost measurable time"
        )

    @property
    def _section(self) -> Section:
        return summaries.latency(self)


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Plan(Shown, terms.Plan):
    """Which blocks to drop, with the recoverability of every candidate."""

    recoverability: tuple[Recoverability, ...]

    @property
    def _line(self) -> str:
        predicted = f"{interval(self.predicted_percent, '%')} less latency predicted"
        found = f"{interval(self.measured_percent, '%', absent=ELSEWHERE)} measured"
        return f"To {target(self)}, drop {listed(self.dropped)}: {predicted}, {found}"

    @property
    def _section(self) -> Section:
        return summaries.plan(self, self.recoverability)


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Frontier(Shown, outcome.Levers):
    """Dropped blocks and precision measured together, against the original in fp32. max_drop: the loss that is allowed, None for any."""

    network: NetworkSummary
    max_drop: float | None

    @property
    def _line(self) -> str:
        taken = choose_point(self.points, max_drop=self.max_drop, min_speedup=None)
        within = "" if self.max_drop is None else f" within {count_of_points(self.max_drop)}"
        best = "nothing is faster" if taken is None else described(taken)
        return f"{self.network.name}: {plural(len(self.points), 'point')}; the fastest{within}: {best}"

    @property
    def _section(self) -> Section:
        return levers_section(self, self.network.task, self.max_drop)


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Comparison(Shown, measured.Comparison):
    """Two networks in paired rounds. requirement: whether the second is faster, or as fast as min_speedup asks."""

    requirement: Requirement

    @property
    def kept(self) -> bool:
        """Whether the requirement is met at the lower bound."""
        return self.requirement.kept

    @property
    def _line(self) -> str:
        outcome = "passed" if self.kept else "failed"
        return f"Speed-up {times(self.speedup)}, {self.verdict}; {outcome}: {self.requirement.sentence}"

    @property
    def _section(self) -> Section:
        return summaries.comparison(self)


@dataclass(frozen=True, kw_only=True, repr=False)
class Release(Shown):
    """A finished build. record: everything that it found out. folder: its run folder."""

    record: outcome.Release
    folder: Path
    _pruned: Pruned

    @cached_property
    def network(self) -> nn.Module:
        """The new network in torch, float32, on the CPU, in eval mode; it takes what the original takes, several inputs by name too."""
        inputs = self.record.network.preprocessing.inputs
        return OfNamedInputs(self._pruned.graph, inputs).eval() if inputs else self._pruned.graph

    @property
    def onnx(self) -> Path:
        """The new network as ONNX."""
        return self.folder / self.record.exported.path

    @property
    def report(self) -> Path:
        """The report, as HTML."""
        return self.folder / "report.html"

    @property
    def speedup(self) -> Interval | None:
        """The original's latency over the new network's; None where the engine was built ahead for another device."""
        return self.record.speedup

    @property
    def speedup_over_fp32(self) -> Interval | None:
        """The same over the original in fp32, measured in the same rounds; None where `speedup` is that, or where nothing was measured."""
        fp32 = self.record.bench.fp32 if self.record.bench else None
        return None if fp32 is None else fp32.speedup

    @property
    def agreement(self) -> Interval | None:
        """Percentage of held-out images to which the deployed network gives the original's answer; None for no classifier."""
        link = teacher_link(self.record.verification)
        return None if link is None else link.agreement_percent

    @property
    def verdict(self) -> outcome.Verdict:
        """Whether the promise was kept, in a sentence, and why not."""
        return self.record.verdict

    @property
    def kept(self) -> bool:
        """Whether every demand is met at the unfavourable end of its interval."""
        return self.verdict.kept

    @property
    def _line(self) -> str:
        return f"{self.record.network.name}: {self.verdict.sentence}"

    @property
    def _section(self) -> Section:
        return summaries.release(self.record, self.folder)
