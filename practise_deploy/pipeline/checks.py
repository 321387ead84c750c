"""What is refused before anything is measured, and before anything is finetuned."""

from __future__ import annotations

import torch

from practise_backends.errors import EnvironmentProblem
from practise_deploy.compute import pick_device
from practise_deploy.deployment.verify import torch_runner
from practise_deploy.errors import InputError
from practise_deploy.images.sanity import check_judgeable
from practise_deploy.network.onnx_import.comparison import check_translation
from practise_deploy.pipeline.context import BuildContext
from practise_deploy.planning.choose import out_of_reach
from practise_deploy.planning.within_drop import costs_too_much
from practise_deploy.settings import Goal
from practise_deploy.tasks.answers import answers_of
from practise_deploy.tasks.judging import shares_of
from practise_deploy.terms import Plan, TaskKind, WithinDrop

_LOOKED_AT = 8


def check_inputs(context: BuildContext) -> None:
    """Load the network and the images, and refuse what cannot be planned.

    Raises: InputError, EnvironmentProblem.
    """
    settings = context.settings
    if not context.network.trainable:
        raise InputError(
            f"{settings.network} is a torch.export file: it can be inspected, measured and exported, not replanned",
            remedy="give the network as torchvision:NAME, timm:NAME or FILE.py:FUNCTION",
        )
    pick_device(settings.compute)
    _ = context.candidates, context.images  # computed, or refused, here and now
    _check_on_images(context)
    if isinstance(settings.max_drop, float):
        _check_judgeable(context, settings.max_drop)


def check_levers(context: BuildContext) -> None:
    """Refuse a recipe that has no sets of blocks to measure in several precisions.

    Raises: InputError.
    """
    if context.is_paper:
        raise InputError(
            "--recipe paper ranks blocks and looks for no sets of them, so there is nothing to measure together",
            remedy="leave --recipe paper out",
        )


def _check_on_images(context: BuildContext) -> None:
    """Refuse an ONNX file that is something else in torch, and a metric of the user's that does not work."""
    network, images = context.network, context.images.fit.subsample(_LOOKED_AT, context.settings.seed)
    samples, task = images.batch(slice(None)), network.summary.task
    if network.translation is not None:
        with context.screen("Holding the network in torch against the file in ONNX Runtime"):
            check_translation(network.translation, samples)
    if task.kind is TaskKind.CUSTOM:
        outputs = [torch.from_numpy(output) for output in torch_runner(network.traced)(samples)]
        answers = answers_of(task, outputs)
        assert answers is not None
        shares_of(task, answers.numpy(), answers.numpy())


def _check_judgeable(context: BuildContext, max_drop: float) -> None:
    """Refuse a demand on the accuracy that could only be missed."""
    task = context.network.summary.task
    if task.has_accuracy:
        with context.screen("Holding the original against the labels") as progress:
            check_judgeable(context.images.held_out, context.network.traced, max_drop, progress, task)


def check_reached(plan: Plan, within: WithinDrop | None, disturbed: EnvironmentProblem | None, goal: Goal) -> None:
    """Refuse a plan that misses the target, or that costs more accuracy than is allowed.

    within: what can be had instead, where it costs too much. disturbed: why noise, and not the network, misses the target.
    Raises: TargetOutOfReach, EnvironmentProblem.
    """
    if within is not None and plan.within_drop is None:
        raise costs_too_much(plan, within, by_default=goal.max_drop is None)
    if plan.reached and plan.dropped:
        return
    if disturbed is not None:
        raise disturbed
    error = out_of_reach(plan)
    if goal.min_speedup and goal.asks_for_nothing_else:
        error.remedy += f", or for less than --min-speedup {goal.min_speedup:g}, which set this target"
    raise error
