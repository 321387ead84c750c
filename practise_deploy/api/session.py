"""One call of the API: settings from keywords, objects read once, and the process's random generators left as they were."""

from __future__ import annotations

import os
import random
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from practise_backends.interfaces import Backend
from practise_deploy.api.images import list_object, place_of
from practise_deploy.api.words import call_of, in_python, python_errors
from practise_deploy.deployment.target import backend_of
from practise_deploy.environment import unsaid_notes
from practise_deploy.errors import InputError
from practise_deploy.images.packed import samples_of
from practise_deploy.images.reading import Listing
from practise_deploy.images.tiny_set import image_size_of
from practise_deploy.network.loading.load import network_of
from practise_deploy.network.loading.wrappers import name_of
from practise_deploy.pipeline.auto import AutoBuild
from practise_deploy.pipeline.context import BuildContext
from practise_deploy.pipeline.session import notes_of, recording
from practise_deploy.progress import ProgressDisplay
from practise_deploy.run import Run
from practise_deploy.settings import OF_PYTHON, Settings, read_settings

Keywords = dict[str, Any]
Preflight = Callable[[Settings, Callable[[str], None]], Backend | None]


def this_device(settings: Settings, tell: Callable[[str], None]) -> Backend | None:
    """The backend with its device. Raises: EnvironmentProblem where one of them is missing."""
    return backend_of(settings)


def no_device(settings: Settings, tell: Callable[[str], None]) -> Backend | None:
    """None, where nothing is measured."""
    return None


_ONE_AT_A_TIME = threading.RLock()
"""Measurements beside each other disturb each other, and torch's settings and generators are the process's."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Session:
    """A build, and where its notes and progress are shown."""

    build: AutoBuild
    display: ProgressDisplay

    @contextmanager
    def recorded(self) -> Iterator[None]:
        """Write into the run folder. What is computed in here may be kept from an earlier call."""
        context = self.build.context
        self.tell(context.network.summary.notes)
        with recording(context.run, context.settings):
            yield
        self.tell(notes_of(self.build))

    def tell(self, notes: Sequence[str]) -> None:
        """Show notes on what was computed."""
        for note in notes:
            self.display.note(f"note: {in_python(note)}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What a call was given. images: None where it takes none. keywords: settings, by their names."""

    network: Any
    images: Any = None
    keywords: Keywords
    progress: bool

    @property
    def settings(self) -> Settings:
        """The settings, checked. Raises: InputError."""
        if "data" in self.keywords:
            raise InputError(
                f"data={type(self.keywords['data']).__name__} is what the parameter images is for",
                remedy="give the images as the second argument",
            )
        named = {"network": network_name(self.network), "data": place_of(self.images, "images")}
        return read_settings({**self.keywords, **named, "eval": place_of(self.keywords.get("eval"), "eval")})

    @property
    def display(self) -> ProgressDisplay:
        """Where progress is shown."""
        return ProgressDisplay(quiet=not self.progress)

    def listings(self, settings: Settings, display: ProgressDisplay) -> dict[Path, Listing]:
        """The images that are objects, read once, by their places in the settings."""
        given = {"images": (settings.data, self.images), "eval": (settings.eval, self.keywords.get("eval"))}
        listings = {}
        for parameter, (place, images) in given.items():
            if place is not None and str(place).startswith(OF_PYTHON):
                with display.progress(f"Reading {in_python(str(place))}") as progress:
                    listings[place] = list_object(images, parameter, settings.seed, progress)
        return listings


def network_name(network: object) -> str:
    """What the settings have for a network: its name or path, or a name that says which object it was.

    Raises: InputError for what is no network.
    """
    if isinstance(network, (str, os.PathLike)):
        return str(network)
    if isinstance(network, nn.Module):
        return f"{OF_PYTHON}{name_of(network)}"
    raise InputError(
        f"the network is an object of type {type(network).__name__}, not a torch.nn.Module, a path or a name",
        remedy="call the function that makes it, or write what torch.export gave with torch.export.save and give the path of the .pt2",
    )


@contextmanager
def process_wide(seed: int) -> Iterator[None]:
    """Hold what belongs to the whole process: one call at a time, errors in Python's words, and random generators that start from this
    seed, so that the same data set gives the same images again; they are restored afterwards.
    """
    with _ONE_AT_A_TIME, python_errors(), torch.random.fork_rng(devices=range(torch.cuda.device_count())):
        states = random.getstate(), np.random.get_state()
        torch.manual_seed(seed)
        np.random.seed(seed)
        random.seed(seed)
        try:
            yield
        finally:
            random.setstate(states[0])
            np.random.set_state(states[1])


@contextmanager
def session(request: Request, preflight: Preflight = this_device, *, structure_only: bool = False) -> Iterator[Session]:
    """Everything that a call computes is computed in here.

    preflight: finds the backend before anything is loaded. structure_only: as in `BuildContext`. Raises: Refusal.
    """
    with python_errors():
        settings, display = request.settings, request.display
    with process_wide(settings.seed):
        for note in unsaid_notes():
            display.note(f"note: {note}")
        backend = preflight(settings, display.note)
        listings = request.listings(settings, display)
        loaded = None
        if isinstance(request.network, nn.Module):
            with display.progress("Tracing the network"):
                size, samples = image_size_of(settings, listings), samples_of(settings, listings)
                loaded = network_of(request.network, settings, size, samples)
        is_command = loaded is None and not listings
        context = BuildContext(
            settings=settings,
            run=Run(settings.run_folder, screen=display.progress),
            command=settings.command("build") if is_command else call_of(settings),
            structure_only=structure_only,
            loaded_backend=backend,
            loaded_network=loaded,
            listings=listings,
        )
        yield Session(build=AutoBuild(context), display=display)
