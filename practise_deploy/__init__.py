"""practise-deploy: a pretrained network made faster on its device from a handful of images.

    import practise_deploy as pd

    release = pd.build(network, images, reduce=22)

docs/python.md lists what is here. Torch is imported when one of the functions is first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from practise_backends.errors import BackendError, EnvironmentProblem, Refusal
    from practise_deploy.api.calls import build, compare, frontier, inspect, measure_latency, plan
    from practise_deploy.api.results import Comparison, Frontier, Inspection, LatencyTable, Plan, Release
    from practise_deploy.errors import InputError, NoDroppableBlock, PromiseBroken, TargetOutOfReach, VerificationFailed

__version__ = "0.1.0"

__all__ = [
    "BackendError",
    "Comparison",
    "EnvironmentProblem",
    "Frontier",
    "InputError",
    "Inspection",
    "LatencyTable",
    "NoDroppableBlock",
    "Plan",
    "PromiseBroken",
    "Refusal",
    "Release",
    "TargetOutOfReach",
    "VerificationFailed",
    "__version__",
    "build",
    "compare",
    "frontier",
    "inspect",
    "measure_latency",
    "plan",
]

_API = "practise_deploy.api"
_PLACES = {
    "practise_backends.errors": ("BackendError", "EnvironmentProblem", "Refusal"),
    f"{_API}.calls": ("build", "compare", "frontier", "inspect", "measure_latency", "plan"),
    f"{_API}.results": ("Comparison", "Frontier", "Inspection", "LatencyTable", "Plan", "Release"),
    "practise_deploy.errors": (
        "InputError",
        "NoDroppableBlock",
        "PromiseBroken",
        "TargetOutOfReach",
        "VerificationFailed",
    ),
}


def __getattr__(name: str) -> Any:
    place = next((place for place, names in _PLACES.items() if name in names), None)
    if place is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    if place.startswith(_API):
        import_module("practise_deploy.environment").set_library_defaults()
    globals()[name] = value = getattr(import_module(place), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
