"""The user's own file, without blocks and with other weights: it computes what the student does, and is the same in all else."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import fx, nn

from networks import tiny_convnext, tiny_mobilenet, tiny_resnet, tiny_swin, tiny_transformer
from practise_backends.choices import Precision
from practise_deploy.deployment.precision import in_precision
from practise_deploy.images.calibration import CalibrationProblem
from practise_deploy.network.graph.activations import find_feature
from practise_deploy.network.graph.onnx_graph import without_blocks
from practise_deploy.network.graph.surgery import drop_blocks, load_weights, weights_of
from practise_deploy.network.loading.load import load_network
from practise_deploy.network.onnx_import.file import read_onnx
from practise_deploy.network.onnx_import.replacement import cuttable, replacement
from practise_deploy.network.onnx_import.translate import Translation, translate
from practise_deploy.network.tracing.trace import annotate_shapes
from practise_deploy.network.units.blocks import find_blocks
from practise_deploy.refit.recover import recover
from practise_deploy.settings import Settings
from practise_deploy.terms import Block
from samples.exporting import Export
from samples.lessons import Silent, images
from samples.onnx_files import computed, ints, model_of, noise, translated

torch.set_num_threads(1)
MAKERS = {
    "resnet": (tiny_resnet, 16),
    "mobilenet": (tiny_mobilenet, 32),
    "convnext": (tiny_convnext, 32),
    "transformer": (tiny_transformer, 16),
    "swin": (tiny_swin, 16),
}


@dataclass(frozen=True)
class Case:
    """A file, its translation and its blocks."""

    model: onnx.ModelProto
    translation: Translation
    blocks: tuple[Block, ...]
    shape: tuple[int, int, int, int]

    def student(self, dropped: Sequence[Block]) -> fx.GraphModule:
        return drop_blocks(self.translation.network, dropped)

    def pixels(self, count: int = 3) -> np.ndarray:
        return noise(count, *self.shape[1:], seed=5)


def case_of(model: onnx.ModelProto, folder: Path, side: int) -> Case:
    translation = translated(model, folder, (side, side))
    shape = (1, translation.file.shape[0] or 3, side, side)
    annotate_shapes(translation.network, shape)
    blocks = tuple(block for block in find_blocks(translation.network, shape) if block.droppable)
    return Case(model, translation, blocks, shape)


def exported(name: str, way: Export, folder: Path) -> Case:
    make, side = MAKERS[name]
    model = way.of(make(), (1, 3, side, side))
    model.producer_name, model.doc_string, model.graph.doc_string = "the user's", "about it", "about the graph"
    model.metadata_props.add(key="author", value="somebody")
    model.graph.node.append(helper.make_node("Mul", ["pixels", "unused_weight"], ["unused"], name="dead before"))
    model.graph.initializer.append(numpy_helper.from_array(noise(3, 1, 1), "unused_weight"))
    return case_of(model, folder, side)


def change(case: Case, student: fx.GraphModule, *, with_biases: bool) -> None:
    """Other weights and statistics; layers that had no bias get one."""
    generator = torch.Generator().manual_seed(1)
    for module in student.modules():
        if with_biases and isinstance(module, nn.Conv2d | nn.Linear) and module.bias is None:
            module.bias = nn.Parameter(torch.randn(module.weight.shape[0], generator=generator) / 10)
    for key, value in student.state_dict().items():
        if key in case.translation.operands:
            value.mul_(1 + torch.rand(value.shape, generator=generator) / 5)


def agree(model: onnx.ModelProto, student: fx.GraphModule, pixels: np.ndarray) -> None:
    onnx.checker.check_model(model, full_check=True)
    with torch.no_grad():
        expected = student(torch.from_numpy(pixels)).numpy()
    np.testing.assert_allclose(computed(model, pixels)[0], expected, rtol=1e-3, atol=1e-4 * np.abs(expected).max())


def ends_are_kept(before: onnx.ModelProto, after: onnx.ModelProto) -> None:
    """All that a caller of the file goes by."""
    assert [*after.graph.output] == [*before.graph.output]
    weights = {weight.name for weight in before.graph.initializer}
    pictures = [value for value in before.graph.input if value.name not in weights]
    assert [value for value in after.graph.input if value.name in {each.name for each in pictures}] == pictures
    assert [*after.opset_import] == [*before.opset_import] and [*after.metadata_props] == [*before.metadata_props]
    for name in ("ir_version", "producer_name", "producer_version", "domain", "model_version", "doc_string"):
        assert getattr(after, name) == getattr(before, name)
    assert after.graph.name == before.graph.name and after.graph.doc_string == before.graph.doc_string
    if before.ir_version < 4:
        assert {weight.name for weight in after.graph.initializer} <= {value.name for value in after.graph.input}


WAYS = {
    "resnet": (
        Export(False, 9),
        Export(False, 13, "batch", folded=False),
        Export(False, 11, "sides"),
        Export(True, 18),
    ),
    "mobilenet": (Export(False, 13, "batch"), Export(False, 9, folded=False), Export(True, 20, "batch")),
    "convnext": (Export(False, 17, "batch"), Export(True, 18)),
    "transformer": (Export(False, 17), Export(True, 20, "batch")),
    "swin": (Export(False, 17, folded=False), Export(True, 18)),
}
DROPS = {"first two": slice(0, 2), "last": slice(-1, None), "ends": slice(0, None, 100), "all": slice(None)}


@pytest.mark.parametrize(
    "name, way", [pytest.param(name, way, id=f"{name}, {way}") for name in WAYS for way in WAYS[name]]
)
def test_file_computes_what_the_student_does(name: str, way: Export, tmp_path: Path):
    case = exported(name, way, tmp_path)
    before = case.model.SerializeToString()
    for part in DROPS.values():
        dropped = case.blocks[part]
        student = case.student(dropped)
        plain = replacement(case.translation, dropped, weights_of(student))
        agree(plain, student, case.pixels())
        only_what_is_gone_differs(case, plain, dropped)
        for with_biases in (False, True):
            change(case, student, with_biases=with_biases)
            refitted = replacement(case.translation, dropped, weights_of(student))
            agree(refitted, student, case.pixels())
            ends_are_kept(case.model, refitted)
            assert "dead before" in [node.name for node in refitted.graph.node]
    assert case.translation.file.model.SerializeToString() == before


def only_what_is_gone_differs(case: Case, after: onnx.ModelProto, dropped: Sequence[Block]) -> None:
    """Nodes that stay are bit for bit the same, but for those that read a dropped block's exit; so are all weights."""
    ends_are_kept(case.model, after)
    exits = {case.translation.values[block.exit] for block in dropped}
    before = {node.output[0]: node for node in case.model.graph.node}
    for node in after.graph.node:
        if not exits & {*before[node.output[0]].input, *node.output}:
            assert node == before[node.output[0]]
    weights = {weight.name: weight for weight in case.model.graph.initializer}
    assert all(weight == weights[weight.name] for weight in after.graph.initializer)
    assert len(after.graph.node) < len(case.model.graph.node)
    assert [node.name for node in after.graph.node] == [
        node.name
        for node in case.model.graph.node
        if node.output[0] in {made for each in after.graph.node for made in each.output}
    ]
    assert {"dead before"} <= {node.name for node in after.graph.node} and "unused_weight" in {
        w.name for w in after.graph.initializer
    }


@pytest.mark.parametrize("name", ["resnet", "transformer"])
def test_file_that_nothing_is_changed_in_keeps_its_bytes(name: str, tmp_path: Path):
    case = exported(name, Export(False, 17, "batch"), tmp_path)
    unchanged = replacement(case.translation, (), weights_of(case.translation.network))
    assert unchanged.SerializeToString() == case.translation.file.path.read_bytes()


@pytest.mark.parametrize("name", ["resnet", "mobilenet", "transformer"])
def test_refit_in_closed_form_is_in_the_file(name: str, tmp_path: Path):
    case = exported(name, Export(False, 17, "batch"), tmp_path)
    teacher, dropped = case.translation.network, case.blocks[1:3]
    lesson = CalibrationProblem(teacher=teacher, feature=find_feature(teacher).name, images=images(24, case.shape))
    refitted = recover(lesson, dropped, Silent())
    student = case.student(dropped)
    load_weights(student, refitted.weights)
    assert any(
        not np.array_equal(value, teacher.state_dict()[key].numpy())
        for key, value in refitted.weights.items()
        if key in teacher.state_dict()
    )
    model = replacement(case.translation, dropped, refitted.weights)
    agree(model, student, case.pixels())
    ends_are_kept(case.model, model)


def test_every_set_can_be_cut_to_be_measured(tmp_path: Path):
    for name, way in (("resnet", Export(False, 11, "sides")), ("transformer", Export(True, 18))):
        case = exported(name, way, tmp_path)
        model = cuttable(case.translation, case.blocks, case.shape)
        for dropped in ((), case.blocks[:1], case.blocks[1:4], case.blocks):
            cut = without_blocks(model, dropped)
            agree(cut, case.student(dropped), case.pixels())
            assert [value.name for value in cut.graph.output] == ["scores"]
            assert [dim.dim_value for dim in cut.graph.input[0].type.tensor_type.shape.dim] == [*case.shape]


@pytest.mark.parametrize(
    ("precision", "symmetric"), [(Precision.FP16, False), (Precision.INT8, False), (Precision.INT8, True)]
)
def test_every_set_can_be_cut_in_fewer_bits(precision: Precision, symmetric: bool, tmp_path: Path):
    for name, way in (("resnet", Export(False, 13)), ("transformer", Export(True, 18))):
        case = exported(name, way, tmp_path)
        model = cuttable(case.translation, case.blocks, case.shape)
        lowered = in_precision(model, precision, None, symmetric=symmetric)
        counts = [
            [layers_of(without_blocks(each, dropped)) for dropped in ((), case.blocks[:1], case.blocks)]
            for each in (model, lowered)
        ]
        assert counts[0] == counts[1] and counts[0][0] > counts[0][1] > counts[0][2]


def layers_of(model: onnx.ModelProto) -> int:
    return sum(node.op_type in ("Conv", "MatMul", "Gemm") for node in model.graph.node)


# Files that are written in other ways


def residual(
    *, opset: int = 13, ir_version: int = 8, end: str = "convolution", shared: bool = False
) -> onnx.ModelProto:
    """Three units of a convolution, a normalisation and a rectifier. end: what comes behind them. shared: one kernel for all."""
    nodes, weights = (
        [helper.make_node("Conv", ["images", "stem"], ["x0"], pads=[1] * 4, name="stem")],
        {"stem": noise(4, 3, 3, 3) / 3},
    )
    for number in (1, 2, 3):
        kernel = "kernel" if shared else f"kernel{number}"
        weights |= {kernel: noise(4, 4, 3, 3, seed=0 if shared else number) / 6}
        norm = {f"{each}{number}": noise(4, seed=10 + number) for each in ("scale", "shift", "mean")}
        weights |= {**norm, f"var{number}": noise(4, seed=20 + number) ** 2 + 0.5}
        source = f"x{number - 1}"
        nodes += [
            helper.make_node("Conv", [source, kernel], [f"c{number}"], pads=[1] * 4, name=f"unit{number}/conv"),
            helper.make_node(
                "BatchNormalization", [f"c{number}", *norm, f"var{number}"], [f"n{number}"], name=f"unit{number}/norm"
            ),
            helper.make_node("Relu", [f"n{number}"], [f"r{number}"], name=f"unit{number}/relu"),
            helper.make_node("Add", [f"r{number}", source], [f"x{number}"], name=f"unit{number}/add"),
        ]
    nodes.append(
        helper.make_node("Conv", ["x3", "last"], ["result"], name="last")
        if end == "convolution"
        else helper.make_node("Identity", ["x3"], ["result"])
    )
    if end == "output":
        nodes.pop()
        nodes[-1].output[0] = "result"
    weights |= {"last": noise(2, 4, 1, 1)} if end == "convolution" else {}
    model = model_of(nodes, weights, opset=opset)
    model.ir_version = ir_version
    if ir_version < 4:
        model.graph.input.extend(
            helper.make_tensor_value_info(each.name, TensorProto.FLOAT, each.dims) for each in model.graph.initializer
        )
    return model


def with_constants(model: onnx.ModelProto) -> onnx.ModelProto:
    """The same, its weights as nodes."""
    nodes = [
        helper.make_node("Constant", [], [each.name], value=each, name=f"held {each.name}")
        for each in model.graph.initializer
    ]
    nodes += model.graph.node
    del model.graph.initializer[:], model.graph.node[:]
    model.graph.node.extend(nodes)
    return model


@pytest.mark.parametrize(
    "model",
    [
        pytest.param(residual(), id="plain"),
        pytest.param(residual(opset=8, ir_version=3), id="IR version 3 and opset 8"),
        pytest.param(residual(opset=9, ir_version=3), id="IR version 3"),
        pytest.param(with_constants(residual()), id="weights as nodes"),
        pytest.param(residual(shared=True), id="one kernel for all"),
        pytest.param(residual(shared=True, ir_version=3, opset=9), id="one kernel for all, IR version 3"),
        pytest.param(residual(end="output"), id="an exit is the output"),
        pytest.param(residual(end="identity"), id="an exit is the output by another name"),
    ],
)
def test_way_of_writing_makes_no_difference(model: onnx.ModelProto, tmp_path: Path):
    case = case_of(model, tmp_path, 8)
    assert len(case.blocks) == 3
    for dropped in ((), case.blocks[:2], case.blocks[2:], case.blocks):
        student = case.student(dropped)
        agree(replacement(case.translation, dropped, weights_of(student)), student, case.pixels())
        for with_biases in (False, True):
            change(case, student, with_biases=with_biases)
            model = replacement(case.translation, dropped, weights_of(student))
            agree(model, student, case.pixels())
            ends_are_kept(case.model, model)
            read = {name for node in model.graph.node for name in node.input}
            assert {weight.name for weight in model.graph.initializer} <= read


def test_weight_that_two_nodes_train_is_changed_once(tmp_path: Path):
    nodes = [
        helper.make_node("Conv", ["images", "w"], ["a"]),
        helper.make_node("Mul", ["a", "s"], ["b"]),
        helper.make_node("Relu", ["b"], ["c"]),
        helper.make_node("Mul", ["c", "s"], ["d"]),
        helper.make_node("Where", ["yes", "d", "s"], ["result"]),
    ]
    weights = {"w": noise(4, 3, 1, 1), "s": noise(4, 1, 1), "yes": np.arange(8) % 2 == 0}
    case = case_of(model_of(nodes, weights), tmp_path, 8)
    student = case.student(())
    (key,) = [name for name, _ in student.named_parameters() if name.startswith("weights.")]
    state = {**weights_of(student), key: noise(4, 1, 1, seed=3)}
    load_weights(student, state)
    model = replacement(case.translation, (), state)
    agree(model, student, case.pixels())
    assert len(model.graph.initializer) == 4, "what chooses by the old values keeps them"


def test_values_whose_names_are_alike_are_not_mistaken(tmp_path: Path):
    nodes = [
        helper.make_node("Mul", ["images", "a.b"], ["x"], name="unit/mul"),
        helper.make_node("Add", ["x", "a/b"], ["y"], name="unit.mul"),
        helper.make_node("Add", ["y", "a_b"], ["result"], name="unit_mul"),
    ]
    case = case_of(
        model_of(nodes, {"a.b": noise(3, 1, 1), "a/b": noise(3, 1, 1, seed=1), "a_b": noise(8)}), tmp_path, 8
    )
    student = case.student(())
    agree(case.model, student, case.pixels())
    change(case, student, with_biases=False)
    agree(replacement(case.translation, (), weights_of(student)), student, case.pixels())


def test_bias_of_a_linear_layer_becomes_an_operand_or_a_sum(tmp_path: Path):
    nodes = [
        helper.make_node("Flatten", ["images"], ["rows"]),
        helper.make_node("Gemm", ["rows", "w"], ["a"], transB=1),
        helper.make_node("Relu", ["a"], ["b"]),
        helper.make_node("MatMul", ["b", "v"], ["c"], name="product"),
        helper.make_node("Relu", ["c"], ["result"]),
    ]
    case = case_of(model_of(nodes, {"w": noise(5, 192), "v": noise(5, 4)}), tmp_path, 8)
    student = case.student(())
    change(case, student, with_biases=True)
    model = replacement(case.translation, (), weights_of(student))
    agree(model, student, case.pixels())
    assert [node.op_type for node in model.graph.node] == ["Flatten", "Gemm", "Relu", "MatMul", "Add", "Relu"]


def test_blocks_are_cut_where_a_graph_within_a_node_reads_them(tmp_path: Path):
    branches = {
        name: helper.make_graph(
            [helper.make_node(kind, ["x3"], [name])], name, [], [helper.make_empty_tensor_value_info(name)]
        )
        for name, kind in (("then_branch", "Relu"), ("else_branch", "Neg"))
    }
    model = residual(end="identity")
    model.graph.node[-1].CopyFrom(helper.make_node("If", ["yes"], ["result"], name="choice", **branches))
    model.graph.initializer.append(numpy_helper.from_array(np.array(True), "yes"))
    case = case_of(model, tmp_path, 8)
    for dropped in (case.blocks[1:], case.blocks[:1]):
        student = case.student(dropped)
        agree(replacement(case.translation, dropped, weights_of(student)), student, case.pixels())


def test_functions_of_a_file_are_written_out_where_it_is_edited(tmp_path: Path):
    model = residual()
    domain = "own"
    act = helper.make_function(
        domain,
        "Act",
        ["x"],
        ["y"],
        [helper.make_node("Sigmoid", ["x"], ["s"]), helper.make_node("Mul", ["x", "s"], ["y"])],
        [helper.make_opsetid("", 13)],
    )
    model.functions.append(act)
    model.opset_import.append(helper.make_opsetid(domain, 1))
    for node in model.graph.node:
        if node.op_type == "Relu":
            node.op_type, node.domain = "Act", domain
    case = case_of(model, tmp_path, 8)
    student = case.student(case.blocks[:2])
    change(case, student, with_biases=True)
    edited = replacement(case.translation, case.blocks[:2], weights_of(student))
    agree(edited, student, case.pixels())
    assert replacement(case.translation, (), {}).SerializeToString() == model.SerializeToString()


def test_reshape_of_a_file_for_one_image_stays_for_one(tmp_path: Path):
    nodes = [*residual().graph.node, helper.make_node("Reshape", ["features", "target"], ["result"])]
    nodes[-2].output[0] = "features"
    weights = {each.name: numpy_helper.to_array(each) for each in residual().graph.initializer}
    case = case_of(model_of(nodes, {**weights, "target": ints(1, -1)}, opset=13, batch=1), tmp_path, 8)
    student = case.student(case.blocks[:1])
    agree(replacement(case.translation, case.blocks[:1], weights_of(student)), student, case.pixels())


def test_what_is_in_a_branch_is_neither_cut_nor_trained(tmp_path: Path):
    units = residual(end="identity")
    initializers = [*units.graph.initializer]
    del units.graph.initializer[:]
    inner = [*units.graph.node][1:9]
    then = helper.make_graph(inner, "then", [], [helper.make_empty_tensor_value_info("x2")])
    otherwise = helper.make_graph(
        [helper.make_node("Neg", ["x0"], ["other"])], "else", [], [helper.make_empty_tensor_value_info("other")]
    )
    branching = helper.make_node("If", ["yes"], ["y"], then_branch=then, else_branch=otherwise, name="choice")
    nodes = [units.graph.node[0], branching, *[*units.graph.node][9:]]
    for node in nodes[2:]:
        node.input[:] = ["y" if name == "x2" else name for name in node.input]
    weights = {each.name: numpy_helper.to_array(each) for each in initializers}
    translation = translated(model_of(nodes, {**weights, "yes": np.array(True)}), tmp_path, (8, 8))
    annotate_shapes(translation.network, (1, 3, 8, 8))
    blocks = find_blocks(translation.network, (1, 3, 8, 8))
    assert len(blocks) == 1 and blocks[0].droppable, "what is in a branch is not trained, and so no block"
    student = drop_blocks(translation.network, blocks)
    case = Case(translation.file.model, translation, blocks, (1, 3, 8, 8))
    change(case, student, with_biases=False)
    agree(replacement(translation, blocks, weights_of(student)), student, case.pixels())


def test_weights_in_a_file_beside_it_are_read(tmp_path: Path):
    model = residual()
    onnx.save_model(
        model, tmp_path / "outside.onnx", save_as_external_data=True, location="weights.bin", size_threshold=0
    )
    translation = translate(read_onnx(tmp_path / "outside.onnx"), (3, 8, 8))
    agree(replacement(translation, (), {}), translation.network, noise(2, 3, 8, 8))


def test_file_for_four_images_is_compared_with_four(tmp_path: Path):
    nodes = [*residual(end="output").graph.node]
    weights = {each.name: numpy_helper.to_array(each) for each in residual(end="output").graph.initializer}
    path = tmp_path / "four.onnx"
    path.write_bytes(model_of(nodes, weights, batch=4).SerializeToString())
    network = load_network(Settings(network=str(path)))
    assert network.translation is not None and network.translation.file.batch == 4
