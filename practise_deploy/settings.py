"""A recipe in: the one list of settings. A flag, its key in a settings file and its field share one name."""

from __future__ import annotations

import math
import os
import re
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator
from pydantic_core import ErrorDetails

from practise_backends.choices import ClockKind, Precision
from practise_backends.flags import as_text, nearest, option_flags
from practise_backends.parsing import parsed
from practise_deploy.errors import InputError

if TYPE_CHECKING:
    from practise_deploy.terms import Budget

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

EMBEDDED = "digits"
SETTINGS_FILE = "settings.json"
"""Where a run folder keeps its settings."""
OF_PYTHON = "python:"
"""Begins the name of what was given as an object in Python, which no command line can load: python:ResNet, python:images:ndarray."""
Interpolation = Literal["bilinear", "bicubic", "nearest"]
Recipe = Literal["refit", "paper"]
INTERPOLATIONS: tuple[str, ...] = get_args(Interpolation)
MAX_DROP = 2.0
"""Points of top-1 that a build may lose where nobody says otherwise."""


def cores() -> int:
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


_LONGEST = 1 << 20
"""Characters of a settings file."""
TARGETS = ("reduce", "target_ms", "drop")
AUTO = "auto"  # a precision that is chosen together with the blocks


def flag_of(name: str) -> str:
    """A setting as a flag."""
    return "--" + name.replace("_", "-")


class _Part(BaseModel):
    """What parts of the settings have in common."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True)

    seed: int = Field(0, ge=0, lt=2**32, description="seed of every random draw")


class NetworkSource(_Part):
    """Which network, with which weights, and what its input is."""

    panel: ClassVar[str] = "Network"

    network: str = Field(
        EMBEDDED,
        description="FILE.onnx, torchvision:NAME, timm:NAME, FILE.py:FUNCTION, hf:FOLDER, FILE.pt2, efficientnet-lite0, or digits (embedded)",
    )
    weights: Path | None = Field(None, description="state dict (.pt, .pth, .safetensors)")
    input_size: tuple[int, int] | None = Field(
        None, description="input in pixels, one side or HEIGHTxWIDTH, at least 8 (default: the network's own)"
    )
    resize: int | None = Field(None, ge=8, description="shorter side before the centre crop")
    mean: tuple[float, ...] | None = Field(None, description="per-channel mean of pixels in [0, 1]")
    std: tuple[float, ...] | None = Field(None, description="per-channel standard deviation of pixels in [0, 1]")
    sequence_length: int | None = Field(
        None,
        ge=2,
        description="positions of a text, or of what else an ONNX file leaves open (default: that of --data)",
    )
    channel_order: Literal["rgb", "bgr"] | None = Field(
        None, description="order of the colours that the network takes (default: rgb)"
    )
    layout: Literal["nchw", "nhwc"] | None = Field(
        None, description="axes of an ONNX file's input (default: told from its shape)"
    )
    interpolation: Interpolation | None = Field(None, description="how images are resized")
    task: str | None = Field(
        None,
        description="what the network is judged by: classification, binary, multi-label, regression, embedding, segmentation, sequence, "
        "ctc, detection, or FILE.py:FUNCTION, a measure of your own (default: told from its outputs)",
    )
    augment: Literal["crop-flip", "crop", "none"] | None = Field(None, description="augmentation while finetuning")

    @field_validator("input_size", mode="before")
    @classmethod
    def _sides(cls, value: Any) -> Any:
        sides = str(value).lower().split("x") if isinstance(value, (int, str)) else value
        if sides is None:
            return None
        try:
            height, width = (int(side) for side in (sides if len(sides) > 1 else [*sides, *sides]))
        except (TypeError, ValueError):
            raise ValueError("must be a number of pixels, or HEIGHTxWIDTH such as 48x192") from None
        if min(height, width) < 8:
            raise ValueError("must be 8 pixels or more")
        return height, width

    @field_validator("mean", "std", mode="before")
    @classmethod
    def _numbers(cls, value: Any) -> Any:
        return tuple(float(part) for part in value.split(",")) if isinstance(value, str) else value

    @field_validator("task")
    @classmethod
    def _known_task(cls, value: str | None) -> str | None:
        from practise_deploy.terms import TaskKind  # brings numpy, which --help can do without

        kinds = [kind.value for kind in TaskKind if kind is not TaskKind.CUSTOM]
        if value is None or value == "auto":
            return None
        if value not in kinds and not re.fullmatch(r".+\.py:\w+", value):
            near = nearest(value, kinds)
            raise ValueError(
                (f"did you mean {near}? " if near else "") + f"must be {', '.join(kinds)}, or FILE.py:FUNCTION"
            )
        return value

    @field_validator("mean")
    @classmethod
    def _of_shares(cls, value: tuple[float, ...] | None) -> tuple[float, ...] | None:
        if value is not None and not all(0 <= each <= 1 for each in value):
            raise ValueError("means are of pixels in [0, 1]; divide those of bytes by 255")
        return value

    @field_validator("std")
    @classmethod
    def _positive(cls, value: tuple[float, ...] | None) -> tuple[float, ...] | None:
        if value is not None and not all(each > 0 for each in value):
            raise ValueError("every standard deviation must be above 0")
        return value


class ImageSource(_Part):
    """Which images, and what they are for."""

    panel: ClassVar[str] = "Images"

    data: Path | None = Field(
        None, description="the tiny set: a folder, a list file or an .npz; a text file for hf:FOLDER"
    )
    eval: Path | None = Field(None, description="labelled images, used for verification alone")
    classes: Path | None = Field(None, description="class names, one a line, in the order of the network's outputs")
    fit_images: int | None = Field(None, ge=8, description="use at most this many images to fit (default: all)")
    held_out_percent: float = Field(
        25.0, gt=0, lt=100, description="share of --data kept for verification where there is no --eval"
    )
    skip_bad_images: bool = Field(False, description="skip and count unreadable images instead of stopping")


class DeploymentTarget(_Part):
    """Where and how the network will run, and how it is measured there."""

    panel: ClassVar[str] = "Device and measurement"

    backend: str = Field(
        "ort",
        description="where the network will run: ort (ONNX Runtime, CPU), trt (TensorRT), trt-rtx (TensorRT for RTX)",
    )
    precision: Precision | Literal["auto"] = Field(
        Precision.FP32,
        description="precision of the deployed network (ort: fp32, int8; trt and trt-rtx: all three); auto: chosen with the blocks",
    )
    min_precision_share: float = Field(
        90.0,
        ge=0,
        le=100,
        description="gate: fail unless at least this percentage of the arithmetic layers computes in --precision, as read from the engine",
    )
    threads: int = Field(1, ge=1, description="threads of the deployed engine")
    batch: int = Field(1, ge=1, description="images a run of the deployed engine")
    dynamic_batch: bool = Field(False, description="export with a dynamic batch dimension")
    measure_budget_s: float = Field(60.0, gt=0, description="seconds for each latency measurement")
    sessions: int = Field(6, ge=2, description="how often each network is opened for a comparison")
    keep_throttled: bool = Field(
        False, description="keep the rounds in which a quota or heat stopped the processor, where the device lives so"
    )
    clock: ClockKind | None = Field(
        None, description="what is timed (default: on a GPU gpu_compute, else end_to_end; ort: also wall or cpu)"
    )
    cuda_graph: bool = Field(False, description="run through a CUDA graph (trt, trt-rtx)")
    backend_options: dict[str, Any] = Field(default_factory=dict, description="the backend's own options, by name")
    latency_table: Path | None = Field(
        None, description="plan with a latency table that was measured before, maybe on another device"
    )

    @property
    def one_precision(self) -> Precision:
        """The precision. Raises: InputError where it is still to be chosen."""
        if self.precision != AUTO:
            return Precision(self.precision)
        message = "--precision auto is for build and frontier, which choose the precision"
        raise InputError(message, remedy=f"give one of {', '.join(Precision)}")

    @property
    def throughput_points(self) -> tuple[list[int], list[int]]:
        """Batches and numbers of threads at which throughput is measured: the deployment's own and some larger."""
        batches = sorted({self.batch, 1, 8})
        return batches, sorted({self.threads, 1, cores()})


class Goal(_Part):
    """How much faster, and at what loss of accuracy."""

    panel: ClassVar[str] = "Target and gates"

    reduce: float | None = Field(None, description="target: cut latency by this many percent (default 20%)")
    target_ms: float | None = Field(None, gt=0, description="target: latency of one run in ms")
    drop: int | None = Field(None, ge=1, description="target: drop this many blocks")
    min_speedup: float | None = Field(
        None, gt=0, description="gate: at least this speed-up, at the lower bound of its interval"
    )
    max_drop: float | Literal["none"] | None = Field(
        None,
        description="gate: at most this loss, in points of top-1 (default: 2; none waives it); without labels it is estimated; of networks that are no "
        "classifiers in points of what is right by labels, without any in points of agreement with the original",
    )
    best_within_drop: bool = Field(
        False, description="where the target costs more accuracy than --max-drop, save as much latency as it allows"
    )
    frontier: bool = Field(True, description="recover and judge neighbouring sets of blocks too, for the report")

    @field_validator("reduce", mode="before")
    @classmethod
    def _percent(cls, value: Any) -> Any:
        return value.strip().removesuffix("%") if isinstance(value, str) else value

    @field_validator("reduce")
    @classmethod
    def _sensible(cls, value: float | None) -> float | None:
        if value is not None and not 0 < value < 100:
            raise ValueError("must be above 0% and below 100%")
        return value

    @field_validator("max_drop", mode="before")
    @classmethod
    def _points(cls, value: Any) -> Any:
        if value is None or value == "none":
            return value
        try:
            points = float(value)
        except (TypeError, ValueError):
            points = math.nan
        if not 0 <= points <= 100:
            raise ValueError("must be points from 0 to 100, or none")
        return points

    @model_validator(mode="after")
    def _one_target(self) -> Goal:
        targets = [name for name in TARGETS if getattr(self, name) is not None]
        if len(targets) > 1:
            raise ValueError(f"give one target, not {' and '.join(map(flag_of, targets))}")
        return self

    @model_validator(mode="after")
    def _a_demand_to_stay_within(self) -> Goal:
        if self.best_within_drop and self.max_drop == "none":
            raise ValueError("--best-within-drop needs a demand to stay within; give --max-drop as points")
        return self

    @property
    def asks_for_nothing_else(self) -> bool:
        """Whether no target was given, so that --min-speedup or the default sets it."""
        return not (self.reduce or self.target_ms or self.drop)

    @property
    def budget(self) -> Budget:
        """The target that was asked; else what --min-speedup needs; else 20%."""
        from practise_deploy.terms import Budget  # brings numpy, which --help can do without

        needed = 100 * (1 - 1 / self.min_speedup) if self.min_speedup and self.min_speedup > 1 else 20.0
        asked = needed if self.asks_for_nothing_else else self.reduce
        return Budget(reduce_percent=asked, target_ms=self.target_ms, drop=self.drop)

    @property
    def most_points_lost(self) -> float | None:
        """The loss of accuracy that is allowed, in points; None where the demand was waived."""
        if self.max_drop == "none":
            return None
        return MAX_DROP if self.max_drop is None else self.max_drop


class RecoveryRecipe(_Part):
    """How the network is recovered, and where that is computed."""

    panel: ClassVar[str] = "Recovery"

    recipe: Recipe = Field("refit", description="refit: closed form, then mimicking; paper: PRACTISE as published")
    score_iterations: int = Field(1000, ge=1, description="SGD steps for each block's adaptors (recipe paper)")
    iterations: int | None = Field(
        None,
        ge=0,
        description="finetuning steps (default: 2000 in recipe paper; in recipe refit 300, or 100 for images over 64 pixels, and a fifth of them where that lowers no error)",
    )
    batch_size: int = Field(64, ge=2, description="images a finetuning step")
    learning_rate: float | None = Field(
        None, gt=0, description="finetuning rate (default 0.02 in recipe paper, 0.002 in recipe refit)"
    )
    compute: Literal["auto", "cpu", "cuda"] = Field("auto", description="where torch computes (planning, finetuning)")
    compute_precision: Literal["fp32", "bf16"] | None = Field(
        None,
        description="precision of finetuning steps (default: bf16 for texts, and for images over 64 pixels, where the processor has it)",
    )


class Settings(RecoveryRecipe, Goal, DeploymentTarget, ImageSource, NetworkSource):
    """All that a build depends on besides the contents of the files it names. A stage takes the part that it reads."""

    out: Path | None = Field(None, description="run folder (default: runs/NETWORK)")

    @model_validator(mode="after")
    def _nothing_against_auto(self) -> Settings:
        against = [flag_of(name) for name in (*TARGETS, "latency_table") if getattr(self, name) is not None]
        against += ["--best-within-drop"] * self.best_within_drop + ["--recipe paper"] * (self.recipe == "paper")
        if self.precision == AUTO and against:
            raise ValueError(
                f"{against[0]} does not go with --precision auto, which goes by --max-drop or --min-speedup"
            )
        if self.precision == AUTO and self.max_drop == "none" and self.min_speedup is None:
            raise ValueError("--precision auto needs --max-drop as points, or --min-speedup, to know when to stop")
        return self

    @property
    def run_folder(self) -> Path:
        """Where the results go."""
        if self.out is not None:
            return self.out
        name = self.network.removeprefix(OF_PYTHON).replace(":", "-").replace("/", "-").strip(".-")
        return Path("runs") / name

    def command(self, verb: str) -> str:
        """The command line that these settings are, without what is a default anyway."""
        default = {name: field.default for name, field in Settings.model_fields.items()}
        words = ["practise-deploy", verb, self.network]
        for name, value in self:
            if name in ("network", "backend_options") or value == default[name] or value is None:
                continue
            flag = flag_of(name)
            if isinstance(value, bool):
                words.append(flag if value else f"--no-{flag[2:]}")
            else:
                separator = "x" if name == "input_size" else ","
                words += [flag, separator.join(map(str, value)) if isinstance(value, tuple) else f"{value}"]
        for option in option_flags():
            if option.name in self.backend_options:
                value = [] if option.parse is None else [as_text(self.backend_options[option.name])]
                words += [option.written, *value]
        return shlex.join(words)


def panel_of(name: str) -> str | None:
    """The title under which --help lists a setting; None of one that belongs to no part."""
    parts = (NetworkSource, ImageSource, DeploymentTarget, Goal, RecoveryRecipe)
    return next((part.panel for part in parts if name in part.model_fields and name not in _Part.model_fields), None)


def read_settings(given: dict[str, Any], *, file: Path | None = None, base: dict[str, Any] | None = None) -> Settings:
    """Settings from a run's earlier settings, a TOML or JSON file and the command line; the later ones win."""
    merged: dict[str, Any] = {}
    for layer in (base or {}, _read_file(file) if file else {}, given):
        if any(layer.get(target) is not None for target in TARGETS):
            merged |= dict.fromkeys(TARGETS)  # a new target replaces the earlier one, whatever its kind
        own, options = _apart(layer)
        merged |= {**own, "backend_options": {**merged.get("backend_options", {}), **options}}
    try:
        return Settings(**merged)
    except ValidationError as error:
        raise InputError(_explain(error), remedy="--help lists the settings and their bounds") from None


def _apart(layer: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The settings of ours, and the options of backends, which a settings file holds beside them.

    Raises: InputError.
    """
    own = {name: value for name, value in layer.items() if name in Settings.model_fields}
    others = {name: value for name, value in layer.items() if name not in own and value is not None}
    options = dict(own.pop("backend_options", {}))
    flags = {flag.name: flag for flag in option_flags()}
    own |= {name: value for name, value in others.items() if name not in flags}  # refused as unknown
    options |= {name: value for name, value in others.items() if name in flags}
    for name in options.keys() & flags.keys():
        try:
            options[name] = flags[name].read(options[name])
        except ValueError as error:
            raise InputError(f"{flags[name].written}: {error}", remedy="--help lists the options of backends") from None
    return own, options


def _read_file(path: Path) -> dict[str, Any]:
    try:
        with path.open(encoding="utf-8") as file:  # a shell's <(...) is welcome, /dev/zero never ends
            if len(text := file.read(_LONGEST + 1)) > _LONGEST:
                raise ValueError(f"it is longer than {_LONGEST:,} characters")
        document = parsed(text) if path.suffix == ".json" else tomllib.loads(text)
    except OSError as error:
        raise InputError(
            f"cannot read the settings file {path}: {error.strerror}",
            remedy="give the path of a TOML or JSON file with --config",
        ) from None
    except (ValueError, RecursionError) as error:
        raise InputError(
            f"the settings file {path} is not valid: {error}",
            remedy="write settings as TOML, or as JSON where it ends in .json; --help lists them",
        ) from None
    if not isinstance(document, dict):
        raise InputError(
            f"the settings file {path} must hold a table of settings, not {type(document).__name__}",
            remedy='write {"threads": 2}, for example; --help lists the settings',
        )
    return {key.replace("-", "_"): value for key, value in document.items() if key != "schema"}


_RENAMED = {"for": "target_archs"}


def _explain(error: ValidationError) -> str:
    lines = []
    for problem in error.errors():
        key = ".".join(str(part) for part in problem["loc"])
        if problem["type"] == "extra_forbidden":
            names = [*Settings.model_fields, *(flag.name for flag in option_flags())]
            near = _RENAMED.get(key) or nearest(key, names)
            lines.append(f"unknown setting '{key}'" + (f"; did you mean '{near}'?" if near else ""))
        else:
            lines.append(_refused(problem))
    return "; ".join(lines)


def _refused(problem: ErrorDetails) -> str:
    """One setting's problem, by its flag, in the flag's own terms."""
    key = ".".join(str(part) for part in problem["loc"])
    reason = problem["msg"].removeprefix("Value error, ").replace("Input should be", "must be")
    return f"{flag_of(key)} {problem['input']}: {reason}" if key else reason
