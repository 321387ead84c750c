"""The console of the commands over files."""

from __future__ import annotations

from practise_backends.results.bench import Benchmark
from practise_backends.results.doctor import Checkup
from practise_backends.results.requirement import Requirement
from practise_backends.results.tables import Table
from practise_deploy.cli.console import Console


class Screen(Console):
    """A console that also shows requirements, benchmarks and checkups."""

    def show_requirement(self, requirement: Requirement) -> None:
        """Whether a comparison met the requirement."""
        self._notes([f"{'passed' if requirement.kept else 'failed'}: {requirement.sentence}"])

    def show_benchmark(self, benchmark: Benchmark) -> None:
        """The figures of one network, or of two in the same rounds; then throughput and scenarios."""
        self.show_comparison(benchmark)
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
