"""Dropped blocks and precision measured together, as a section."""

from __future__ import annotations

from practise_backends.results.formatting import interval, listed, plural
from practise_backends.results.tables import Table
from practise_deploy.outcome import LeverPoint, Levers
from practise_deploy.planning.levers import alone, is_original, point_of
from practise_deploy.planning.measures import agreement_title, loss_title
from practise_deploy.report.charts.levers import levers as picture
from practise_deploy.report.formatting import count_of_points, lost_or_gained, points_lost, times
from practise_deploy.report.section import Section
from practise_deploy.terms import Task

_INTRO = (
    "Growing sets of blocks, recovered in closed form, in every precision of the device, all in the same rounds. What is lost was judged on images that "
    "neither the fit nor the final proof sees."
)


def levers_section(measured: Levers, task: Task, max_drop: float | None, chosen: LeverPoint | None = None) -> Section:
    """All points, and what each lever gives alone. max_drop: the loss that is allowed, None for any. chosen: what was built."""
    chart = picture(measured)
    return Section(
        name="levers",
        title="Blocks and precision together",
        intro=_INTRO,
        charts=() if chart is None else (chart,),
        tables=(_table(measured, task, chosen), *_built(measured)),
        notes=(*_alone(measured, max_drop), *measured.refused, *measured.notes),
    )


def _table(measured: Levers, task: Task, chosen: LeverPoint | None) -> Table:
    points = sorted(measured.points, key=lambda point: point.speedup.estimate)
    return Table(
        title="Every point against the original in fp32",
        head=("Precision", "Dropped", "Speed-up", agreement_title(task.kind), _lost(measured), "Front", "Blocks"),
        rows=tuple(
            (
                str(point.precision),
                plural(len(point.dropped), "block"),
                times(point.speedup),
                interval(point.agreement_percent, "%", absent="no answers to the task"),
                points_lost(point.loss),
                "yes" if point.on_front else "",
                listed(point.dropped),
            )
            for point in points
        ),
        left=(0, 1, 5, 6),
        strong=tuple(number for number, point in enumerate(points) if point == chosen),
        note=f"{plural(measured.rounds, 'round')}; fitted on {plural(measured.fit_images, task.sample)}, judged on {measured.images:,}. On the front no other "
        "point is as fast and loses as little." + (" The coloured row was released." if chosen else ""),
    )


def _lost(measured: Levers) -> str:
    return loss_title(of_accuracy=all(point.loss.of_accuracy for point in measured.points if point.loss))


def _built(measured: Levers) -> tuple[Table, ...]:
    """The points that were built whole."""
    if not measured.built:
        return ()
    points = [point_of(measured.points, built) for built in measured.built]
    narrow = (
        ""
        if len(points) == 1
        else " All of them were judged on the same images until one was within the allowed loss, so the interval of that one is a little too narrow."
    )
    return (
        Table(
            title="Points that were built",
            head=("Precision", "Dropped", "Speed-up", "Before finetuning", "Released form", "Blocks"),
            rows=tuple(
                (
                    str(point.precision),
                    plural(len(point.dropped), "block"),
                    times(point.speedup),
                    points_lost(point.loss),
                    points_lost(built.loss),
                    listed(point.dropped),
                )
                for point, built in zip(points, measured.built, strict=True)
            ),
            left=(0, 1, 5),
            note=f"{_lost(measured)}: before finetuning on the images above, of the released form on the held-out ones.{narrow}",
        ),
    )


def _alone(measured: Levers, max_drop: float | None) -> tuple[str, ...]:
    """What each lever gives within the allowed loss."""
    within = "" if max_drop is None else f" within {count_of_points(max_drop)}"
    found = alone([point for point in measured.points if not is_original(point)], max_drop)
    return tuple(
        f"{kind.capitalize()}{within}, before finetuning: nothing."
        if point is None
        else f"{kind.capitalize()}{within}, before finetuning: {times(point.speedup)}, {lost_or_gained(point.loss)}."
        for kind, point in found.items()
    )
