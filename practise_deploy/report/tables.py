"""The tables of a release, which the page, the Markdown and the console print."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from practise_backends.results.formatting import ABSENT, count, interval, listed, missing, number, quantity
from practise_backends.results.tables import Table, saved
from practise_backends.terms import LatencyTable
from practise_deploy.outcome import Accuracy, DeployedModel, OutputDiff, Verification
from practise_deploy.planning.measures import accuracy_title, agreement_title, loss_title
from practise_deploy.report.formatting import points_lost
from practise_deploy.terms import OF_CLASSES, Block, Plan, Recoverability, RefitChoice, Student, TaskKind

ELSEWHERE = "the device of the table is not available here"
_SETS = (
    "of the block alone; sets are chosen with the interactions of their errors. In resamples: the share "
    "of resampled choices that drop the block; the fits are not repeated, so the true stability is lower."
)


def inspected(blocks: Sequence[Block]) -> Table:
    """The network's blocks, and which are droppable."""
    return Table(
        title="Blocks",
        head=("Block", "Kind", "Output shape", "Parameters", "MACs", "Latency class", "Droppable"),
        rows=tuple(_inspected_row(block) for block in blocks),
        left=(0, 1, 6),
        note="MACs of one image, convolutions and linear layers; blocks of one latency class are alike.",
    )


def choices(plan: Plan, recoverability: Sequence[Recoverability], latency: LatencyTable | None = None) -> Table:
    """Every candidate by ascending score: its saving, its recoverability, and whether it is dropped.

    The method has a column if there are several, and the selection frequency if sets were searched.
    """
    savings = {saving.block: saving for saving in latency.savings} if latency else {}
    by_block = {entry.block: entry for entry in recoverability}
    names = _ranked(plan, [*savings, *by_block])
    mixed = len({entry.method for entry in recoverability}) > 1
    errors = ("Recoverability, mse", "Relative, %", "Without recovery, mse")
    savings_head = ("Saving, ms", "Reduction, %") if latency else ()
    sure = ("In resamples, %",) if plan.selection_frequency else ()
    head = ("Block", "Outcome", *savings_head, *errors, "Score", *sure, *(("Method",) if mixed else ()))
    rows = []
    for name in names:
        costs = saved(savings.get(name)) if latency else ()
        score = quantity(plan.scores.get(name), "", absent="not scored")
        *left, method = _judged(by_block.get(name))
        share = (_percent(plan.selection_frequency.get(name)),) if sure else ()
        rows.append((name, _outcome(name, plan), *costs, *left, score, *share, *((method,) if mixed else ())))
    return Table(
        title="Candidates, by error per millisecond saved",
        head=head,
        rows=tuple(rows),
        left=(0, 1, *((len(head) - 1,) if mixed else ())),
        strong=tuple(index for index, name in enumerate(names) if name in plan.dropped),
        note="Recoverability is the error that remains after recovery; lower is better. "
        f"Score is recoverability per millisecond saved, at the lower bound of the saving: {_SETS if sure else 'the lowest goes first.'}",
    )


_MARGIN = (
    "A measured set meets the target if the lower bound of its reduction minus half its interval does, "
    "because another measurement may come out lower."
)


def considered(plan: Plan) -> Table:
    """The sets that the search considered: error, loss, saving, and why each was not chosen."""
    rows = tuple(
        (
            listed(candidate.dropped),
            number(candidate.predicted_error),
            quantity(candidate.verified_error, "", absent="not verified"),
            points_lost(
                candidate.loss, absent="not verified" if candidate.verified_error is None else "no answers to the task"
            ),
            interval(candidate.predicted_percent, "%"),
            interval(candidate.measured_percent, "%", absent="not measured"),
            candidate.reason or "taken",
        )
        for candidate in plan.considered
    )
    losses = [candidate.loss for candidate in plan.considered if candidate.loss]
    lost = loss_title(of_accuracy=not losses or losses[0].of_accuracy)
    head = (
        "Set",
        "Predicted error",
        "Verified error",
        f"{lost} before finetuning",
        "Predicted reduction",
        "Measured reduction",
        "Outcome",
    )
    return Table(
        title="Sets that were considered",
        head=head,
        rows=rows,
        left=(0, len(head) - 1),
        strong=tuple(index for index, candidate in enumerate(plan.considered) if not candidate.reason),
        note=(
            "Predicted error: from the errors of single blocks and their interactions, relative to a typical "
            "block; it ranks sets. Verified error: of the features over their variance, on validation images, "
            "after the whole network was refitted with one ridge. "
            f"{lost}: of the same networks on the same images. "
        )
        + _MARGIN,
    )


def attempts(plan: Plan) -> Table:
    """The sets of blocks that were measured together."""
    rows = tuple(
        (
            listed(attempt.dropped),
            interval(attempt.predicted_percent, "%"),
            interval(attempt.measured_percent, "%", absent=ELSEWHERE),
            "yes" if attempt.met else "no",
        )
        for attempt in plan.attempts
    )
    head = ("Dropped together", "Predicted reduction", "Measured reduction", "Meets the target")
    return Table(title="Attempts", head=head, rows=rows, left=(0, 3), note=_MARGIN)


def students(stages: Mapping[str, Student]) -> Table:
    """How each stage recovered the teacher's features."""
    rows = tuple(
        (
            title,
            student.method,
            number(student.mse_before),
            number(student.mse),
            student.judged_on or ABSENT,
            f"{student.steps:,}",
            number(student.seconds),
            "; ".join(student.notes) or ABSENT,
        )
        for title, student in stages.items()
    )
    head = ("Stage", "Method", "mse before", "mse after", "Judged on", "Steps", "Seconds", "Notes")
    note = "Mean squared error of the pre-pooling features."
    return Table(title="Recovery of the features", head=head, rows=rows, left=(0, 1, 4, 7), note=note)


def links(verification: Verification) -> Table:
    """The comparisons along the chain from the teacher to the engine."""
    kind = TaskKind.CLASSIFICATION if verification.loss is None else verification.loss.kind
    head = ("From", "To", "Max abs", "RMS", "Lowest cosine", agreement_title(kind), "Images")
    return Table(
        title="Outputs compared",
        head=head,
        rows=tuple(_link_row(link) for link in verification.links),
        left=(0, 1),
        note="Max abs and RMS are of the outputs' difference, on held-out images; brackets: the interval.",
    )


def refit_points(student: Student) -> Table | None:
    """How the closed form refitted every point behind the cuts; None if there is none."""
    rows = tuple(
        (
            choice.point,
            choice.method,
            quantity(choice.errors.get("plain"), "", absent="not asked"),
            quantity(choice.errors.get(choice.method), "", absent="not asked"),
            _competition(choice) if choice.errors else missing("one for all points"),
        )
        for choice in student.choices
    )
    if not rows:
        return None
    return Table(
        title="The closed-form refit, point by point",
        head=("Stream value", "Solved by", "Error if left alone", "Error", "Solvers compared"),
        rows=rows,
        left=(0, 1),
        note=(
            "Error of the features before pooling over their variance, on images not used for the solution, with "
            "all later points unchanged. A solver that is significantly worse than the best on the first images "
            "is eliminated."
        ),
    )


def accuracies(verification: Verification) -> Table:
    """Accuracy of each runner of the network, by labels."""
    kind = TaskKind.CLASSIFICATION if verification.loss is None else verification.loss.kind
    wholly = kind in OF_CLASSES
    rows = tuple(
        (
            name,
            interval(accuracy.percent, "%"),
            *((f"{accuracy.correct:,}",) if accuracy.correct is not None else ()),
            f"{accuracy.images:,}",
        )
        for name, accuracy in verification.accuracy.items()
    )
    head = ("Network", accuracy_title(kind), *(("Correct",) if wholly else ()), "Images")
    return Table(
        title="Accuracy",
        head=head,
        rows=rows,
        note="Brackets hold the Wilson interval." if wholly else "By the labels.",
    )


def other_layers(compiled: DeployedModel) -> Table | None:
    """The arithmetic layers that compute in another precision; None if there are none."""
    if not compiled.others:
        return None
    rows = tuple((name or "unnamed", precision) for name, precision in compiled.others.items())
    return Table(title=f"Layers not in {compiled.precision}", head=("Layer", "Computes in"), rows=rows, left=(0, 1))


def accuracy_change(verification: Verification) -> tuple[Accuracy, Accuracy] | None:
    """The accuracies of the teacher and of the last runner; None without labels."""
    measured = list(verification.accuracy.values())
    return (measured[0], measured[-1]) if len(measured) > 1 else None


def teacher_link(verification: Verification) -> OutputDiff | None:
    """The comparison of the teacher with the last runner, or else the first comparison."""
    if not verification.links:
        return None
    first, last = verification.links[0], verification.links[-1]
    end_to_end = [link for link in verification.links if (link.before, link.after) == (first.before, last.after)]
    return (end_to_end or [first])[0]


def _competition(choice: RefitChoice) -> str:
    images = max(choice.images.values())
    return f"{len(choice.errors)}, {sum(used == images for used in choice.images.values())} to the end"


def _percent(share: float | None) -> str:
    return quantity(None if share is None else 100 * share, "", absent="no candidate")


def _inspected_row(block: Block) -> tuple[str, ...]:
    shape = " × ".join(str(length) for length in block.shape)
    can_go = "yes" if block.droppable else f"no: {block.reason or 'no reason given'}"
    counts = (count(block.parameters), count(block.macs), str(block.latency_class))
    return (block.name, block.kind, shape, *counts, can_go)


def _ranked(plan: Plan, names: Sequence[str]) -> list[str]:
    """All blocks once: scored ones by score, then the others in order."""
    kept = [block.block for block in plan.kept]
    ordered = list(dict.fromkeys([*names, *plan.dropped, *kept, *plan.scores]))
    return sorted(ordered, key=lambda name: plan.scores.get(name, float("inf")))


def _judged(recoverability: Recoverability | None) -> tuple[str, str, str, str]:
    if recoverability is None:
        return missing("not judged"), ABSENT, ABSENT, ABSENT
    return (
        interval(recoverability.mse),
        number(100 * recoverability.relative),
        number(recoverability.mse_dropped),
        recoverability.method,
    )


def _outcome(name: str, plan: Plan) -> str:
    if name in plan.dropped:
        return "dropped"
    reasons = [kept.reason for kept in plan.kept if kept.block == name]
    return f"kept: {reasons[0]}" if reasons else "kept"


def _link_row(link: OutputDiff) -> tuple[str, ...]:
    agreement = interval(link.agreement_percent, "%", absent="no answers to the task")
    differences = (number(link.max_abs), number(link.rms), _cosine(link.cosine))
    return (link.before, link.after, *differences, agreement, f"{link.images:,}")


def _cosine(value: float) -> str:
    """A cosine with enough digits near 1, never rounded up to 1."""
    return number(value, 4) if not 0.999 <= value <= 1 else f"{math.floor(value * 1e7) / 1e7:.7f}"
