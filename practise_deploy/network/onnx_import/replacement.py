"""The user's own file with some blocks gone and the new weights in place; all else in it stays as it is."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import numpy.typing as npt
import onnx
from onnx import helper, numpy_helper
from torch import Tensor

from practise_backends.terms import Arrays
from practise_deploy.network.graph.onnx_graph import CUT, captured
from practise_deploy.network.onnx_import.file import images_of, nodes_in
from practise_deploy.network.onnx_import.nodes import Operand
from practise_deploy.network.onnx_import.translate import Translation
from practise_deploy.terms import Block

_LISTS_WEIGHTS_AS_INPUTS = 4
"""Files below this version of the format name every weight among the inputs too."""


def replacement(translation: Translation, dropped: Sequence[Block], weights: Arrays) -> onnx.ModelProto:
    """The file without these blocks and with these weights.

    Names, order, types and shapes of inputs and outputs stay, as do opset, metadata and all nodes that compute what they did.
    weights: by state key; those that are as the file has them leave it as it is.
    """
    current = translation.network.state_dict()
    changed = {key: array for key, array in weights.items() if not _is_same(current.get(key), array)}
    if not dropped and not changed:
        return _copy(translation.file.model)
    model = _own_copy(translation)
    editor = _Editor(model)
    before = editor.live()
    for key, array in changed.items():
        layer, _, name = key.rpartition(".")
        if key in translation.operands:
            editor.set_operands(translation.operands[key], array)
        elif name == "bias" and layer in translation.layers:  # others are no weights, such as the scales of features
            editor.add_bias(translation.layers[layer], array)
    cuts = {translation.values[block.exit]: translation.values[block.entry] for block in dropped}
    for exit_ in cuts:
        editor.join(exit_, _last(exit_, cuts))
    editor.remove_dead(before)
    return model


def _is_same(current: Tensor | None, array: npt.NDArray[np.generic]) -> bool:
    """Whether a weight is as it was; a bias that was not there was zero."""
    return not array.any() if current is None else np.array_equal(current.numpy(), array)


def cuttable(translation: Translation, blocks: Iterable[Block], input_shape: Sequence[int]) -> onnx.ModelProto:
    """The file for images of one shape, with the ends of the blocks named as `onnx_graph.without_blocks` looks for them.

    Shapes: input_shape (batch, channels, height, width).
    """
    model = _own_copy(translation)
    fix_shapes(model, translation.shapes(input_shape[0], input_shape[1:]))
    ends = dict.fromkeys(name for block in blocks for name in (block.entry, block.exit))
    model.graph.node.extend(helper.make_node("Identity", [translation.values[end]], [CUT + end]) for end in ends)
    return model


def fix_shapes(model: onnx.ModelProto, shapes: Mapping[str, Sequence[int]]) -> None:
    """Let the inputs have these shapes."""
    for value in images_of(model):
        for dim, side in zip(value.type.tensor_type.shape.dim, shapes[value.name], strict=True):
            dim.dim_value = side


def _own_copy(translation: Translation) -> onnx.ModelProto:
    model = _copy(translation.file.model)
    if model.functions:  # blocks may lie across them
        from onnx.inliner import inline_local_functions

        model = inline_local_functions(model)
    return model


def _copy(model: onnx.ModelProto) -> onnx.ModelProto:
    copied = onnx.ModelProto()
    copied.CopyFrom(model)
    return copied


def _last(value: str, cuts: Mapping[str, str]) -> str:
    """What a value is replaced by in the end: the entry of a dropped block may be the exit of another one."""
    while value in cuts:
        value = cuts[value]
    return value


class _Editor:
    """Edits of a graph in place."""

    def __init__(self, model: onnx.ModelProto) -> None:
        self._model, self._graph = model, model.graph
        self._maker = {name: node for node in self._graph.node for name in node.output if name}

    def live(self) -> set[str]:
        """The first outputs of all nodes that an output depends on."""
        needed = {output.name for output in self._graph.output}
        found = set[str]()
        todo = list(needed)
        while todo:
            node = self._maker.get(todo.pop())
            if node is None or node.output[0] in found:
                continue
            found.add(node.output[0])
            todo += {*node.input, *captured(node)}
        return found

    def set_operands(self, operands: Sequence[Operand], array: npt.NDArray[np.generic]) -> None:
        """Put a weight where it stands in the file: in place, or beside it where others read the same constant."""
        by_name: dict[str, list[Operand]] = {}
        for operand in operands:
            by_name.setdefault(self._maker[operand.value].input[operand.index], []).append(operand)
        for name, readers in by_name.items():
            value = (array.T if readers[0].transposed else array).reshape(readers[0].shape)
            held = next((each for each in self._graph.initializer if each.name == name), None)
            if held is not None:
                value = value.astype(numpy_helper.to_array(held).dtype)
            if held is not None and self._uses()[name] == len(readers):
                held.CopyFrom(numpy_helper.from_array(np.ascontiguousarray(value), name))
                continue
            beside = self._new_weight(name, value)
            for reader in readers:
                self._maker[reader.value].input[reader.index] = beside

    def add_bias(self, value: str, array: npt.NDArray[np.generic]) -> None:
        """Give the layer that gives this value a bias, which it had none of."""
        node = self._maker[value]
        name = self._new_weight(f"{value}_bias", array)
        if node.op_type != "MatMul":
            del node.input[2:]
            node.input.append(name)
            return
        unbiased = self._unused(f"{value}_unbiased")
        node.output[0] = unbiased
        added = helper.make_node("Add", [unbiased, name], [value], name=self._unused(f"{node.name or value}_bias_add"))
        self._graph.node.insert(list(self._graph.node).index(node) + 1, added)
        self._maker = {each: maker for maker in self._graph.node for each in maker.output if each}

    def join(self, exit_: str, entry: str) -> None:
        """Let all that read a block's exit read its entry."""
        for node in self._graph.node:
            _rename(node, exit_, entry)
        for output in self._graph.output:
            if output.name == exit_:
                maker = self._maker[exit_]
                maker.CopyFrom(helper.make_node("Identity", [entry], [exit_], name=maker.name))

    def remove_dead(self, before: set[str]) -> None:
        """Remove the nodes that were live before and are not any more, and the weights that they alone read."""
        now = self.live()
        dead = [node for node in self._graph.node if node.output[0] in before and node.output[0] not in now]
        used_by_dead = {name for node in dead for name in {*node.input, *captured(node)}}
        gone = {name for node in dead for name in node.output}
        for node in dead:
            self._graph.node.remove(node)
        uses = self._uses()
        self._keep("initializer", lambda each: each.name not in used_by_dead or uses[each.name] > 0)
        self._keep("input", lambda each: each.name not in used_by_dead or uses[each.name] > 0)
        self._keep("value_info", lambda each: each.name not in gone)

    def _keep(self, field: str, wanted: object) -> None:
        entries = getattr(self._graph, field)
        kept = [each for each in entries if wanted(each)]  # type: ignore[operator]
        if len(kept) < len(entries):
            del entries[:]
            entries.extend(kept)

    def _uses(self) -> Counter[str]:
        """How often every value is read, by nodes, by graphs in them, and as an output."""
        uses = Counter(name for node in nodes_in(self._graph) for name in node.input)
        uses.update(output.name for output in self._graph.output)
        return uses

    def _new_weight(self, name: str, array: npt.NDArray[np.generic]) -> str:
        name = self._unused(f"{name}_refitted")
        self._graph.initializer.append(numpy_helper.from_array(np.ascontiguousarray(array), name))
        if self._model.ir_version < _LISTS_WEIGHTS_AS_INPUTS:
            kind = helper.np_dtype_to_tensor_dtype(array.dtype)
            self._graph.input.append(helper.make_tensor_value_info(name, kind, array.shape))
        return name

    def _unused(self, name: str) -> str:
        taken = {each.name for each in (*self._graph.initializer, *self._graph.input)} | self._maker.keys()
        taken |= {node.name for node in self._graph.node}
        while name in taken:
            name = re.sub(r"(_\d+)?$", lambda found: f"_{int((found[1] or '_1')[1:]) + 1}", name, count=1)
        return name


def _rename(node: onnx.NodeProto, old: str, new: str) -> None:
    """Let a node, and the graphs in it, read another value."""
    node.input[:] = [new if name == old else name for name in node.input]
    for attribute in node.attribute:
        if attribute.type == onnx.AttributeProto.GRAPH:
            for inner in attribute.g.node:
                _rename(inner, old, new)
