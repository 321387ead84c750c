"""What surrounds the stages of a run: its settings are kept in its folder to resume from, and its notes are told."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager

from practise_backends.errors import Refusal
from practise_deploy.pipeline.build import Build
from practise_deploy.run import Run
from practise_deploy.settings import SETTINGS_FILE, Settings


@contextmanager
def recording(run: Run, settings: Settings) -> Iterator[None]:
    """Hold the run folder, with these settings in it; the previous ones are restored if these are refused."""
    with run.locked(), _kept_settings(run, settings):
        yield


@contextmanager
def _kept_settings(run: Run, settings: Settings) -> Iterator[None]:
    file = run.folder / SETTINGS_FILE
    before = file.read_text(encoding="utf-8") if file.is_file() else None
    run.write(SETTINGS_FILE, json.dumps({"schema": 1, **settings.model_dump(mode="json")}, indent=1))
    try:
        yield
    except Refusal:
        if before is not None:
            run.write(SETTINGS_FILE, before)
        raise


def notes_of(build: Build) -> tuple[str, ...]:
    """Notes on the images and on the finetuned network, as far as there are any yet."""
    images = build.context.images.summary.notes if "images" in vars(build.context) else ()
    return (*images, *(build.finetuned.notes if "finetuned" in vars(build) else ()))
