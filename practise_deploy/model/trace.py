"""A network as a graph of values, found by tracing (torch.fx), in a form that surgery can rely on.

In the traced graph no operation writes in place, every convolution is a plain `nn.Conv2d` call and every batch
normalisation a plain `nn.BatchNorm2d` call, a symmetric `nn.ZeroPad2d` that only such convolutions read is their own
padding, nothing is asserted, and every value has its shape in `node.meta["shape"]`. Only the first argument is an input; the others keep their defaults.
"""

from __future__ import annotations

import copy
import inspect
import operator
from typing import Any

import torch
from torch import fx, nn
from torch.fx.passes.shape_prop import ShapeProp

from practise_deploy.errors import InputError
from practise_deploy.model.operators import module_of

_IN_PLACE = {operator.iadd: operator.add, operator.imul: operator.mul, operator.isub: operator.sub}
_SIMPLE = (type(None), bool, int, float, str)


class _Tracer(fx.Tracer):
    """Traces into containers; modules without children, and those that resist, stay whole."""

    def __init__(self, opaque: frozenset[str]) -> None:
        super().__init__()
        self.opaque = opaque
        self.inside: list[str] = []

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        if module_qualified_name in self.opaque or next(m.children(), None) is None:
            return True
        return super().is_leaf_module(m, module_qualified_name) and not isinstance(m, nn.Sequential)

    def call_module(self, m: nn.Module, forward: Any, args: Any, kwargs: Any) -> Any:
        self.inside.append(self.path_of_module(m))
        found = super().call_module(m, forward, args, kwargs)
        self.inside.pop()
        return found


def trace(module: nn.Module, input_shape: tuple[int, ...]) -> tuple[fx.GraphModule, tuple[str, ...]]:
    """The network as a graph, and the modules that could not be traced into.

    Shapes: input_shape (batch, channels, height, width).
    Raises: InputError where the network cannot be traced or does not run on such an input.
    """
    graph, opaque = _trace_what_can_be(module)
    traced = fx.GraphModule(module, graph)
    _forget_assertions(traced.graph)
    sample = _noise(traced, input_shape)
    expected = _first_value(module, sample)
    _write_nothing_in_place(traced)
    _plain_layers(traced, module)
    _pad_in_convolutions(traced)
    _tidy(traced.eval())
    annotate_shapes(traced, input_shape)
    _check_same(traced, sample, expected)
    return traced, tuple(sorted(opaque))


def _trace_what_can_be(module: nn.Module) -> tuple[fx.Graph, frozenset[str]]:
    opaque: frozenset[str] = frozenset()
    while True:
        tracer = _Tracer(opaque)
        try:
            return tracer.trace(module, _fixed_arguments(module)), opaque
        except Exception as error:
            culprit = tracer.inside[-1] if tracer.inside else ""
            if not culprit or culprit in opaque:
                raise InputError(
                    f"the network cannot be traced: {_first_line(error)}",
                    remedy="its forward takes decisions on values; give them fixed values in eval mode",
                ) from None
            opaque |= {culprit}


def _fixed_arguments(module: nn.Module) -> dict[str, Any]:
    """Every argument after the first that has a default keeps it."""
    further = list(inspect.signature(module.forward).parameters.values())[1:]
    return {p.name: p.default for p in further if isinstance(p.default, _SIMPLE)}


def _forget_assertions(graph: fx.Graph) -> None:
    """Assertions read values, and so would count as their users."""
    for node in list(graph.nodes):
        if node.op == "call_function" and "_assert" in getattr(node.target, "__name__", "") and not node.users:
            graph.erase_node(node)


def _tidy(traced: fx.GraphModule) -> None:
    traced.graph.eliminate_dead_code()
    for node in [n for n in traced.graph.nodes if n.op == "placeholder"][1:]:
        if not node.users:
            traced.graph.erase_node(node)
    traced.recompile()


def _noise(traced: fx.GraphModule, input_shape: tuple[int, ...]) -> torch.Tensor:
    parameter = next(traced.parameters(), torch.empty(0))
    dtype = parameter.dtype if parameter.numel() else torch.float32
    return torch.randn(input_shape, generator=torch.Generator().manual_seed(0)).to(parameter.device, dtype)


def _first_value(network: nn.Module, sample: torch.Tensor) -> torch.Tensor | None:
    """The network's first output, None where it does not run (`annotate_shapes` says so) or gives no tensor."""
    try:
        with torch.no_grad():
            found = network(sample.clone())
    except Exception:
        return None
    while isinstance(found, (tuple, list)) and found:
        found = found[0]
    return found if isinstance(found, torch.Tensor) else None


def _check_same(traced: fx.GraphModule, sample: torch.Tensor, expected: torch.Tensor | None) -> None:
    """Refuse a graph that computes something else than the network, as tracing allows where values are written in place."""
    found = _first_value(traced, sample)
    if expected is None or found is None:
        return
    if found.shape != expected.shape or not torch.allclose(found, expected, rtol=1e-3, atol=1e-4, equal_nan=True):
        raise InputError(
            "the traced network does not compute what the network computes",
            remedy="does its forward write in place into a value under two names, draw random numbers or depend on values?",
        )


def annotate_shapes(traced: fx.GraphModule, input_shape: tuple[int, ...]) -> None:
    """Write every value's shape into `node.meta["shape"]`; values that are no tensors get none."""
    parameter = next(traced.parameters(), torch.empty(0))
    sample = torch.zeros(
        input_shape, device=parameter.device, dtype=parameter.dtype if parameter.numel() else torch.float32
    )
    try:
        with torch.no_grad():
            ShapeProp(traced).propagate(sample)
    except Exception as error:
        raise InputError(
            f"the network does not run on an input of shape {tuple(input_shape)}: {_first_line(error)}",
            remedy="give its input size with --input-size",
        ) from None
    for node in traced.graph.nodes:
        found = node.meta.get("tensor_meta")
        node.meta["shape"] = tuple(found.shape) if hasattr(found, "shape") else None


def _read_from_now_on(old: fx.Node, new: fx.Node, position: dict[fx.Node, int]) -> None:
    old.replace_all_uses_with(new, lambda user: position[user] > position[new])


def _write_nothing_in_place(traced: fx.GraphModule) -> None:
    """Give each written value a name of its own: whoever reads the old one later, reads the new one."""
    position = {node: index for index, node in enumerate(traced.graph.nodes)}
    for node in traced.graph.nodes:
        if _writes_in_place(traced, node) and isinstance(node.args[0], fx.Node):
            _read_from_now_on(node.args[0], node, position)
        if node.op == "call_function":
            node.target = _IN_PLACE.get(node.target, node.target)
        if node.op == "call_method" and node.target.endswith("_") and not node.target.endswith("__"):
            node.target = node.target[:-1]
        if node.kwargs.get("inplace"):
            node.kwargs = {**node.kwargs, "inplace": False}
    for module in traced.modules():
        if getattr(module, "inplace", False) is True:
            module.inplace = False  # type: ignore[assignment]


def _writes_in_place(traced: fx.GraphModule, node: fx.Node) -> bool:
    if not node.args or node.op in ("placeholder", "output", "get_attr"):
        return False
    if node.op == "call_module":
        return getattr(module_of(traced, node), "inplace", False) is True
    method = node.op == "call_method" and str(node.target).endswith("_") and not str(node.target).endswith("__")
    return method or node.target in _IN_PLACE or node.kwargs.get("inplace") is True


def _plain_layers(traced: fx.GraphModule, original: nn.Module) -> None:
    """Subclasses of Conv2d and BatchNorm2d with children of their own become a plain layer and those children."""
    for node in list(traced.graph.nodes):
        convolves = node.op == "call_function" and node.target in (torch.conv2d, nn.functional.conv2d)
        normalises = node.op == "call_function" and node.target is nn.functional.batch_norm
        weight = node.args[1] if (convolves or normalises) and len(node.args) > 1 else None
        if not isinstance(weight, fx.Node) or weight.op != "get_attr":
            continue
        path, _, name = str(weight.target).rpartition(".")
        owner = original.get_submodule(path)
        if isinstance(owner, nn.Conv2d) and name == "weight":
            _swap_in(traced, path, owner, node)
        if isinstance(owner, nn.BatchNorm2d) and name == "running_mean":
            _swap_norm_in(traced, path, owner, node)


def _swap_norm_in(traced: fx.GraphModule, path: str, owner: nn.BatchNorm2d, node: fx.Node) -> None:
    plain = nn.BatchNorm2d(owner.num_features, owner.eps, owner.momentum, owner.affine, device="meta")
    plain.weight, plain.bias = owner.weight, owner.bias
    for name, value in (*owner.named_buffers(recurse=False), *owner.named_children()):
        setattr(plain, name, value)
    _call_instead(traced, path, plain, node)


def _swap_in(traced: fx.GraphModule, path: str, owner: nn.Conv2d, node: fx.Node) -> None:
    stride: Any
    padding: Any
    dilation: Any
    groups: Any
    kernel_size: Any = owner.kernel_size
    _, _, _, stride, padding, dilation, groups = (*node.args, *(1, 0, 1, 1)[len(node.args) - 3 :])[:7]
    plain = nn.Conv2d(
        owner.in_channels,
        owner.out_channels,
        kernel_size,
        stride=stride,
        padding=padding,
        dilation=dilation,
        groups=groups,
        bias=owner.bias is not None,
        device="meta",
    )
    plain.weight, plain.bias = owner.weight, owner.bias
    for name, child in owner.named_children():
        plain.add_module(name, child)
    _call_instead(traced, path, plain, node)


def _call_instead(traced: fx.GraphModule, path: str, plain: nn.Module, node: fx.Node) -> None:
    traced.set_submodule(path, plain)
    with traced.graph.inserting_before(node):
        call = traced.graph.call_module(path, (node.args[0],))
    call.meta = dict(node.meta)
    node.replace_all_uses_with(call)
    traced.graph.erase_node(node)


def _pad_in_convolutions(traced: fx.GraphModule) -> None:
    """Leave symmetric padding to the convolutions behind it: no copy of their input is made."""
    for node in list(traced.graph.nodes):
        zeros = module_of(traced, node)
        if type(zeros) is not nn.ZeroPad2d or not all(_takes_padding(traced, user) for user in node.users):
            continue
        left, right, top, bottom = zeros.padding
        if (left, top) != (right, bottom) or min(left, top) < 0:
            continue
        for user in node.users:
            padded = copy.copy(traced.get_submodule(str(user.target)))
            assert isinstance(padded, nn.Conv2d)
            padded.padding = (int(padded.padding[0]) + top, int(padded.padding[1]) + left)
            traced.set_submodule(str(user.target), padded)
        node.replace_all_uses_with(node.all_input_nodes[0])


def _takes_padding(traced: fx.GraphModule, node: fx.Node) -> bool:
    """Whether a value is a convolution that can pad with zeros itself, called nowhere else."""
    module = module_of(traced, node)
    if type(module) is not nn.Conv2d or isinstance(module.padding, str) or module.padding_mode != "zeros":
        return False
    return len(traced.graph.find_nodes(op="call_module", target=node.target, sort=False)) == 1


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
