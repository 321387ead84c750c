"""Both programs as functions of their arguments; they give the exit code, or raise SystemExit with it."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

from practise_backends import cli as measure
from practise_deploy import cli as deploy

DEPLOY, MEASURE = "practise-deploy", "practise-measure"


def practise_deploy(arguments: list[str]) -> None:
    """`practise-deploy` reads sys.argv itself."""
    sys.argv = [DEPLOY, *arguments]
    deploy.main()


PROGRAMS: dict[str, Callable[[list[str]], Any]] = {DEPLOY: practise_deploy, MEASURE: measure.main}
