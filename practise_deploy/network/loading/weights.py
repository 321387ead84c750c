"""Loading a file's weights into a network: which of its state dicts, under which prefix, and what else it holds."""

from __future__ import annotations

import re
from collections import Counter, OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from practise_backends.errors import lacks_memory
from practise_deploy.errors import InputError
from practise_deploy.network.loading.checkpoints import KeyPath, read_state_dicts

_WRAPPERS = {"module", "_orig_mod"}
_AVERAGED = re.compile(r"(^|[^a-z])(ema|swa|avg|averaged?|shadow|polyak)([^a-z]|$)")
_COUNTER = "num_batches_tracked"


@dataclass(frozen=True, slots=True)
class _Candidate:
    """A state dict of a file with one prefix removed. other_names: the names that do not have the prefix."""

    key_path: KeyPath
    prefix: str
    weights: dict[Any, Any]
    other_names: tuple[str, ...]

    @property
    def averaged(self) -> bool:
        """Whether it is a moving average of weights, by its name or by what torch's AveragedModel counts."""
        name = ".".join((*self.key_path, self.prefix)).lower()
        return bool(_AVERAGED.search(name)) or "n_averaged" in self.other_names

    def __str__(self) -> str:
        where = "".join(f"['{key}']" for key in self.key_path)
        return f"{where} under '{self.prefix}'".strip() if self.prefix else where or "the names without a prefix"


def load_state_dict(module: nn.Module, path: Path) -> tuple[str, ...]:
    """Load a file's weights into a network; returns notes on what was taken and what was left out.

    Of several state dicts that fit, the moving average of the weights is taken.

    Raises: InputError listing what is missing, unexpected, of another shape or no plain numbers; where several fit.
    """
    expected = module.state_dict()
    state_dicts = read_state_dicts(path).items()
    candidates = [c for key_path, weights in state_dicts for c in _candidates(key_path, weights, expected)]
    best = max(candidates, key=lambda candidate: (_matching(candidate, expected), len(candidate.weights)))
    fits: list[_Candidate] = []
    for candidate in candidates:
        fits_unprefixed = any(other.key_path == candidate.key_path and not other.prefix for other in fits)
        if (
            2 * _matching(candidate, expected) >= _matching(best, expected)
            and not fits_unprefixed
            and _load_error(module, candidate, expected, path) is None
        ):
            fits.append(candidate)
    if not fits:
        raise _load_error(module, best, expected, path) or AssertionError(path)
    chosen = _preferred(fits, path)
    module.load_state_dict(chosen.weights, strict=False)  # the last one tried may have been another
    return tuple(f"{path}: {note}" for note in _notes(chosen, fits, candidates, expected))


def _candidates(key_path: KeyPath, state_dict: dict[Any, Any], expected: dict[str, Tensor]) -> Iterator[_Candidate]:
    """A state dict as it is, and without each prefix under which it has at least half of the network's names."""
    yield _Candidate(key_path, "", state_dict, ())
    wrappers = _WRAPPERS - {part for name in expected for part in name.split(".")}
    names = [name for name in state_dict if isinstance(name, str)]
    prefix_counts = Counter(
        name[:start]
        for name in names
        for start in (0, *(dot.end() for dot in re.finditer(r"\.", name)))
        if _without_wrappers(name[start:], wrappers) in expected
    )
    for prefix in (prefix for prefix, count in prefix_counts.items() if 2 * count >= len(expected)):
        prefixed = [name for name in names if name.startswith(prefix)]
        targets = ((name, _without_wrappers(name.removeprefix(prefix), wrappers)) for name in prefixed)
        renames = {
            name: target for name, target in targets if isinstance(state_dict[name], Tensor) or target in expected
        }
        other_names = tuple(str(name) for name in state_dict if name not in renames)
        drops_names = len(names) == len(state_dict) != len(renames)
        if drops_names or any(name != target for name, target in renames.items()):
            yield _Candidate(key_path, prefix, _renamed(state_dict, renames, prefix, wrappers), other_names)


def _without_wrappers(name: str, wrappers: set[str]) -> str:
    """A name without the parts that wrappers add, other than the first, which is part of a prefix."""
    first, *rest = name.split(".")
    return ".".join((first, *(part for part in rest if part not in wrappers)))


def _renamed(
    state_dict: dict[Any, Any], names: dict[str, str], prefix: str, wrappers: set[str]
) -> OrderedDict[str, Any]:
    """The weights under new names, with the versions that the network's load hooks read."""
    renamed = OrderedDict((target, state_dict[name]) for name, target in names.items())
    versions = {
        _without_wrappers(f"{path}.".removeprefix(prefix), wrappers).rstrip("."): version
        for path, version in getattr(state_dict, "_metadata", {}).items()
        if f"{path}.".startswith(prefix)
    }
    if versions:
        renamed._metadata = versions  # type: ignore[attr-defined]
    return renamed


def _matching(candidate: _Candidate, expected: dict[str, Tensor]) -> int:
    return len(expected.keys() & candidate.weights.keys())


def _load_error(module: nn.Module, candidate: _Candidate, expected: dict[str, Tensor], path: Path) -> InputError | None:
    """Why the weights do not fit the network; None where they do, and then they are loaded."""
    for name, value in candidate.weights.items():
        if invalid := _invalid_weight(name, value, expected.get(name)):
            reason, remedy = invalid
            return InputError(f"the weights in {path} cannot be taken as they are: {name} {reason}", remedy=remedy)
    problems = _mismatches(module, candidate.weights, expected)
    if not problems:
        return None
    place = f" ({candidate})" if candidate.key_path or candidate.prefix else ""
    return InputError(
        f"the weights in {path}{place} do not fit the network; {'; '.join(problems)}",
        remedy="are they from this network, with this number of classes?",
    )


def _invalid_weight(name: Any, value: Any, expected: Tensor | None) -> tuple[str, str] | None:
    """What is wrong with a weight, and a remedy; None where it is an ordinary dense tensor, or none at all."""
    if not isinstance(name, str):
        return "is a number, not the name of a weight", "save them by name: torch.save(network.state_dict(), path)"
    if not isinstance(value, Tensor):
        return None
    if value.is_nested:
        return "is nested: several tensors in one", "save them one by one, each under its own name"
    if value.is_meta:
        return "has a shape, but no numbers (device meta)", "save the weights after they are loaded or initialised"
    if value.is_quantized:
        return "is quantised", "save the network's weights from before it was quantised"
    if value.layout != torch.strided:
        return f"is sparse ({str(value.layout).removeprefix('torch.')})", "save it as .to_dense()"
    dtype = str(value.dtype).removeprefix("torch.")
    if value.is_complex() and not (expected is not None and expected.is_complex()):
        return f"is of {dtype}", "save its real numbers"
    if expected is not None and expected.is_floating_point() and not value.is_floating_point():
        return (
            f"is of {dtype}, and the network's is a floating-point number",
            "save it as .float(), with its scale applied",
        )
    return None


def _mismatches(module: nn.Module, weights: dict[str, Any], expected: dict[str, Tensor]) -> list[str]:
    """What torch reports on loading the weights, after the modules' load hooks."""
    reports: list[Any] = []
    hook = module.register_load_state_dict_post_hook(lambda _, report: reports.append(report))  # type: ignore[no-untyped-call]
    messages: list[str] = []
    try:
        module.load_state_dict(weights, strict=False)
    except Exception as error:
        if lacks_memory(error):
            raise
        messages = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    finally:
        hook.remove()
    missing = [name for report in reports for name in report.missing_keys if not name.endswith(_COUNTER)]
    unexpected = [name for report in reports for name in report.unexpected_keys]
    misshapen = _misshapen(weights, expected) if messages else []
    lists = (("missing", missing), ("unexpected", unexpected), ("wrong shape", misshapen))
    problems = [f"{what}: {_shortened(names)}" for what, names in lists if names]
    return problems if misshapen or not messages else [*problems, _shortened(messages[1:] or messages)]


def _misshapen(weights: dict[str, Any], network_weights: dict[str, Tensor]) -> list[str]:
    shapes = [
        (name, tuple(weights[name].shape), tuple(value.shape))
        for name, value in network_weights.items()
        if isinstance(weights.get(name), Tensor) and not is_lazy(value)
    ]
    return [f"{name} {loaded} instead of {required}" for name, loaded, required in shapes if loaded != required]


def _preferred(fits: list[_Candidate], path: Path) -> _Candidate:
    """The only candidate that fits, or the only averaged one of several; anything else is ambiguous."""
    preferred = [candidate for candidate in fits if candidate.averaged] or fits
    if len(preferred) > 1:
        raise InputError(
            f"{path} holds several state dicts that fit the network: {', '.join(map(str, preferred))}",
            remedy=_extract_remedy(preferred[0], path),
        )
    return preferred[0]


def _extract_remedy(candidate: _Candidate, path: Path) -> str:
    """How to save one of several state dicts in a file of its own."""
    loaded = f"torch.load('{path}')" + "".join(f"['{key}']" for key in candidate.key_path)
    if candidate.prefix:
        loaded = f"{{k: v for k, v in {loaded}.items() if k.startswith('{candidate.prefix}')}}"
    return f"save the one you mean alone, as {candidate} by torch.save({loaded}, 'weights.pth')"


def _notes(
    chosen: _Candidate, fits: list[_Candidate], considered: list[_Candidate], weights: dict[str, Tensor]
) -> Iterator[str]:
    others = [candidate for candidate in fits if candidate is not chosen]
    if others:
        yield f"{chosen}, the averaged weights, are taken, not {', '.join(map(str, others))} (save one alone to take it)"
    unfit = [c for c in considered if c.averaged and c not in fits and c.key_path != chosen.key_path]
    if unfit and not chosen.averaged:
        where = ", ".join(dict.fromkeys(str(candidate) for candidate in unfit))
        yield f"{chosen} is taken; {where}, averaged weights by the name, do not fit the network or cannot be read"
    elsewhere = tuple(candidate.prefix for candidate in others if candidate.key_path == chosen.key_path)
    if left := [name for name in chosen.other_names if not (elsewhere and name.startswith(elsewhere))]:
        yield f"left out, as the network has no such weight: {_shortened(left)}"
    casts = {
        (str(value.dtype), str(weights[name].dtype))
        for name, value in chosen.weights.items()
        if name in weights
        and isinstance(value, Tensor)
        and value.is_floating_point()
        and value.dtype != weights[name].dtype
    }
    for loaded, network_dtype in sorted(casts):
        yield f"weights of {loaded.removeprefix('torch.')} are taken as {network_dtype.removeprefix('torch.')}"


def _shortened(names: list[str], most: int = 8) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")
