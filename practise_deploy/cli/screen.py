"""The console of the commands over files."""

from __future__ import annotations

from practise_backends.results.bench import Benchmark
from practise_backends.results.doctor import Checkup
from practise_backends.results.render import figures, rounds
from practise_backends.results.requirement import Requirement
from practise_deploy.cli.console import Console
from practise_deploy.report.formatting import confidence, number, times
from practise_deploy.report.rows import conditions
from practise_deploy.report.tables import Table


class Screen(Console):
    """A console that also shows requirements, benchmarks and checkups."""

    def show_requirement(self, requirement: Requirement) -> None:
        """Whether a comparison met the requirement."""
        self._notes([f"{'passed' if requirement.kept else 'failed'}: {requirement.sentence}"])

    def show_benchmark(self, benchmark: Benchmark) -> None:
        """The figures of one network, or of two in the same rounds; then throughput and scenarios."""
        comparison = benchmark.comparison
        if comparison is not None:
            self.show_comparison(comparison)
        else:
            self._show_alone(benchmark)
        self.show_throughput(benchmark.throughput)
        self.show_scenarios(benchmark.scenarios)

    def show_checkup(self, checkup: Checkup) -> None:
        """The findings, the bad ones in bold."""
        findings = checkup.findings
        self._table(
            Table(
                title=checkup.device.name,
                head=("Subject", "Level", "Finding", "Remedy"),
                rows=tuple((finding.subject, finding.level, finding.said, finding.remedy) for finding in findings),
                left=(0, 1, 2, 3),
                strong=tuple(index for index, finding in enumerate(findings) if finding.level == "bad"),
            )
        )

    def _show_alone(self, benchmark: Benchmark) -> None:
        grid = figures(benchmark)
        self._table(Table(title="One network in rounds", head=("Figure", *grid.head[1:]), rows=grid.rows, left=(0, 1)))
        counted = f"{rounds(benchmark)}; stopped because {benchmark.stopped_because}"
        rows = (
            ("Device", benchmark.device.name),
            ("Backend", benchmark.backend),
            ("Conditions", conditions(benchmark.conditions)),
            ("Noise floor", f"{times(benchmark.aa_ratio)}, {confidence(benchmark.aa_ratio)} interval, against itself"),
            ("Sessions", f"{benchmark.sessions}, which differ by {number(benchmark.session_percent)}%"),
            ("Rounds", counted),
        )
        self._rows("", rows)
        self._notes(benchmark.notes)
