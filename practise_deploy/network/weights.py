"""Weights of a file, put into a network: which of the file's state dicts, under which prefix, and what else it holds."""

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

from practise_deploy.errors import InputError
from practise_deploy.network.checkpoints import Place, read_state_dicts

_WRAPPERS = {"module", "_orig_mod"}
_AVERAGED = re.compile(r"(^|[^a-z])(ema|swa|avg|averaged?|shadow|polyak)([^a-z]|$)")
_COUNTER = "num_batches_tracked"


@dataclass(frozen=True, slots=True)
class _Choice:
    """A state dict of a file, without a prefix. beside: the names that do not have the prefix."""

    place: Place
    prefix: str
    weights: dict[Any, Any]
    beside: tuple[str, ...]

    @property
    def averaged(self) -> bool:
        """Whether it is a moving average of weights, by its name or by what torch's AveragedModel counts."""
        return bool(_AVERAGED.search(".".join((*self.place, self.prefix)).lower())) or "n_averaged" in self.beside

    def __str__(self) -> str:
        where = "".join(f"['{key}']" for key in self.place)
        return f"{where} under '{self.prefix}'".strip() if self.prefix else where or "the names without a prefix"


def load_state_dict(module: nn.Module, path: Path) -> tuple[str, ...]:
    """Put a file's weights into a network; gives what is to be said of what was taken and what was left.

    Of several state dicts that fit, the moving average of the weights is taken.

    Raises: InputError listing what is missing, unexpected, of another shape or no plain numbers; where several fit.
    """
    own = module.state_dict()
    choices = [each for place, found in read_state_dicts(path).items() for each in _ways(place, found, own)]
    best = max(choices, key=lambda each: (_covered(each, own), len(each.weights)))
    fits: list[_Choice] = []
    for each in choices:
        as_it_is = any(one.place == each.place and not one.prefix for one in fits)
        if (
            2 * _covered(each, own) >= _covered(best, own)
            and not as_it_is
            and _refusal(module, each, own, path) is None
        ):
            fits.append(each)
    if not fits:
        raise _refusal(module, best, own, path) or AssertionError(path)
    chosen = _one_of(fits, path)
    module.load_state_dict(chosen.weights, strict=False)  # the last one tried may have been another
    return tuple(f"{path}: {note}" for note in _notes(chosen, fits, choices, own))


def _ways(place: Place, found: dict[Any, Any], own: dict[str, Tensor]) -> Iterator[_Choice]:
    """A state dict as it is, and without each prefix under which it has half of the network's names or more."""
    yield _Choice(place, "", found, ())
    words = _WRAPPERS - {part for name in own for part in name.split(".")}
    names = [name for name in found if isinstance(name, str)]
    starts = Counter(
        name[:at]
        for name in names
        for at in (0, *(dot.end() for dot in re.finditer(r"\.", name)))
        if _unwrapped(name[at:], words) in own
    )
    for prefix in (prefix for prefix, count in starts.items() if 2 * count >= len(own)):
        under = {name: _unwrapped(name.removeprefix(prefix), words) for name in names if name.startswith(prefix)}
        under = {name: plain for name, plain in under.items() if isinstance(found[name], Tensor) or plain in own}
        beside = tuple(str(name) for name in found if name not in under)
        if any(name != plain for name, plain in under.items()) or len(names) == len(found) != len(under):
            yield _Choice(place, prefix, _renamed(found, under, prefix, words), beside)


def _unwrapped(name: str, words: set[str]) -> str:
    """A name without what wrappers put into it; its first part stays, as that is a prefix's business."""
    first, *rest = name.split(".")
    return ".".join((first, *(part for part in rest if part not in words)))


def _renamed(found: dict[Any, Any], names: dict[str, str], prefix: str, words: set[str]) -> OrderedDict[str, Any]:
    """Some of the weights by other names, with the versions that the network's own load hooks go by."""
    renamed = OrderedDict((plain, found[name]) for name, plain in names.items())
    versions = {
        _unwrapped(f"{path}.".removeprefix(prefix), words).rstrip("."): version
        for path, version in getattr(found, "_metadata", {}).items()
        if f"{path}.".startswith(prefix)
    }
    if versions:
        renamed._metadata = versions  # type: ignore[attr-defined]
    return renamed


def _covered(choice: _Choice, own: dict[str, Tensor]) -> int:
    return len(own.keys() & choice.weights.keys())


def _refusal(module: nn.Module, choice: _Choice, own: dict[str, Tensor], path: Path) -> InputError | None:
    """Why weights are none of the network's; None where they are, and then they are in it."""
    for name, value in choice.weights.items():
        if odd := _odd(name, value, own.get(name)):
            what, remedy = odd
            return InputError(f"the weights in {path} cannot be taken as they are: {name} {what}", remedy=remedy)
    problems = _misfit(module, choice.weights, own)
    if not problems:
        return None
    where = f" ({choice})" if choice.place or choice.prefix else ""
    return InputError(
        f"the weights in {path}{where} do not fit the network; {'; '.join(problems)}",
        remedy="are they from this network, with this number of classes?",
    )


def _odd(name: Any, value: Any, own: Tensor | None) -> tuple[str, str] | None:
    """What is wrong with a weight, whatever the network, and what to do; None where it is plain numbers."""
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
    if value.is_complex() and not (own is not None and own.is_complex()):
        return f"is of {dtype}", "save its real numbers"
    if own is not None and own.is_floating_point() and not value.is_floating_point():
        return (
            f"is of {dtype}, and the network's is a floating-point number",
            "save it as .float(), with its scale applied",
        )
    return None


def _misfit(module: nn.Module, weights: dict[str, Any], own: dict[str, Tensor]) -> list[str]:
    """What torch itself reports of loading them, after the load hooks of the network's modules."""
    reports: list[Any] = []
    noting = module.register_load_state_dict_post_hook(lambda _, report: reports.append(report))  # type: ignore[no-untyped-call]
    said: list[str] = []
    try:
        module.load_state_dict(weights, strict=False)
    except Exception as error:
        said = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    finally:
        noting.remove()
    missing = [name for report in reports for name in report.missing_keys if not name.endswith(_COUNTER)]
    unexpected = [name for report in reports for name in report.unexpected_keys]
    shaped = _misshapen(weights, own) if said else []
    lists = (("missing", missing), ("unexpected", unexpected), ("wrong shape", shaped))
    found = [f"{what}: {_few(names)}" for what, names in lists if names]
    return found if shaped or not said else [*found, _few(said[1:] or said)]


def _misshapen(weights: dict[str, Any], own: dict[str, Tensor]) -> list[str]:
    both = [
        (name, tuple(weights[name].shape), tuple(value.shape))
        for name, value in own.items()
        if isinstance(weights.get(name), Tensor) and not is_lazy(value)
    ]
    return [f"{name} {found} instead of {expected}" for name, found, expected in both if found != expected]


def _one_of(fits: list[_Choice], path: Path) -> _Choice:
    """The one that fits, or of several the one that is averaged; which of others is meant, nobody said."""
    wanted = [each for each in fits if each.averaged] or fits
    if len(wanted) > 1:
        raise InputError(
            f"{path} holds several state dicts that fit the network: {', '.join(map(str, wanted))}",
            remedy=_alone(wanted[0], path),
        )
    return wanted[0]


def _alone(choice: _Choice, path: Path) -> str:
    """How to have one of several state dicts in a file of its own."""
    whole = f"torch.load('{path}')" + "".join(f"['{key}']" for key in choice.place)
    part = f"{{k: v for k, v in {whole}.items() if k.startswith('{choice.prefix}')}}" if choice.prefix else whole
    return f"save the one you mean alone, as {choice} by torch.save({part}, 'weights.pth')"


def _notes(chosen: _Choice, fits: list[_Choice], choices: list[_Choice], own: dict[str, Tensor]) -> Iterator[str]:
    others = [each for each in fits if each is not chosen]
    if others:
        yield f"{chosen}, the averaged weights, are taken, not {', '.join(map(str, others))} (save one alone to take it)"
    unfit = [each for each in choices if each.averaged and each not in fits and each.place != chosen.place]
    if unfit and not chosen.averaged:
        where = ", ".join(dict.fromkeys(str(each) for each in unfit))
        yield f"{chosen} is taken; {where}, averaged weights by the name, do not fit the network or cannot be read"
    elsewhere = tuple(each.prefix for each in others if each.place == chosen.place)
    if left := [name for name in chosen.beside if not (elsewhere and name.startswith(elsewhere))]:
        yield f"left out, as the network has no such weight: {_few(left)}"
    kinds = {
        (str(value.dtype), str(own[name].dtype))
        for name, value in chosen.weights.items()
        if name in own and isinstance(value, Tensor) and value.is_floating_point() and value.dtype != own[name].dtype
    }
    for found, taken in sorted(kinds):
        yield f"weights of {found.removeprefix('torch.')} are taken as {taken.removeprefix('torch.')}"


def _few(names: list[str], most: int = 8) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")
