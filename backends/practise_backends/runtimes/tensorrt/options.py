"""How TensorRT is to build and run: the options of the backends `trt` and `trt-rtx`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from practise_backends.errors import CompileError
from practise_backends.terms import TensorSpec

Shape = tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """The shapes that an input of dynamic shape will have: the least, the one to be fast at, the largest."""

    least: Shape
    best: Shape
    most: Shape


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorRtOptions:
    """What may be asked of the builder and the runtime.

    target_archs: build ahead for these compute capabilities (`sm86`) instead of the GPU at hand.
    max_batch: the largest batch of a network whose batch is dynamic. profiles: of inputs with further dynamic
    dimensions, by the input's name. timing_cache: a folder, None for none. cuda: pycuda, torch or cuda-python;
    None takes the first that is installed. tf32: whether float32 may be multiplied in TF32.
    """

    target_archs: tuple[str, ...] = ()
    optimisation_level: int | None = None
    workspace_mib: int | None = None
    max_batch: int = 8
    profiles: Mapping[str, Profile] = field(default_factory=dict)
    timing_cache: Path | None = None
    cuda: str | None = None
    tf32: bool = True

    def for_shapes(self, shapes: Mapping[str, Shape]) -> TensorRtOptions:
        """The same, for inputs that have these shapes and no other."""
        profiles = {name: Profile(least=shape, best=shape, most=shape) for name, shape in shapes.items()}
        return replace(self, profiles={**self.profiles, **profiles})


def profiles_for(
    inputs: Sequence[TensorSpec], batch: int, options: TensorRtOptions, label: str
) -> dict[str, Profile]:
    """The profile of every input with a dynamic dimension.

    Raises: CompileError where one has dynamic dimensions besides the batch and no profile, where a profile is for
    no input, or where its shapes do not fit.
    """
    names = [spec.name for spec in inputs]
    for name in options.profiles:
        if name not in names:
            raise CompileError(
                f"{label} has no input '{name}' for which a profile is given",
                remedy=f"its inputs are {names}",
            )
    dynamic = [spec for spec in inputs if -1 in spec.shape]
    return {spec.name: _profile(spec, batch, options, label) for spec in dynamic}


def _profile(spec: TensorSpec, batch: int, options: TensorRtOptions, label: str) -> Profile:
    if (profile := options.profiles.get(spec.name)) is not None:
        return _checked(spec, profile, label)
    if -1 in spec.shape[1:]:
        shown = "x".join("?" if dim < 0 else str(dim) for dim in spec.shape)
        raise CompileError(
            f"{label}: input '{spec.name}' has dynamic dimensions besides the batch: {shown}",
            remedy=f"export with fixed ones, or give --shape {spec.name}=1x3x224x224 (in Python a range: "
            f"TensorRtOptions(profiles={{'{spec.name}': Profile(...)}}))",
        )
    rest = spec.shape[1:]
    return Profile(least=(1, *rest), best=(batch, *rest), most=(max(batch, options.max_batch), *rest))


def _checked(spec: TensorSpec, profile: Profile, label: str) -> Profile:
    shapes = (profile.least, profile.best, profile.most)
    fits = all(
        len(shape) == len(spec.shape)
        and all(dim in (-1, want) for dim, want in zip(spec.shape, shape, strict=True))
        for shape in shapes
    )
    if not fits:
        raise CompileError(
            f"{label}: a profile of input '{spec.name}' does not fit its shape {spec.shape}",
            remedy="name as many dimensions, and change only those that are dynamic (-1)",
        )
    if not all(low <= mid <= high for low, mid, high in zip(*shapes, strict=True)):
        raise CompileError(
            f"{label}: the profile of input '{spec.name}' does not rise: {profile.least}, {profile.best}, {profile.most}",
            remedy="write the least shape, the one to be fast at and the largest, in this order",
        )
    return profile
