"""A release in the order in which it is read: what was won, why these blocks, and how one knows."""

from __future__ import annotations

from practise_backends.terms import Comparison
from practise_deploy.outcome import Release
from practise_deploy.report import chain, measurements, tables
from practise_deploy.report.charts.bargains import absent, bargains
from practise_deploy.report.charts.chart import Chart
from practise_deploy.report.charts.distributions import distributions
from practise_deploy.report.charts.frontier import frontier, frontier_table, neighbours
from practise_deploy.report.charts.predictions import predicted
from practise_deploy.report.charts.rounds import rounds, rounds_table
from practise_deploy.report.charts.shares import shares
from practise_deploy.report.demands import demands, outcome, way_out
from practise_deploy.report.facts import (
    comparison_facts,
    compiled_facts,
    device_facts,
    images_facts,
    latency_facts,
    network_facts,
    plan_facts,
    shipped_facts,
    verification_facts,
)
from practise_deploy.report.section import Section
from practise_deploy.report.words import confidence, duration, listed, missing, number, plural

_UNLABELLED = (
    "The images carry no labels, so the loss of accuracy is an estimate: the mean of what the original's own probabilities give "
    "its answer, less what they give the student's. It is as good as the original is calibrated; the interval allows for sharper "
    "probabilities, and for a student that is right where the original doubts."
)
_JUDGED_ON = {
    "refit": "images not used for the fit",
    "paper": "the images that the adaptors learned from, as published",
}
_RANKED = "Blocks were taken by their scores until the target was met"
_SEARCHED = (
    "Of the sets that surely save enough, those of least predicted error were recovered and judged; the best was taken"
)
_AS_A_WHOLE = {True: ", and measured as a whole.", False: ", by the table alone: its device is not at hand."}
_NO_SAMPLES = "The raw samples are not at hand, so neither the distributions nor the rounds can be drawn."
_OTHER_DEVICE = "The blocks were measured on a device with another fingerprint than the bench's."


def sections(release: Release) -> tuple[Section, ...]:
    """All parts of the report, in reading order."""
    return (
        *_gate(release),
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
        _shipped(release),
        _environment(release),
        _reproduce(release),
    )


def _gate(release: Release) -> tuple[Section, ...]:
    gate = release.gate
    if gate is None:
        return ()
    found = (demands(gate),) if gate.constraints else ()
    return (Section(name="gate", title="The gate", lead=outcome(gate), tables=found, remarks=way_out(gate)),)


def _blocks(release: Release) -> Section:
    names = absent(release) if bargains(release) else ()
    remarks = (f"Not in the picture, for want of a recoverability: {listed(names)}.",) if names else ()
    return Section(
        name="blocks",
        title="Which blocks cost much and are missed little",
        lead=f"Savings were measured on the device; losses were judged on {_JUDGED_ON[release.recipe]}.",
        charts=_drawn(bargains(release)),
        tables=(tables.choices(release.plan, release.recoverability, release.latency),),
        remarks=(*remarks, *_fits(release)),
    )


def _fits(release: Release) -> tuple[str, ...]:
    kinds = {(one.method, one.fit_images, one.judged_images) for one in release.recoverability}
    told = [f"{method}, {fit:,} images to fit, {judged:,} to judge" for method, fit, judged in sorted(kinds)]
    return (f"How recoverability was found: {'; '.join(told) or missing('no block was judged')}.",)


def _plan(release: Release) -> Section:
    return Section(
        name="plan",
        title="The plan, predicted and measured",
        lead=(_SEARCHED if release.plan.considered else _RANKED)
        + _AS_A_WHOLE[release.plan.measured_percent is not None],
        charts=_drawn(shares(release), predicted(release)),
        facts=plan_facts(release.plan),
        tables=(
            *((tables.considered(release.plan),) if release.plan.considered else ()),
            measurements.predictions(release),
        ),
        remarks=release.plan.notes,
    )


def _frontier(release: Release) -> tuple[Section, ...]:
    picture = frontier(release) if release.frontier.images else None
    if picture is None:
        return ()
    table = frontier_table(release)
    title, lead = "Latency against accuracy", "What dropping more, or fewer, blocks would have given."
    return (
        Section(name="trade", title=title, lead=lead, charts=(picture,), tables=(table,), remarks=neighbours(release)),
    )


def _recovery(release: Release) -> Section:
    stages = {"Closed form": release.recovered, "Finetuned": release.finetuned}
    refitted = tables.sites(release.recovered)
    return Section(
        name="recovery",
        title="Recovery",
        tables=(tables.students(stages),),
        folded=(refitted,) if refitted else (),
    )


def _verification(release: Release) -> Section:
    found = release.verification
    return Section(
        name="verification",
        title="Does it still compute the same?",
        lead=_UNLABELLED if found.loss is not None and found.loss.estimated else "",
        chain=chain.steps(release),
        facts=verification_facts(found),
        tables=(*((tables.accuracies(found),) if found.accuracy else ()), tables.links(found)),
        remarks=(*chain.direct(found.links), *found.problems),
    )


def _bench(release: Release) -> tuple[Section, ...]:
    found = release.bench
    if found is None:
        return ()
    pictures = _drawn(distributions(found), rounds(found))
    parts = rounds_table(found)
    section = Section(
        name="bench",
        title="How fast is it?",
        lead=f"Every session of both networks ran once a round, in random order. {_estimator(found)}"
        f"Intervals are {confidence(found.speedup)}.",
        charts=pictures,
        tables=(measurements.bench(found),),
        folded=(parts,) if parts else (),
        facts=comparison_facts(found),
        remarks=found.notes if pictures else (*found.notes, _NO_SAMPLES),
        more=_folded(found.discarded),
    )
    return (section,)


def _estimator(found: Comparison) -> str:
    """Which estimator was taken, and why."""
    error = found.estimator_errors_percent.get(found.estimator)
    if error is None:
        return ""
    least = min(found.estimator_errors_percent.values())
    rank = "the least of those tried" if error <= least else f"the least of those tried is {number(least, 2)}%"
    told = f"between sessions of one file its error is {number(error, 2)}%, {rank}"
    return f"The estimator is the {found.estimator}: {told}. "


def _throughput(release: Release) -> tuple[Section, ...]:
    if not release.throughput:
        return ()
    found = measurements.throughput(release.throughput)
    return (Section(name="throughput", title="Throughput", tables=(found,)),)


def _noise(release: Release) -> Section:
    found = release.latency
    return Section(
        name="noise",
        title="How the blocks were measured",
        lead="The original was opened four times, one block of every class twice, a twin of it once, and some random "
        "sets of blocks once; each ran once a round in random order; "
        "a saving is the difference to the original in the same round.",
        facts=latency_facts(found),
        tables=(measurements.checks(found),),
        folded=(tables.savings(found),),
        remarks=found.notes,
        more=_folded(found.discarded),
    )


def _folded(discarded: tuple[str, ...]) -> dict[str, tuple[str, ...]]:
    return {f"{plural(len(discarded), 'discarded round')} and why": discarded} if discarded else {}


def _drawn(*found: Chart | None) -> tuple[Chart, ...]:
    return tuple(chart for chart in found if chart is not None)


def _network(release: Release) -> Section:
    found = release.network
    return Section(
        name="network",
        title="The network",
        facts=network_facts(found),
        folded=(tables.inspected(release.blocks),),
        remarks=found.notes,
    )


def _images(release: Release) -> Section:
    found = release.images
    more = {plural(len(found.skipped), "skipped file"): found.skipped} if found.skipped else {}
    return Section(name="images", title="The images", facts=images_facts(found), remarks=found.notes, more=more)


def _shipped(release: Release) -> Section:
    found = release.compiled
    strangers = tables.other_layers(found)
    return Section(
        name="shipped",
        title="What runs on the device",
        facts=(*shipped_facts(release.shipped), *compiled_facts(found)),
        folded=(strangers,) if strangers else (),
        remarks=found.notes,
    )


def _environment(release: Release) -> Section:
    device = release.measured_on.device
    strange = release.latency.device.fingerprint != device.fingerprint
    return Section(
        name="environment",
        title="The device",
        tables=(measurements.environments(release),),
        facts=device_facts(device),
        remarks=(_OTHER_DEVICE,) if strange else (),
    )


def _reproduce(release: Release) -> Section:
    return Section(
        name="reproduce",
        title="Reproduce",
        lead=f"Recipe {release.recipe}. This command{'' if release.bench is None else ', on this device,'} gives these "
        "figures within their intervals.",
        code=release.command,
        facts=tuple((step, duration(seconds)) for step, seconds in release.seconds.items()),
    )
