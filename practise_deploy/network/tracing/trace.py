"""A network as a graph of values, found by tracing (torch.fx), in a form that surgery can rely on.

In the traced graph no operation writes in place, every convolution is a plain `nn.Conv2d` call and every batch
normalisation a plain `nn.BatchNorm2d` call, a symmetric `nn.ZeroPad2d` that only such convolutions read is their own
padding, nothing is asserted, and every tensor has its shape in `node.meta["shape"]`. Where the network takes any number of images, `node.meta["for_two"]` is the
shape of a tensor, or the value of a size, for two of them. Only the first argument is an input; the others keep their defaults.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.fx.passes.shape_prop import ShapeProp

from practise_backends.errors import lacks_memory
from practise_deploy.errors import InputError, first_line
from practise_deploy.network.graph.operators import IDLE, module_of
from practise_deploy.network.graph.outputs import flatten_outputs
from practise_deploy.network.graph.sums import canonicalise_sums, chain_sums
from practise_deploy.network.tracing.functionalise import functionalise
from practise_deploy.network.tracing.inputs import check_inputs
from practise_deploy.network.tracing.tracers import graphs_of, operations_in
from practise_deploy.network.tracing.trial import check_same, noise, result_of


def trace(module: nn.Module, input_shape: tuple[int, ...]) -> tuple[fx.GraphModule, tuple[str, ...]]:
    """The network as a graph, and the modules that could not be traced into.

    Shapes: input_shape (batch, channels, height, width).
    Raises: InputError where the network cannot be traced or does not run on such an input.
    """
    check_inputs(module)
    sample = noise(module, input_shape)
    expected = result_of(module, sample)
    first_error: InputError | None = None
    for graph, leaves in graphs_of(module, input_shape):
        try:
            return _normalised_graph(module, graph, sample, expected), leaves
        except InputError as error:
            first_error = first_error or error
    assert first_error is not None
    raise first_error


def _normalised_graph(
    module: nn.Module, graph: fx.Graph, sample: Tensor, expected: tuple[Tensor, ...]
) -> fx.GraphModule:
    """A graph of the module in the form this package relies on, checked on a sample."""
    traced = fx.GraphModule(module, graph)
    _erase_assertions(traced.graph)
    functionalise(traced)
    canonicalise_sums(traced)
    _restore_standard_layers(traced, module)
    _resolve_named_paddings(traced)
    _fold_zero_padding(traced)
    _mark_idle(traced)
    flatten_outputs(traced)
    _tidy(traced.eval())
    annotate_shapes(traced, tuple(sample.shape))
    chain_sums(traced)
    check_same(traced, sample, expected)
    return traced


def _erase_assertions(graph: fx.Graph) -> None:
    """Assertions would count as users of the values that they read."""
    for node in list(graph.nodes):
        if node.op == "call_function" and "_assert" in getattr(node.target, "__name__", "") and not node.users:
            graph.erase_node(node)


def _tidy(traced: fx.GraphModule) -> None:
    traced.graph.eliminate_dead_code()
    for node in [n for n in traced.graph.nodes if n.op == "placeholder"][1:]:
        if not node.users:
            traced.graph.erase_node(node)
    traced.recompile()


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
        if lacks_memory(error):
            raise
        raise InputError(
            f"the network does not run on an input of shape {tuple(input_shape)}: {first_line(error)}",
            remedy="give its input size with --input-size",
        ) from None
    for node in traced.graph.nodes:
        tensor_meta = node.meta.get("tensor_meta")
        node.meta["shape"] = tuple(tensor_meta.shape) if hasattr(tensor_meta, "shape") else None
    _annotate_for_two(traced, sample.new_zeros(2, *sample.shape[1:]))


def _annotate_for_two(traced: fx.GraphModule, two: Tensor) -> None:
    """Write into `node.meta["for_two"]` every tensor's shape and every size for two images.

    Nothing where the network does not run on two.
    """
    recorder = _SizeRecorder(traced)
    try:
        with torch.no_grad():
            recorder.run(two)
    except Exception as error:
        if lacks_memory(error):
            raise
        return
    for node, size in recorder.sizes.items():
        node.meta["for_two"] = size


class _SizeRecorder(fx.Interpreter):
    """Runs a network and records its tensors' shapes and its sizes."""

    def __init__(self, traced: fx.GraphModule) -> None:
        super().__init__(traced)
        self.sizes: dict[fx.Node, Any] = {}

    def run_node(self, n: fx.Node) -> Any:
        value = super().run_node(n)
        if isinstance(value, (Tensor, int, torch.Size)):
            self.sizes[n] = tuple(value.shape) if isinstance(value, Tensor) else value
        return value


def _restore_standard_layers(traced: fx.GraphModule, original: nn.Module) -> None:
    """Replace a Conv2d or BatchNorm2d subclass that has children by the standard layer with those children."""
    for node in list(traced.graph.nodes):
        if node.op == "call_function" and node.target in (torch.conv2d, nn.functional.conv2d):
            _restore_convolution(traced, original, node)
        if node.op == "call_function" and node.target is nn.functional.batch_norm:
            owner, path, name = _owner(original, node.args[1] if len(node.args) > 1 else None)
            if isinstance(owner, nn.BatchNorm2d) and name == "running_mean":
                _restore_norm(traced, path, owner, node)


def _owner(original: nn.Module, value: Any) -> tuple[nn.Module | None, str, str]:
    """The module that a value is a parameter or a buffer of, its path, and the value's name in it."""
    if not isinstance(value, fx.Node) or value.op != "get_attr":
        return None, "", ""
    path, _, name = str(value.target).rpartition(".")
    return original.get_submodule(path), path, name


def _restore_norm(traced: fx.GraphModule, path: str, owner: nn.BatchNorm2d, node: fx.Node) -> None:
    norm = nn.BatchNorm2d(owner.num_features, owner.eps, owner.momentum, owner.affine, device="meta")
    norm.weight, norm.bias = owner.weight, owner.bias
    for name, value in (*owner.named_buffers(recurse=False), *owner.named_children()):
        setattr(norm, name, value)
    _replace_call(traced, path, norm, node, node.args[0])


_CONV2D_DEFAULTS = {"input": None, "weight": None, "bias": None, "stride": 1, "padding": 0, "dilation": 1, "groups": 1}


def _restore_convolution(traced: fx.GraphModule, original: nn.Module, node: fx.Node) -> None:
    """Replace a functional convolution by the Conv2d that its weight and bias belong to."""
    positional = dict(zip(_CONV2D_DEFAULTS, node.args, strict=False))
    arguments: dict[str, Any] = {**_CONV2D_DEFAULTS, **positional, **node.kwargs}
    owner, path, name = _owner(original, arguments["weight"])
    biased = _owner(original, arguments["bias"])[1:] == (path, "bias")
    if not isinstance(owner, nn.Conv2d) or name != "weight" or biased != (owner.bias is not None):
        return
    kernel_size: Any = owner.kernel_size
    convolution = nn.Conv2d(
        owner.in_channels,
        owner.out_channels,
        kernel_size,
        stride=arguments["stride"],
        padding=arguments["padding"],
        dilation=arguments["dilation"],
        groups=arguments["groups"],
        bias=biased,
        device="meta",
    )
    convolution.weight, convolution.bias = owner.weight, owner.bias
    for child_name, child in owner.named_children():
        convolution.add_module(child_name, child)
    _replace_call(traced, path, convolution, node, arguments["input"])


def _replace_call(traced: fx.GraphModule, path: str, layer: nn.Module, node: fx.Node, source: Any) -> None:
    traced.set_submodule(path, layer)
    with traced.graph.inserting_before(node):
        call = traced.graph.call_module(path, (source,))
    call.meta = dict(node.meta)
    node.replace_all_uses_with(call)
    traced.graph.erase_node(node)


def _resolve_named_paddings(traced: fx.GraphModule) -> None:
    """Replace the paddings "valid" and "same" by numbers, where they are symmetric."""
    for node in traced.graph.nodes:
        module = module_of(traced, node)
        if type(module) is nn.Conv2d and isinstance(module.padding, str) and module.padding_mode == "zeros":
            sides = zip(module.dilation, module.kernel_size, strict=True)
            total = [0 if module.padding == "valid" else dilation * (size - 1) for dilation, size in sides]
            if not any(amount % 2 for amount in total):
                padded = copy.copy(module)
                padded.padding = (total[0] // 2, total[1] // 2)
                traced.set_submodule(str(node.target), padded)


def _fold_zero_padding(traced: fx.GraphModule) -> None:
    """Fold symmetric zero padding into the convolutions that read it, which saves a copy of their input."""
    for node in list(traced.graph.nodes):
        padding = module_of(traced, node)
        if type(padding) is not nn.ZeroPad2d or not all(_can_pad(traced, user) for user in node.users):
            continue
        left, right, top, bottom = padding.padding
        if (left, top) != (right, bottom) or min(left, top) < 0:
            continue
        for user in node.users:
            padded = copy.copy(traced.get_submodule(str(user.target)))
            assert isinstance(padded, nn.Conv2d)
            padded.padding = (int(padded.padding[0]) + top, int(padded.padding[1]) + left)
            traced.set_submodule(str(user.target), padded)
        node.replace_all_uses_with(node.all_input_nodes[0])


def _mark_idle(traced: fx.GraphModule) -> None:
    """Mark the calls of modules of the network's own that give back what they get, as stochastic depth does in eval mode."""
    for node in traced.graph.nodes:
        module = module_of(traced, node)
        if module is not None and operations_in(module) == []:
            node.meta[IDLE] = True


def _can_pad(traced: fx.GraphModule, node: fx.Node) -> bool:
    """Whether a value is a convolution, called only once, that can pad with zeros itself."""
    module = module_of(traced, node)
    if type(module) is not nn.Conv2d or isinstance(module.padding, str) or module.padding_mode != "zeros":
        return False
    return len(traced.graph.find_nodes(op="call_module", target=node.target, sort=False)) == 1
