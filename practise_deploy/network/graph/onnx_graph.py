"""A network as ONNX: exported once, with the cuts named, so that a block is dropped there in milliseconds."""

from __future__ import annotations

import contextlib
import copy
import logging
import math
import warnings
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import onnx
import torch
from onnx.helper import tensor_dtype_to_np_dtype
from torch import Tensor, fx, nn

from practise_backends.errors import lacks_memory
from practise_deploy.errors import InputError
from practise_deploy.network.graph.operators import shape_of
from practise_deploy.network.graph.outputs import names_of, outputs_of
from practise_deploy.terms import Block

_ATTENDED = 4
"""The axes of queries: images, heads, places and width."""
CUT = "value:"
"""What the names of the values begin with that blocks are cut at."""
MOST_BYTES = 2**31
"""One message of ONNX, in which networks are measured and written, holds less."""
_INLINE_BYTES = 1024  # what is smaller (shapes, axes) stays in the graph, where shape inference reads it


def to_onnx(traced: fx.GraphModule, input_shape: Sequence[int], *, dynamic_batch: bool = False) -> onnx.ModelProto:
    """The network as ONNX with input `input` and outputs by their names, `logits` where there is one; BatchNorm is folded by the exporter.

    Shapes: input_shape (batch, channels, height, width).
    Raises: InputError naming the operator where the exporter cannot express the network.
    """
    return _export(traced, tuple(input_shape), list(names_of(traced)), dynamic_batch)


def with_splices(traced: fx.GraphModule, blocks: Iterable[Block], input_shape: Sequence[int]) -> onnx.ModelProto:
    """The network as ONNX with the blocks' entries and exits as further outputs (see `without_blocks`)."""
    cut_values = dict.fromkeys(name for block in blocks for name in (block.entry, block.exit))
    tapped = copy.deepcopy(traced)
    nodes = {node.name: node for node in tapped.graph.nodes}
    output = nodes["output"]
    output.args = ((*outputs_of(tapped), *(nodes[name] for name in cut_values)),)
    tapped.recompile()
    return _export(tapped, tuple(input_shape), [*names_of(traced), *(CUT + name for name in cut_values)], False)


def as_deployed(model: onnx.ModelProto) -> onnx.ModelProto:
    """The network from `with_splices` with its own outputs alone; `without_blocks` still finds the cuts."""
    deployed = onnx.ModelProto()
    deployed.CopyFrom(model)
    outputs = _outputs(model)
    del deployed.graph.output[:]
    deployed.graph.output.extend(outputs)
    return deployed


def _outputs(model: onnx.ModelProto) -> list[onnx.ValueInfoProto]:
    """The outputs that are not there for the cuts alone."""
    return [value for value in model.graph.output if not value.name.startswith(CUT)]


def without_blocks(model: onnx.ModelProto, dropped: Sequence[Block]) -> onnx.ModelProto:
    """The network without these blocks: consumers of their exits read their entries; dead nodes are removed.

    model: from `with_splices`, or a file's `cuttable`. Takes milliseconds where the weights are in a separate file (`externalise_weights`); others are copied.
    """
    aliases = {
        node.output[0]: node.input[0] for node in model.graph.node if node.op_type == "Identity"
    }  # one value, two names
    cuts = {_resolve(CUT + block.exit, aliases): _resolve(CUT + block.entry, aliases) for block in dropped}
    known = {name for node in model.graph.node for name in node.output} | {value.name for value in model.graph.input}
    if lost := {*cuts, *cuts.values()} - known:
        raise AssertionError(f"the network has no value {min(lost)}, at which a block begins or ends")
    replacement = {old: _resolve(new, cuts) for old, new in cuts.items()}
    replacement |= {alias: replacement[of] for alias in aliases if (of := _resolve(alias, aliases)) in replacement}
    nodes = []
    for node in model.graph.node:
        if any(name in replacement for name in node.input):
            node = copy.deepcopy(node)
            node.input[:] = [replacement.get(name, name) for name in node.input]
        nodes.append(node)
    outputs = {value.name for value in _outputs(model)}
    for name in outputs & replacement.keys():  # a block's exit is an output
        nodes = [node for node in nodes if name not in node.output]
        nodes.append(onnx.helper.make_node("Identity", [replacement[name]], [name]))
    return _assemble(model, _live_nodes(nodes, outputs))


def externalise_weights(model: onnx.ModelProto, folder: Path) -> onnx.ModelProto:
    """The same network with its weights in one file of `folder`, shared by every variant of it."""
    external = onnx.ModelProto()
    external.CopyFrom(model)
    path = folder / "shared.onnx"
    onnx.save_model(external, path, save_as_external_data=True, location="weights.bin", size_threshold=_INLINE_BYTES)
    return onnx.load(path, load_external_data=False)


def _resolve(name: str, replacement: dict[str, str]) -> str:
    while name in replacement:
        name = replacement[name]
    return name


def _live_nodes(nodes: Sequence[onnx.NodeProto], outputs: set[str]) -> list[onnx.NodeProto]:
    needed, kept = set(outputs), list[onnx.NodeProto]()
    for node in reversed(nodes):
        if needed & set(node.output):
            needed |= set(node.input) | captured(node)
            kept.append(node)
    return kept[::-1]


def captured(node: onnx.NodeProto) -> set[str]:
    """Outer values that a node's subgraphs read."""
    graphs = [a.g for a in node.attribute if a.type == onnx.AttributeProto.GRAPH]
    names = set[str]()
    for graph in graphs:
        own = {each.name for each in (*graph.input, *graph.initializer)}
        own |= {name for inner in graph.node for name in inner.output} | {""}
        read = {name for inner in graph.node for name in {*inner.input, *captured(inner)}}
        names |= (read | {output.name for output in graph.output}) - own
    return names


def _assemble(model: onnx.ModelProto, nodes: list[onnx.NodeProto]) -> onnx.ModelProto:
    used = {name for node in nodes for name in {*node.input, *captured(node)}}
    pruned = onnx.ModelProto(ir_version=model.ir_version, producer_name=model.producer_name)
    pruned.opset_import.extend(model.opset_import)
    pruned.functions.extend(model.functions)
    pruned.graph.name = model.graph.name
    pruned.graph.node.extend(nodes)
    weights = {weight.name for weight in model.graph.initializer}  # old files list those among the inputs
    pruned.graph.input.extend(value for value in model.graph.input if value.name not in weights - used)
    pruned.graph.output.extend(_outputs(model))
    pruned.graph.initializer.extend(weight for weight in model.graph.initializer if weight.name in used)
    return pruned


def _export(traced: fx.GraphModule, shape: tuple[int, ...], outputs: list[str], dynamic_batch: bool) -> onnx.ModelProto:
    parameter = next(traced.parameters(), torch.empty(0))
    traced = copy.deepcopy(traced)
    for weight in traced.parameters():  # channels last, a global pool becomes a gather that holds the batch
        weight.data = weight.data.contiguous()
    _spell_out_attention(traced)
    # a traced batch of 1 would be taken for a constant, so a dynamic one is traced at 2
    sample = torch.zeros((max(shape[0], 2) if dynamic_batch else shape[0], *shape[1:]), device=parameter.device)
    with quiet():
        try:
            program = torch.onnx.export(
                traced,
                (sample,),
                dynamo=True,
                verbose=False,
                input_names=["input"],
                output_names=outputs,
                dynamic_shapes=({0: torch.export.Dim("batch")},) if dynamic_batch else None,
            )
        except Exception as error:
            if lacks_memory(error):
                raise
            cause = str(error.__cause__ or error).strip().splitlines()
            raise InputError(
                f"the network cannot be exported to ONNX: {cause[0] if cause else type(error).__name__}",
                remedy="try without --dynamic-batch"
                if dynamic_batch
                else "replace what is named there by operators that ONNX has; inspect works without an export",
            ) from None
    assert program is not None
    model = program.model_proto
    check_size(model, "the network")
    for node in model.graph.node:
        del node.metadata_props[:]
        node.doc_string = ""
    del model.graph.value_info[:]
    return model


def check_size(model: onnx.ModelProto, what: str) -> None:
    """Refuse what does not fit into one message of ONNX.

    Raises: InputError.
    """
    tensors = [*model.graph.initializer, *(a.t for node in model.graph.node for a in node.attribute)]
    held = [(each.dims, tensor_dtype_to_np_dtype(each.data_type)) for each in tensors if each.data_type]
    size = sum(math.prod(dims) * kind.itemsize for dims, kind in held)
    if size >= MOST_BYTES:  # protobuf itself cannot tell the size of more
        raise InputError(
            f"{what} takes {size / 2**30:.1f} GiB as ONNX; networks of less than 2 GiB can be measured and written",
            remedy="give a smaller network of its family",
        )


def _spell_out_attention(traced: fx.GraphModule) -> None:
    """Attention as products and a softmax where the exporter fails on it: with a mask its own decomposition has other strides than torch's, and
    it takes four axes alone.
    """
    for node in traced.graph.nodes:
        masked = (node.args[3] if len(node.args) > 3 else node.kwargs.get("attn_mask")) is not None
        plain = not (node.kwargs.get("is_causal") or node.kwargs.get("enable_gqa") or len(node.args) > 5)
        if node.target is nn.functional.scaled_dot_product_attention and plain and (masked or _axes(node) != _ATTENDED):
            node.target = _attention
    traced.recompile()


def _axes(attention: fx.Node) -> int | None:
    """How many axes the queries have."""
    query = attention.args[0] if attention.args else attention.kwargs["query"]
    shape = shape_of(query) if isinstance(query, fx.Node) else None
    return None if shape is None else len(shape)


def _attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    scale: float | None = None,
    **_: Any,
) -> Tensor:
    """softmax(q k' scale + mask) v, by the names of torch's function; in eval mode there is no dropout.

    Shapes: query [..., queries, width], key and value [..., keys, width], attn_mask broadcast to [..., queries, keys], added or boolean.
    """
    scores = query @ key.transpose(-2, -1) * (query.shape[-1] ** -0.5 if scale is None else scale)
    if attn_mask is None:
        return scores.softmax(-1) @ value
    scores = scores.masked_fill(~attn_mask, -math.inf) if attn_mask.dtype == torch.bool else scores + attn_mask
    return scores.softmax(-1) @ value


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Silence torch's exporters and readers and ONNX Runtime's quantiser, which warn about their internals; real problems are raised as errors.

    The quantiser logs by the root.
    """
    loggers = [logging.getLogger(name) for name in ("", "torch.onnx", "torch.export", "onnxscript")]
    levels = [logger.level for logger in loggers]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        try:
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)
