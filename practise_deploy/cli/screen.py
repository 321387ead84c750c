"""The console of the commands over files: what only they have to show."""

from __future__ import annotations

from practise_backends.results.bench import Benchmark
from practise_backends.results.doctor import Checkup
from practise_backends.results.render import figures, rounds
from practise_backends.results.requirement import Requirement
from practise_deploy.cli.console import Console
from practise_deploy.report.facts import conditions
from practise_deploy.report.tables import Table
from practise_deploy.report.words import confidence, number, times


class Screen(Console):
    """A console that also shows requirements, benchmarks and checkups."""

    def show_requirement(self, requirement: Requirement) -> None:
        """Whether a comparison showed what it had to."""
        self._remarks([f"{'passed' if requirement.kept else 'failed'}: {requirement.sentence}"])

    def show_benchmark(self, found: Benchmark) -> None:
        """One network's figures, or two in the same rounds; throughput and scenarios after them."""
        comparison = found.comparison
        if comparison is not None:
            self.show_comparison(comparison)
        else:
            self._show_alone(found)
        self.show_throughput(found.throughput)
        self.show_scenarios(found.scenarios)

    def show_checkup(self, checkup: Checkup) -> None:
        """The findings, the bad ones in bold."""
        findings = checkup.findings
        self._table(
            Table(
                title=checkup.device.name,
                head=("Subject", "Level", "Finding", "Remedy"),
                rows=tuple((one.subject, one.level, one.said, one.remedy) for one in findings),
                left=(0, 1, 2, 3),
                strong=tuple(at for at, one in enumerate(findings) if one.level == "bad"),
            )
        )

    def _show_alone(self, found: Benchmark) -> None:
        grid = figures(found)
        self._table(Table(title="One network in rounds", head=("Figure", *grid.head[1:]), rows=grid.rows, left=(0, 1)))
        counted = f"{rounds(found)}; stopped because {found.stopped_because}"
        facts = (
            ("Device", found.device.name),
            ("Backend", found.backend),
            ("Conditions", conditions(found.conditions)),
            ("Noise floor", f"{times(found.aa_ratio)}, {confidence(found.aa_ratio)} interval, against itself"),
            ("Sessions", f"{found.sessions}, which differ by {number(found.session_percent)}%"),
            ("Rounds", counted),
        )
        self._facts("", facts)
        self._remarks(found.notes)
