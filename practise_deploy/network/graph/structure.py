"""What a network computes, as hashes: its structure, and its structure with its weights."""

from __future__ import annotations

import hashlib
import inspect

import torch
from torch import fx, nn

from practise_deploy.network.graph.operators import module_of

_HASHED_TYPES = (type(None), bool, int, float, str, tuple)


def structure_of(traced: fx.GraphModule, source: bytes = b"") -> str:
    """sha256 of all that a network computes besides its weights. source: the user's file that it is from."""
    digest = hashlib.sha256(source)
    for node in traced.graph.nodes:
        module = module_of(traced, node)
        cls = type(module)
        kind = "" if module is None else f"{cls.__module__}.{cls.__qualname__} {module!r} {_definition(module)}"
        digest.update(
            f"{node.op} {node.name} {_target_name(node)} {node.args} {node.kwargs} {node.meta.get('shape')} {kind}\n".encode()
        )
    return digest.hexdigest()


def _definition(module: nn.Module) -> str:
    """A custom module's simple attributes and its class's source, on which its result depends."""
    if type(module).__module__.partition(".")[0] in ("torch", "torchvision", "timm"):
        return ""
    values = sorted((name, value) for name, value in vars(module).items() if isinstance(value, _HASHED_TYPES))
    try:
        return f"{values} {inspect.getsource(type(module))}"
    except (OSError, TypeError):
        return f"{values}"


def _target_name(node: fx.Node) -> str:
    """What a node calls, by a name that is the same in every process."""
    if isinstance(node.target, str):
        return node.target
    function = node.target
    return f"{getattr(function, '__module__', '')}.{getattr(function, '__qualname__', None) or getattr(function, '__name__', type(function))}"


def fingerprint(traced: fx.GraphModule, structure: str) -> str:
    """sha256 of a network's structure and weights."""
    digest = hashlib.sha256(structure.encode())
    for name, value in sorted(traced.state_dict().items()):
        digest.update(name.encode())
        digest.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
