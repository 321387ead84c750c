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
from practise_deploy.network.functionalise import write_nothing_in_place
from practise_deploy.network.inputs import check_inputs
from practise_deploy.network.operators import module_of
from practise_deploy.network.sums import write_sums_plainly
from practise_deploy.network.tracers import graphs_of
from practise_deploy.network.trial import ALONE, check_same, noise, output_of


def trace(module: nn.Module, input_shape: tuple[int, ...]) -> tuple[fx.GraphModule, tuple[str, ...]]:
    """The network as a graph, and the modules that could not be traced into.

    Shapes: input_shape (batch, channels, height, width).
    Raises: InputError where the network cannot be traced or does not run on such an input.
    """
    check_inputs(module)
    sample = noise(module, input_shape)
    expected = output_of(module, sample)
    refused: InputError | None = None
    for graph, whole in graphs_of(module, input_shape):
        try:
            return _in_order(module, graph, sample, expected), whole
        except InputError as error:
            refused = refused or error
    assert refused is not None
    raise refused


def _in_order(module: nn.Module, graph: fx.Graph, sample: Tensor, expected: Tensor) -> fx.GraphModule:
    """A graph of the module as the others of this package want it, checked on a sample."""
    traced = fx.GraphModule(module, graph)
    _forget_assertions(traced.graph)
    write_nothing_in_place(traced)
    write_sums_plainly(traced)
    _plain_layers(traced, module)
    _number_paddings(traced)
    _pad_in_convolutions(traced)
    one_output(traced, ALONE)
    _tidy(traced.eval())
    annotate_shapes(traced, tuple(sample.shape))
    check_same(traced, sample, expected)
    return traced


def _forget_assertions(graph: fx.Graph) -> None:
    """Assertions read values, and so would count as their users."""
    for node in list(graph.nodes):
        if node.op == "call_function" and "_assert" in getattr(node.target, "__name__", "") and not node.users:
            graph.erase_node(node)


def one_output(traced: fx.GraphModule, remedy: str) -> None:
    """A tuple of one output becomes that output; several are refused: which of them is to be kept, nobody said."""
    output = next(node for node in reversed(traced.graph.nodes) if node.op == "output")
    while isinstance(output.args[0], (tuple, list)):
        found = [each for each in output.args[0] if each is not None]
        if len(found) != 1:
            raise InputError(
                f"the network returns {len(found)} outputs, and one is planned for",
                remedy=remedy,
            )
        output.args = (found[0],)


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
        found = node.meta.get("tensor_meta")
        node.meta["shape"] = tuple(found.shape) if hasattr(found, "shape") else None
    _annotate_for_two(traced, sample.new_zeros(2, *sample.shape[1:]))


def _annotate_for_two(traced: fx.GraphModule, two: Tensor) -> None:
    """Write into `node.meta["for_two"]` what two images give: the shape of every tensor, and every size.

    Nothing where the network is of another number of images.
    """
    noted = _Noting(traced)
    try:
        with torch.no_grad():
            noted.run(two)
    except Exception as error:
        if lacks_memory(error):
            raise
        return
    for node, found in noted.found.items():
        node.meta["for_two"] = found


class _Noting(fx.Interpreter):
    """Runs a network, and notes the shapes of its tensors and its sizes."""

    def __init__(self, traced: fx.GraphModule) -> None:
        super().__init__(traced)
        self.found: dict[fx.Node, Any] = {}

    def run_node(self, n: fx.Node) -> Any:
        found = super().run_node(n)
        if isinstance(found, (Tensor, int, torch.Size)):
            self.found[n] = tuple(found.shape) if isinstance(found, Tensor) else found
        return found


def _plain_layers(traced: fx.GraphModule, original: nn.Module) -> None:
    """Subclasses of Conv2d and BatchNorm2d with children of their own become a plain layer and those children."""
    for node in list(traced.graph.nodes):
        if node.op == "call_function" and node.target in (torch.conv2d, nn.functional.conv2d):
            _swap_in(traced, original, node)
        if node.op == "call_function" and node.target is nn.functional.batch_norm:
            owner, path, name = _owner(original, node.args[1] if len(node.args) > 1 else None)
            if isinstance(owner, nn.BatchNorm2d) and name == "running_mean":
                _swap_norm_in(traced, path, owner, node)


def _owner(original: nn.Module, value: Any) -> tuple[nn.Module | None, str, str]:
    """The module that a value is a parameter or a buffer of, its path, and the value's name in it."""
    if not isinstance(value, fx.Node) or value.op != "get_attr":
        return None, "", ""
    path, _, name = str(value.target).rpartition(".")
    return original.get_submodule(path), path, name


def _swap_norm_in(traced: fx.GraphModule, path: str, owner: nn.BatchNorm2d, node: fx.Node) -> None:
    plain = nn.BatchNorm2d(owner.num_features, owner.eps, owner.momentum, owner.affine, device="meta")
    plain.weight, plain.bias = owner.weight, owner.bias
    for name, value in (*owner.named_buffers(recurse=False), *owner.named_children()):
        setattr(plain, name, value)
    _call_instead(traced, path, plain, node, node.args[0])


_CONVOLUTION = {"input": None, "weight": None, "bias": None, "stride": 1, "padding": 0, "dilation": 1, "groups": 1}


def _swap_in(traced: fx.GraphModule, original: nn.Module, node: fx.Node) -> None:
    """A functional convolution with a Conv2d's own weight and bias becomes that Conv2d."""
    given: dict[str, Any] = {**_CONVOLUTION, **dict(zip(_CONVOLUTION, node.args, strict=False)), **node.kwargs}
    owner, path, name = _owner(original, given["weight"])
    biased = _owner(original, given["bias"])[1:] == (path, "bias")
    if not isinstance(owner, nn.Conv2d) or name != "weight" or biased != (owner.bias is not None):
        return
    kernel_size: Any = owner.kernel_size
    plain = nn.Conv2d(
        owner.in_channels,
        owner.out_channels,
        kernel_size,
        stride=given["stride"],
        padding=given["padding"],
        dilation=given["dilation"],
        groups=given["groups"],
        bias=biased,
        device="meta",
    )
    plain.weight, plain.bias = owner.weight, owner.bias
    for child_name, child in owner.named_children():
        plain.add_module(child_name, child)
    _call_instead(traced, path, plain, node, given["input"])


def _call_instead(traced: fx.GraphModule, path: str, plain: nn.Module, node: fx.Node, given: Any) -> None:
    traced.set_submodule(path, plain)
    with traced.graph.inserting_before(node):
        call = traced.graph.call_module(path, (given,))
    call.meta = dict(node.meta)
    node.replace_all_uses_with(call)
    traced.graph.erase_node(node)


def _number_paddings(traced: fx.GraphModule) -> None:
    """Paddings by a word, "valid" or "same", as numbers, where they are the same on both sides."""
    for node in traced.graph.nodes:
        module = module_of(traced, node)
        if type(module) is nn.Conv2d and isinstance(module.padding, str) and module.padding_mode == "zeros":
            sides = zip(module.dilation, module.kernel_size, strict=True)
            total = [0 if module.padding == "valid" else dilation * (size - 1) for dilation, size in sides]
            if not any(each % 2 for each in total):
                padded = copy.copy(module)
                padded.padding = (total[0] // 2, total[1] // 2)
                traced.set_submodule(str(node.target), padded)


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
