"""What is refused before anything is measured, and before anything is finetuned."""

from __future__ import annotations

from practise_backends.errors import EnvironmentProblem
from practise_deploy.compute import pick_device
from practise_deploy.errors import InputError
from practise_deploy.images.sanity import check_judgeable
from practise_deploy.pipeline.context import BuildContext
from practise_deploy.planning.choose import out_of_reach
from practise_deploy.planning.within_drop import costs_too_much
from practise_deploy.settings import Goal
from practise_deploy.terms import Plan, WithinDrop


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
    if isinstance(settings.max_drop, float):
        _check_judgeable(context, settings.max_drop)


def _check_judgeable(context: BuildContext, max_drop: float) -> None:
    """Refuse a demand on the accuracy that could only be missed."""
    if not context.is_classifier:
        raise InputError(
            f"--max-drop {max_drop:g} cannot be judged: {context.network.summary.name} is no classifier, so no accuracy is known",
            remedy="leave the demand out, and judge the network by your own measure",
        )
    with context.screen("Holding the original against the labels") as progress:
        check_judgeable(context.images.held_out, context.network.traced, max_drop, progress)


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
