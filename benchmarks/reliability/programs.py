"""Both programs as functions of their arguments; they give the exit code, or raise SystemExit with it."""

from __future__ import annotations

import contextlib
import importlib
import pkgutil
import sys
from collections.abc import Callable
from typing import Any

import practise_backends
import practise_deploy
from practise_backends import cli as measure
from practise_deploy import cli as deploy

DEPLOY, MEASURE = "practise-deploy", "practise-measure"


def run_deploy(arguments: list[str]) -> None:
    """`practise-deploy` reads sys.argv itself."""
    sys.argv = [DEPLOY, *arguments]
    deploy.main()


def import_all() -> None:
    """Import every module of both packages, so that no fork has to."""
    for package in (practise_backends, practise_deploy):
        for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            if module.name.endswith("__main__"):
                continue
            with contextlib.suppress(ImportError):  # of TensorRT's, where it is not installed
                importlib.import_module(module.name)


PROGRAMS: dict[str, Callable[[list[str]], Any]] = {DEPLOY: run_deploy, MEASURE: measure.main}
