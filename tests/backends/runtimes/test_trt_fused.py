"""Which layers an engine has and in which type each computes: from the builder's message and the inspector's JSON."""

from __future__ import annotations

import json

import pytest

from practise_backends.runtimes.tensorrt.fused import FusedLayer, layers_of_inspector, layers_of_message, share_in

TENSOR = "{{ Name: {name}, Dimensions: [1,3,8,8], Strides: [192,64,8,1], Datatype: {kind}, Format: (Linear) Row major linear format }}"


def line(name: str, kind: str, inputs: list[str], outputs: list[str], nodes: list[str]) -> str:
    """A layer as the builder of RTX 1.7 writes it."""
    took, gave = (
        ", ".join(TENSOR.format(name=f"t{at}", kind=each) for at, each in enumerate(types))
        for types in (inputs, outputs)
    )
    constant = TENSOR.format(name="weights", kind="Float")
    said = "".join(f"[ONNX Layer: {node}]" for node in nodes)
    return (
        f"Name: {name}, LayerType: {kind}, Inputs: [ {took}], Constants: [ {constant}], "
        f"Outputs: [ {gave}], TacticName: stub, StreamId: 0, Metadata: {said}"
    )


MESSAGE = "\n".join(
    [
        "Layers:",
        line("__myl_Cast_0", "kgen", ["Float"], ["Half"], ["conv_1", "quantise"]),
        line("conv_1_myl0_1", "correlation", ["Half", "Float"], ["Half"], ["conv_1", "relu_1"]),
        line("conv_12_myl0_2", "correlation", ["Float"], ["Float"], ["conv_12"]),
        "Name: __mye_3, LayerType: signal, Inputs: [], Constants: [], Outputs: [], TacticName: , StreamId: 0, Metadata: ",
        line("__myl_FcAdd_4", "runtime_fusion", ["Half"], ["Half"], ["linear"]),
        "",
        "I/O Tensors:",
        " Name: input, IOMode: Input, DataType: Float, Dimensions: [1,3,8,8], Location: Device",
    ]
)


def test_layers_of_the_message_have_their_types_and_nodes() -> None:
    found = layers_of_message(MESSAGE)
    assert [layer.name for layer in found] == [
        "__myl_Cast_0",
        "conv_1_myl0_1",
        "conv_12_myl0_2",
        "__mye_3",
        "__myl_FcAdd_4",
    ]
    assert found[1] == FusedLayer(
        name="conv_1_myl0_1",
        kind="correlation",
        inputs=("Half", "Float"),
        outputs=("Half",),
        nodes=("conv_1", "relu_1"),
    )
    assert (found[3].inputs, found[3].outputs, found[3].nodes) == ((), (), ())


def test_a_message_that_reads_otherwise_has_no_layers() -> None:
    assert layers_of_message("Layers:\n{}\nName of a thing\n") == ()
    assert layers_of_message("") == ()


def test_share_counts_the_layer_that_computes_and_not_the_casts_around_it() -> None:
    found = share_in("fp16", ["conv_1", "conv_12", "linear"], layers_of_message(MESSAGE))
    assert found.share == pytest.approx(2 / 3)
    assert found.others == {"conv_12": "Float"}  # and conv_1 is not taken for conv_12


def test_share_is_unknown_where_no_layer_names_a_node() -> None:
    assert share_in("fp16", ["conv_1"], ()).share is None
    assert share_in("fp16", ["absent"], layers_of_message(MESSAGE)).share is None


def test_node_that_no_layer_names_is_not_taken_for_proved() -> None:
    found = share_in("fp16", ["conv_1", "absent"], layers_of_message(MESSAGE))
    assert (found.share, found.others) == (0.5, {"absent": "unknown"})


@pytest.mark.parametrize(
    ("tensor", "kind"),
    [
        ({"Name": "x", "Format/Datatype": "Half"}, "Half"),
        ({"Name": "x", "Format/Datatype": "Channel major FP16 format where C % 8 == 0"}, "Half"),
        ({"Name": "x", "Format/Datatype": "Thirty-two wide channel vectorized row major Int8 format"}, "Int8"),
        ({"Name": "x", "Datatype": "Float", "Format": "Row major linear format"}, "Float"),
        ({"Name": "x", "Format": "Row major linear FP32"}, "Float"),
    ],
)
def test_the_inspectors_types_are_read_in_the_words_of_all_versions(tensor: dict[str, str], kind: str) -> None:
    text = json.dumps(
        {"Layers": [{"Name": "conv_1", "LayerType": "CaskConvolution", "Inputs": [tensor], "Outputs": [tensor],
                     "Metadata": "[ONNX Layer: conv_1]\x1e[ONNX Layer: relu_1]"}]}
    )  # fmt: skip
    (layer,) = layers_of_inspector(text)
    assert (layer.inputs, layer.outputs, layer.nodes) == ((kind,), (kind,), ("conv_1", "relu_1"))


@pytest.mark.parametrize("text", ["", "no JSON", "[]", '{"Layers": ["conv_1", "conv_2"]}', "[" * 70_000])
def test_an_inspector_without_details_gives_no_layers(text: str) -> None:
    assert layers_of_inspector(text) == ()
