"""Several releases side by side: one row a run, and whether the rows are comparable."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from practise_backends.results.formatting import conditions, confidence, interval, listed, missing, plural
from practise_backends.results.tables import Table
from practise_backends.terminal import duration
from practise_deploy.outcome import Release
from practise_deploy.report import tables, templates
from practise_deploy.report.charts.speedups import speedups
from practise_deploy.report.formatting import points_lost, times
from practise_deploy.report.headline import latency_change
from practise_deploy.report.section import Section

_UNLABELLED = "no labels"
_MEANS = {
    "network": "each speed-up is relative to the run's own original, so the rows rank runs, not networks",
    "device": "a speed-up on one device says little about another",
    "conditions": "batch, threads, precision and clock change a speed-up",
    "held-out images": "accuracies are of different images, or of a different number of them",
}


def render_runs_html(releases: Mapping[str, Release]) -> str:
    """One page of several runs, by their names; it loads nothing else."""
    return templates.page("runs.html.j2", _view(releases))


def render_runs_markdown(releases: Mapping[str, Release]) -> str:
    """A short Markdown version."""
    return templates.page("runs.md.j2", _view(releases))


def results_table(releases: Mapping[str, Release]) -> Table:
    """The result of each run."""
    return Table(
        title="What each run came to",
        head=("Run", "Promise", "Speed-up", "Top-1 accuracy", "Points lost", "Agreement", "Wall time"),
        rows=tuple(_result(name, release) for name, release in releases.items()),
        left=(0, 1, 3),
        strong=tuple(index for index, release in enumerate(releases.values()) if release.verdict.kept),
        note="Brackets hold intervals; coloured rows kept their promise. Points lost are paired by image, "
        "or estimated where there are no labels; "
        "agreement is with the original's own answers: of classifiers, the share of images with its top-1 class.",
    )


def settings_table(releases: Mapping[str, Release]) -> Table:
    """The network, device and conditions of each run."""
    return Table(
        title="What each run was of",
        head=("Run", "Network", "Device", "Conditions", "Dropped", "Latency, p50"),
        rows=tuple(_setting(name, release) for name, release in releases.items()),
        left=(0, 1, 2, 3, 4, 5),
    )


def differences(releases: Mapping[str, Release]) -> tuple[str, ...]:
    """Why rows are not comparable, as sentences; empty if they are."""
    identities = {what: {_identities(release)[what] for release in releases.values()} for what in _MEANS}
    return tuple(
        f"The runs differ in {what} ({'; '.join(sorted(values))}): {_MEANS[what]}."
        for what, values in identities.items()
        if len(values) > 1
    )


def _view(releases: Mapping[str, Release]) -> dict[str, Any]:
    return {
        "title": f"{plural(len(releases), 'run')} compared",
        "intro": _intro(releases),
        "warnings": differences(releases),
        "sections": _sections(releases) if releases else (),
    }


def _intro(releases: Mapping[str, Release]) -> str:
    """The best run among those that kept their promise, in one sentence."""
    kept_count = sum(release.verdict.kept for release in releases.values())
    if not kept_count:
        return "No run kept its promise." if releases else "There is no run to show."
    of = f"{kept_count} of {len(releases)} kept their promise"
    kept = {name: run.speedup for name, run in releases.items() if run.verdict.kept and run.speedup is not None}
    if not kept:
        return f"{of}; none of them ran here."
    best = max(kept, key=lambda name: kept[name].low)
    return f"{of}; the fastest of them is “{best}”: {times(kept[best])}, {confidence(kept[best])} interval."


def _sections(releases: Mapping[str, Release]) -> tuple[Section, ...]:
    picture = speedups(releases)
    unlabelled = [name for name, release in releases.items() if release.verification.loss is None]
    absent = (
        (f"Not in the chart, as they are not classifiers: {listed(unlabelled)}.",) if picture and unlabelled else ()
    )
    sentences = tuple((name, release.verdict.sentence) for name, release in releases.items())
    runs = Section(
        name="runs",
        title="The runs",
        charts=(picture,) if picture else (),
        tables=(results_table(releases), settings_table(releases)),
        rows=sentences,
        notes=absent,
    )
    commands = tuple((name, release.command) for name, release in releases.items())
    return (runs, Section(name="reproduce", title="Reproduce", rows=commands))


def _identities(release: Release) -> dict[str, str]:
    """What must be equal for rows to be comparable."""
    measured, images = release.measured_on, release.verification
    device = measured.device
    return {
        "network": f"{release.network.name} {release.network.sha256[:8]}".strip(),
        "device": f"{device.name} {device.fingerprint[:8]}".strip(),
        "conditions": conditions(measured),
        "held-out images": f"{plural(images.images, 'image')} of {release.images.source}",
    }


def _result(name: str, release: Release) -> tuple[str, ...]:
    verification, verdict = release.verification, release.verdict
    change = tables.accuracy_change(verification)
    link = tables.teacher_link(verification)
    return (
        name,
        verdict.answer.value + (f" (exit code {verdict.exit_code})" if verdict.exit_code else ""),
        times(release.speedup),
        " → ".join(interval(accuracy.percent, "%") for accuracy in change) if change else missing(_UNLABELLED),
        points_lost(verification.loss),
        interval(link.agreement_percent if link else None, "%", absent="nothing was compared"),
        duration(sum(release.seconds.values())) if release.seconds else missing("not recorded"),
    )


def _setting(name: str, release: Release) -> tuple[str, ...]:
    bench, plan = release.measured_on, release.plan
    return (
        name,
        release.network.name,
        bench.device.name or missing("it has no name"),
        conditions(bench),
        f"{len(plan.dropped)} of {len(release.latency.savings)}: {listed(plan.dropped)}",
        latency_change(release),
    )
