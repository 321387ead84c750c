"""A release in the order in which it is read: what was won, why these blocks, and how one knows."""

from __future__ import annotations

from dataclasses import dataclass, field

from practise_deploy.report import tables
from practise_deploy.report.chart import Chart, bargains
from practise_deploy.report.facts import (
    Facts,
    conditions,
    images_facts,
    latency_facts,
    network_facts,
    plan_facts,
    rounds_facts,
    shipped_facts,
    verification_facts,
)
from practise_deploy.report.tables import Table
from practise_deploy.report.words import (
    confidence,
    duration,
    interval,
    listed,
    missing,
    number,
    plural,
    times,
)
from practise_deploy.terms import LatencyTable, Release, Speedup

_UNLABELLED = (
    "The images carry no labels, so accuracy is unknown; "
    "the share of images with the teacher's own top-1 class stands in for it."
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """One of the numbers at the top."""

    title: str
    text: str
    detail: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Section:
    """A part of the report. more: long lists that are folded away, by their titles. code: as typed."""

    name: str
    title: str
    lead: str = ""
    chart: Chart | None = None
    tables: tuple[Table, ...] = ()
    facts: Facts = ()
    remarks: tuple[str, ...] = ()
    more: dict[str, tuple[str, ...]] = field(default_factory=dict)
    code: str = ""


def headline(release: Release) -> tuple[Figure, ...]:
    """The numbers at the top: what was won, and what it cost."""
    return (_speedup(release), _latency(release), quality(release), _dropped(release))


def sections(release: Release) -> tuple[Section, ...]:
    """All parts of the report, in reading order."""
    return (
        _blocks(release),
        _plan(release),
        _recovery(release),
        _verification(release),
        _bench(release.bench),
        _noise(release.latency),
        _network(release),
        _images(release),
        _shipped(release),
        _environment(release),
        _reproduce(release),
    )


def quality(release: Release) -> Figure:
    """Accuracy before and after, or agreement with the teacher where there are no labels."""
    found = release.verification
    change = tables.accuracy_change(found)
    if change:
        before, after = (interval(one.percent, "%") for one in change)
        lost = f"; {_lost(release)}" if found.drop_points else ""
        return Figure(title="Top-1 accuracy", text=f"{before} → {after}", detail=f"{_judged(release)}{lost}")
    link = tables.teacher_link(found)
    agreement = link.agreement_percent if link else None
    text = interval(agreement, "%", absent="nothing was compared")
    return Figure(title="Agreement with the teacher", text=text, detail=f"{_judged(release)}; no labels")


def latency_change(release: Release) -> str:
    """Median latency before and after."""
    pair = tables.before_and_after(release.bench)
    if pair is None:
        return missing("the bench holds no pair of engines")
    few = "too few samples"
    return f"{interval(pair[0].p50_ms, ' ms', absent=few)} → {interval(pair[1].p50_ms, ' ms', absent=few)}"


def _speedup(release: Release) -> Figure:
    found = release.speedup
    less = f"{number(100 * (1 - 1 / found.estimate))}% less time a run" if found.estimate > 0 else ""
    return Figure(title="Speed-up", text=times(found), detail=less)


def _latency(release: Release) -> Figure:
    found = release.bench
    detail = f"{conditions(found.conditions)}; {found.device.name or 'unnamed device'}"
    return Figure(title="Latency, p50", text=latency_change(release), detail=detail)


def _dropped(release: Release) -> Figure:
    plan = release.plan
    of = f" of {len(release.latency.savings)}" if release.latency.savings else ""
    return Figure(title="Blocks dropped", text=f"{len(plan.dropped)}{of}", detail=listed(plan.dropped))


def _judged(release: Release) -> str:
    return f"on {plural(release.verification.images, 'held-out image')}"


def _lost(release: Release) -> str:
    return f"lost {interval(release.verification.drop_points, ' points')}"


def _blocks(release: Release) -> Section:
    picture = bargains(release)
    absent = picture.absent if picture else ()
    remarks = (f"Not in the picture, for want of a recoverability: {listed(absent)}.",) if absent else ()
    return Section(
        name="blocks",
        title="Which blocks cost much and are missed little",
        lead="Savings were measured on the device; losses were judged on images not used for the fit.",
        chart=picture,
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
        title="The plan",
        lead="Blocks were taken by their scores until the target was met, then measured as a whole.",
        facts=plan_facts(release.plan),
        tables=(tables.attempts(release.plan),) if release.plan.attempts else (),
    )


def _recovery(release: Release) -> Section:
    stages = {"Closed form": release.recovered, "Finetuned": release.finetuned}
    return Section(name="recovery", title="Recovery", tables=(tables.students(stages),))


def _verification(release: Release) -> Section:
    found = release.verification
    return Section(
        name="verification",
        title="Does it still compute the same?",
        lead="" if found.accuracy else _UNLABELLED,
        facts=verification_facts(found),
        tables=(*((tables.accuracies(found),) if found.accuracy else ()), tables.links(found)),
        remarks=found.problems,
    )


def _bench(found: Speedup) -> Section:
    facts = (("Speed-up", times(found.speedup)), ("Verdict", found.verdict), *rounds_facts(found))
    return Section(
        name="bench",
        title="How fast is it?",
        lead=f"Both engines ran once a round, in random order. Intervals are {confidence(found.speedup)}.",
        tables=(tables.bench(found),),
        facts=facts,
        more=_folded(found.discarded),
    )


def _noise(found: LatencyTable) -> Section:
    return Section(
        name="noise",
        title="How the blocks were measured",
        facts=latency_facts(found),
        more=_folded(found.discarded),
    )


def _folded(discarded: tuple[str, ...]) -> dict[str, tuple[str, ...]]:
    return {plural(len(discarded), "discarded round"): discarded} if discarded else {}


def _network(release: Release) -> Section:
    found = release.network
    return Section(
        name="network",
        title="The network",
        facts=network_facts(found),
        tables=(tables.inspected(release.blocks),),
        remarks=found.notes,
    )


def _images(release: Release) -> Section:
    found = release.images
    more = {plural(len(found.skipped), "skipped file"): found.skipped} if found.skipped else {}
    return Section(name="images", title="The images", facts=images_facts(found), remarks=found.notes, more=more)


def _shipped(release: Release) -> Section:
    return Section(name="shipped", title="The file", facts=shipped_facts(release.shipped))


def _environment(release: Release) -> Section:
    device = release.bench.device
    facts = (
        ("Device", device.name or missing("it has no name")),
        *((key.replace("_", " "), fact) for key, fact in device.facts.items()),
        *((f"{key} version", version) for key, version in device.versions.items()),
        ("Fingerprint", device.fingerprint),
    )
    strange = release.latency.device.fingerprint != device.fingerprint
    other = ("The blocks were measured on a device with another fingerprint than the bench's.",)
    return Section(name="environment", title="The device", facts=facts, remarks=other if strange else ())


def _reproduce(release: Release) -> Section:
    return Section(
        name="reproduce",
        title="Reproduce",
        lead=f"Recipe {release.recipe}.",
        code=release.command,
        facts=tuple((step, duration(seconds)) for step, seconds in release.seconds.items()),
    )
