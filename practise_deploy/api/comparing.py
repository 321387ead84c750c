"""Comparing from Python: files as they are, finished builds by their new network, modules as ONNX."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from practise_backends.flags import Flag, nearest, option_flags
from practise_backends.options import CompareOptions, flags_of
from practise_deploy.api.results import Release
from practise_deploy.api.session import Keywords, network_name
from practise_deploy.api.words import described
from practise_deploy.deployment.export import write_onnx
from practise_deploy.deployment.target import reads_symmetric_int8
from practise_deploy.errors import InputError
from practise_deploy.network.graph.onnx_graph import to_onnx
from practise_deploy.network.loading.load import network_of
from practise_deploy.pipeline.context import ExportForm
from practise_deploy.pipeline.results import network_file
from practise_deploy.pipeline.stages import MODEL
from practise_deploy.progress import ProgressDisplay
from practise_deploy.settings import NetworkSource, Settings, read_settings

_OF_A_MODULE = tuple(name for name in NetworkSource.model_fields if name not in ("network", "augment", "seed"))
_FLAGS = {flag.name: flag for flag in flags_of(CompareOptions) if flag.name != "json"}
_IN_PYTHON = {
    "footprint": "measure cold start and memory too, in fresh processes",
    "shape": "of inputs whose dimensions are dynamic: {'images': (1, 3, 224, 224)}",
    "min_speedup": "`kept` where the lower bound of the speed-up's interval is at least this (without it: above 1)",
}
OF_COMPARISON = {name: described(_IN_PYTHON.get(name, flag.help), flag.default) for name, flag in _FLAGS.items()} | {
    name: f"of modules: {Settings.model_fields[name].description}" for name in _OF_A_MODULE
}
"""The settings of a comparison, and what they say."""


def options_of(keywords: Keywords) -> CompareOptions:
    """The options of a comparison, within the bounds that they have on a command line.

    Raises: InputError.
    """
    backends_own = {flag.name: flag for flag in option_flags()}
    known = (*OF_COMPARISON, *backends_own)
    for name in keywords:
        if name not in known:
            near = nearest(name, known)
            raise InputError(
                f"unknown setting '{name}'" + (f"; did you mean '{near}'?" if near else ""),
                remedy="help(practise_deploy.compare) lists the settings",
            )
    values = {name: _read(_FLAGS[name], value) for name, value in keywords.items() if name in _FLAGS}
    options = {name: _read(backends_own[name], value) for name, value in keywords.items() if name in backends_own}
    return CompareOptions(**values, options=options)


def _read(flag: Flag, value: Any) -> Any:
    try:
        if flag.repeated and isinstance(value, Mapping):
            return tuple(flag.read(f"{name}={'x'.join(map(str, shape))}") for name, shape in value.items())
        return flag.read(value)
    except ValueError as error:
        raise InputError(f"{flag.name}: {error}", remedy="help(practise_deploy.compare) lists the settings") from None


def check_about_modules(keywords: Keywords, *networks: Any) -> None:
    """Refuse settings of modules where there are only files.

    Raises: InputError.
    """
    given = [name for name in keywords if name in _OF_A_MODULE]
    if given and not any(isinstance(network, nn.Module) for network in networks):
        raise InputError(f"{given[0]} says nothing about files, which are built already", remedy="leave it out")


@dataclass(frozen=True, slots=True, kw_only=True)
class Exporter:
    """Gives the file of whatever is compared. notes: what was exported for it."""

    folder: Path
    settings: Settings
    display: ProgressDisplay
    notes: list[str]

    def file_of(self, network: Any, parameter: str) -> Path:
        """A path as it is, a finished build's new network, a module as ONNX.

        Raises: InputError.
        """
        if isinstance(network, Release):
            return network_file(network.onnx, MODEL)
        if isinstance(network, (str, os.PathLike)):
            return network_file(Path(network), MODEL)
        network_name(network)
        return self._exported(network, parameter)

    def _exported(self, module: nn.Module, parameter: str) -> Path:
        settings = self.settings
        with self.display.progress(f"Exporting {parameter}"):
            network = network_of(module, settings)
            form = ExportForm(
                input_shape=(settings.batch, *network.input_shape[1:]),
                precision=settings.one_precision,
                symmetric_int8=reads_symmetric_int8(settings),
            )
            file = self.folder / f"{parameter}-{network.summary.name}.onnx"
            write_onnx(form.lowered(to_onnx(network.traced, form.input_shape)), file, dynamic_batch=False)
        shape = "x".join(map(str, form.input_shape))
        self.notes.append(f"{parameter}: {network.summary.name} was exported to ONNX for this, for inputs of {shape}")
        self.notes.extend(f"{parameter}: {note}" for note in network.summary.notes)
        return file


def settings_of_modules(keywords: Keywords) -> Settings:
    """The settings by which modules are exported; those of no module say nothing about files.

    Raises: InputError.
    """
    return read_settings({name: value for name, value in keywords.items() if name in Settings.model_fields})
