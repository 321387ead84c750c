"""The sections of a release in reading order: the result, the choice of blocks, and the evidence."""

from __future__ import annotations

from practise_backends.results.formatting import confidence, listed, missing, number, plural
from practise_backends.results.tables import engines, savings, throughput
from practise_backends.terminal import duration
from practise_backends.terms import Comparison
from practise_deploy.outcome import Release
from practise_deploy.report import chain, measurements, tables
from practise_deploy.report.charts.chart import Chart
from practise_deploy.report.charts.distributions import distributions
from practise_deploy.report.charts.frontier import frontier, frontier_table, neighbours
from practise_deploy.report.charts.predictions import predicted
from practise_deploy.report.charts.rounds import rounds, rounds_table
from practise_deploy.report.charts.saving_vs_error import absent, saving_vs_error
from practise_deploy.report.charts.shares import shares
from practise_deploy.report.demands import alternatives, demands, outcome
from practise_deploy.report.levers import levers_section
from practise_deploy.report.rows import (
    comparison_rows,
    compiled_rows,
    device_rows,
    exported_rows,
    images_rows,
    latency_rows,
    network_rows,
    plan_rows,
    verification_rows,
)
from practise_deploy.report.section import Section

_UNLABELLED = (
    "The images have no labels, so the loss of accuracy is an estimate: the mean probability that the "
    "original gives its own answer, minus the probability that it gives the student's answer. It is as "
    "good as the original is calibrated; the interval allows for sharper probabilities, and for cases "
    "where the student is right and the original is uncertain."
)
_JUDGED_ON = {
    "refit": "images not used for the fit",
    "paper": "the images that the adaptors were trained on, as published",
}
_RANKED = "Blocks were dropped in the order of their scores until the target was met"
_SEARCHED = "Of the sets that save enough at the lower bound, those with the least predicted error were recovered and verified; the best was taken"
_WITH_PRECISION = "The blocks were chosen together with the precision (see above)"
_HOW_MEASURED = {
    True: ", and measured as a whole.",
    False: ", by the table alone, as its device is not available here.",
}
_NO_SAMPLES = "The raw samples are missing, so neither the distributions nor the rounds can be drawn."
_FROM_PYTHON = "It was built from Python, of objects that no command line has. This call, with the same objects"
_OTHER_DEVICE = "The blocks were measured on a device with a different fingerprint."


def sections(release: Release) -> tuple[Section, ...]:
    """All sections, in reading order."""
    return (
        *_gate(release),
        *_levers(release),
        _blocks(release),
        _plan(release),
        *_frontier(release),
        _recovery(release),
        _verification(release),
        *_bench(release),
        *_throughput(release),
        _noise(release),
        _network(release),
        _images(release),
        _exported(release),
        _environment(release),
        _reproduce(release),
    )


def _gate(release: Release) -> tuple[Section, ...]:
    gate = release.gate
    if gate is None:
        return ()
    requirements = (demands(gate),) if gate.constraints else ()
    return (Section(name="gate", title="The gate", intro=outcome(gate), tables=requirements, notes=alternatives(gate)),)


def _levers(release: Release) -> tuple[Section, ...]:
    if release.levers is None:
        return ()
    taken = next(
        point
        for point in release.levers.points
        if (point.dropped, point.precision) == (release.plan.dropped, release.compiled.precision)
    )
    limits = [] if release.gate is None else [c.required for c in release.gate.constraints if c.name == "max_drop"]
    return (levers_section(release.levers, release.network.task, limits[0] if limits else None, taken),)


def _blocks(release: Release) -> Section:
    names = absent(release) if saving_vs_error(release) else ()
    notes = (f"Not in the chart, as they have no recoverability: {listed(names)}.",) if names else ()
    return Section(
        name="blocks",
        title="Which blocks save much and cost little",
        intro=f"Savings were measured on the device; errors were evaluated on {_JUDGED_ON[release.recipe]}.",
        charts=_drawn(saving_vs_error(release)),
        tables=(tables.choices(release.plan, release.recoverability, release.latency),),
        notes=(*notes, *_fits(release)),
    )


def _fits(release: Release) -> tuple[str, ...]:
    kinds = {
        (recoverability.method, recoverability.fit_images, recoverability.judged_images)
        for recoverability in release.recoverability
    }
    fits = [f"{method}, {fit:,} images to fit, {judge:,} to validate" for method, fit, judge in sorted(kinds)]
    return (f"Recoverability was computed with {'; '.join(fits) or missing('no block was judged')}.",)


def _plan(release: Release) -> Section:
    return Section(
        name="plan",
        title="The plan, predicted and measured",
        intro=(_WITH_PRECISION if release.plan.over_fp32 else _SEARCHED if release.plan.considered else _RANKED)
        + _HOW_MEASURED[release.plan.measured_percent is not None],
        charts=_drawn(shares(release), predicted(release)),
        rows=plan_rows(release.plan),
        tables=(
            *((tables.considered(release.plan),) if release.plan.considered else ()),
            measurements.predictions(release),
        ),
        notes=release.plan.notes,
    )


def _frontier(release: Release) -> tuple[Section, ...]:
    picture = frontier(release) if release.frontier.images else None
    if picture is None:
        return ()
    table = frontier_table(release)
    title, intro = "Latency against accuracy", "What dropping fewer or more blocks would have saved and cost."
    return (
        Section(name="trade", title=title, intro=intro, charts=(picture,), tables=(table,), notes=neighbours(release)),
    )


def _recovery(release: Release) -> Section:
    stages = {"Closed form": release.recovered, "Finetuned": release.finetuned}
    refitted = tables.refit_points(release.recovered)
    return Section(
        name="recovery",
        title="Recovery",
        tables=(tables.students(stages),),
        collapsed=(refitted,) if refitted else (),
    )


def _verification(release: Release) -> Section:
    verification = release.verification
    return Section(
        name="verification",
        title="Does it still compute the same?",
        intro=_UNLABELLED if verification.loss is not None and verification.loss.estimated else "",
        chain=chain.steps(release),
        rows=verification_rows(verification),
        tables=(*((tables.accuracies(verification),) if verification.accuracy else ()), tables.links(verification)),
        notes=(*chain.direct(verification.links, release.network.task.kind), *verification.problems),
    )


def _bench(release: Release) -> tuple[Section, ...]:
    comparison = release.bench
    if comparison is None:
        return ()
    pictures = _drawn(distributions(comparison), rounds(comparison))
    parts = rounds_table(comparison)
    section = Section(
        name="bench",
        title="How fast is it?",
        intro=f"Every session of both networks ran once per round, in random order. {_estimator(comparison)}"
        f"Intervals are {confidence(comparison.speedup)}.",
        charts=pictures,
        tables=(engines(comparison),),
        collapsed=(parts,) if parts else (),
        rows=comparison_rows(comparison),
        notes=comparison.notes if pictures else (*comparison.notes, _NO_SAMPLES),
        more=_discarded(comparison.discarded),
    )
    return (section,)


def _estimator(comparison: Comparison) -> str:
    """Which estimator was chosen, and why."""
    error = comparison.estimator_errors_percent.get(comparison.estimator)
    if error is None:
        return ""
    smallest = min(comparison.estimator_errors_percent.values())
    rank = "the least of those tried" if error <= smallest else f"the least of those tried is {number(smallest, 2)}%"
    reason = f"between sessions of one file, its error is {number(error, 2)}%, {rank}"
    return f"The estimator is the {comparison.estimator}: {reason}. "


def _throughput(release: Release) -> tuple[Section, ...]:
    if not release.throughput:
        return ()
    table = throughput(release.throughput)
    return (Section(name="throughput", title="Throughput", tables=(table,)),)


def _noise(release: Release) -> Section:
    table = release.latency
    return Section(
        name="noise",
        title="How the blocks were measured",
        intro=(
            "The original was opened four times, one block of every class twice, its twin once, and some random "
            "sets of blocks once. Each ran once per round in random order; a saving is the difference from the "
            "original in the same round."
        ),
        rows=latency_rows(table),
        tables=(measurements.checks(table),),
        collapsed=(savings(table),),
        notes=table.notes,
        more=_discarded(table.discarded),
    )


def _discarded(discarded: tuple[str, ...]) -> dict[str, tuple[str, ...]]:
    return {f"{plural(len(discarded), 'discarded round')} and why": discarded} if discarded else {}


def _drawn(*charts: Chart | None) -> tuple[Chart, ...]:
    return tuple(chart for chart in charts if chart is not None)


def _network(release: Release) -> Section:
    network = release.network
    return Section(
        name="network",
        title="The network",
        rows=network_rows(network),
        collapsed=(tables.inspected(release.blocks),),
        notes=network.notes,
    )


def _images(release: Release) -> Section:
    images = release.images
    more = {plural(len(images.skipped), "skipped file"): images.skipped} if images.skipped else {}
    return Section(name="images", title="The images", rows=images_rows(images), notes=images.notes, more=more)


def _exported(release: Release) -> Section:
    compiled = release.compiled
    others = tables.other_layers(compiled)
    return Section(
        name="shipped",
        title="What runs on the device",
        rows=(*exported_rows(release.exported), *compiled_rows(compiled)),
        collapsed=(others,) if others else (),
        notes=compiled.notes,
    )


def _environment(release: Release) -> Section:
    device = release.measured_on.device
    strange = release.latency.device.fingerprint != device.fingerprint
    return Section(
        name="environment",
        title="The device",
        tables=(measurements.environments(release),),
        rows=device_rows(device),
        notes=(_OTHER_DEVICE,) if strange else (),
    )


def _reproduce(release: Release) -> Section:
    here = "" if release.bench is None else ", on this device,"
    this = "This command" if release.command.startswith("practise-deploy ") else _FROM_PYTHON
    return Section(
        name="reproduce",
        title="Reproduce",
        intro=f"Recipe {release.recipe}. {this}{here} gives these figures within their intervals.",
        code=release.command,
        rows=tuple((step, duration(seconds)) for step, seconds in release.seconds.items()),
    )
