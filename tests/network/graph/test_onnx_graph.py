"""ONNX: a block dropped in the exported graph equals a block dropped in torch, checked through onnxruntime."""

import subprocess
import sys

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from networks import tiny_mobilenet, tiny_resnet
from practise_backends.choices import Precision
from practise_deploy.deployment.precision import in_precision
from practise_deploy.network.graph.onnx_graph import (
    as_deployed,
    externalise_weights,
    to_onnx,
    with_splices,
    without_blocks,
)
from practise_deploy.network.graph.surgery import drop_blocks
from practise_deploy.network.loading.load import load_network
from practise_deploy.network.tracing.trace import trace
from practise_deploy.network.units.blocks import find_blocks
from practise_deploy.settings import Settings

torch.set_num_threads(1)  # networks this small run slower on two


class Exported:
    """A traced network with its blocks and its ONNX with cuts."""

    def __init__(self, traced, shape: tuple[int, ...]) -> None:
        self.traced, self.shape = traced, shape
        self.blocks = {block.name: block for block in find_blocks(traced, shape) if block.droppable}
        self.model = with_splices(traced, self.blocks.values(), shape)

    def gap(self, names: tuple[str, ...]) -> float:
        """Largest difference between dropping in ONNX and dropping in torch."""
        dropped = [self.blocks[name] for name in names]
        x = torch.randn(self.shape, generator=torch.Generator().manual_seed(1))
        with torch.no_grad():
            expected = drop_blocks(self.traced, dropped)(x).numpy()
        return float(np.abs(run(without_blocks(self.model, dropped), x.numpy()) - expected).max())


def run(model: onnx.ModelProto, x: np.ndarray) -> np.ndarray:
    onnx.checker.check_model(model)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    assert [i.name for i in session.get_inputs()] == ["input"] and [o.name for o in session.get_outputs()] == ["logits"]
    return session.run(["logits"], {"input": x})[0]


def operators(model: onnx.ModelProto) -> list[str]:
    return [node.op_type for node in model.graph.node]


@pytest.fixture(scope="module")
def exported():
    kept = {}

    def get(name: str) -> Exported:
        if name not in kept:
            if name == "digits":
                network = load_network(Settings())
                kept[name] = Exported(network.traced, network.input_shape)
            else:
                make, side = {"resnet": (tiny_resnet, 16), "mobilenet": (tiny_mobilenet, 32)}[name]
                shape = (1, 3, side, side)
                kept[name] = Exported(trace(make(), shape)[0], shape)
        return kept[name]

    return get


@pytest.mark.parametrize(
    "name, gone",
    [
        ("digits", ()),
        ("digits", ("layer1.0",)),
        ("digits", ("layer1.0", "layer1.1")),
        ("digits", ("layer1.1", "layer1.2")),
        ("digits", ("layer3.2",)),
        ("digits", ("layer3.1", "layer3.2")),
        ("resnet", ("layer1.0", "layer1.1", "layer1.2")),
        ("resnet", ("layer2.2", "layer2.1")),
        ("resnet", ("layer1.1", "layer3.2")),
        ("mobilenet", ("features.1",)),
        ("mobilenet", ("features.3", "features.4")),
        ("mobilenet", ("features.6", "features.7")),
        ("mobilenet", ("features.1", "features.3", "features.4", "features.6", "features.7")),
    ],
)
def test_dropping_in_onnx_equals_dropping_in_torch(name, gone, exported):
    assert exported(name).gap(gone) < 1e-4


def test_dropped_blocks_leave_no_node_and_no_weight_behind(exported):
    it = exported("resnet")
    whole, cut = without_blocks(it.model, []), without_blocks(it.model, [it.blocks["layer1.1"], it.blocks["layer3.2"]])
    assert operators(whole).count("Conv") - operators(cut).count("Conv") == 4
    assert operators(whole).count("Add") - operators(cut).count("Add") == 2
    assert len(whole.graph.initializer) - len(cut.graph.initializer) == 8
    made = (
        {name for node in cut.graph.node for name in node.output} | {i.name for i in cut.graph.initializer} | {"input"}
    )
    assert {name for node in cut.graph.node for name in node.input if name} <= made


def test_cutting_leaves_the_model_with_cuts_untouched(exported):
    it = exported("mobilenet")
    before = it.model.SerializeToString()
    without_blocks(it.model, list(it.blocks.values()))
    assert it.model.SerializeToString() == before


@pytest.mark.parametrize("gone", [(), ("layer1.1", "layer3.2")])
def test_network_that_shed_its_weights_computes_the_same(gone, exported, tmp_path):
    it = exported("resnet")
    dropped = [it.blocks[name] for name in gone]
    path = tmp_path / "variant.onnx"
    path.write_bytes(without_blocks(externalise_weights(it.model, tmp_path), dropped).SerializeToString())
    x = np.random.default_rng(1).normal(size=it.shape).astype(np.float32)
    whole = onnx.load(path)  # takes the weights in again
    assert np.array_equal(run(whole, x), run(without_blocks(it.model, dropped), x))


def test_shed_weights_lie_in_one_file_and_what_is_small_stays(exported, tmp_path):
    it = exported("mobilenet")
    before = it.model.SerializeToString()
    light = externalise_weights(it.model, tmp_path)
    assert it.model.SerializeToString() == before
    assert {path.name for path in tmp_path.iterdir()} == {"shared.onnx", "weights.bin"}
    heavy = {w.name for w in it.model.graph.initializer if len(w.raw_data) >= 1024}
    shed = {w.name for w in light.graph.initializer if w.data_location == onnx.TensorProto.EXTERNAL}
    assert heavy and shed == heavy
    assert light.ByteSize() < len(before) / 2


def test_variants_of_a_network_that_shed_its_weights_name_the_same_file(exported, tmp_path):
    it = exported("resnet")
    cut = without_blocks(externalise_weights(it.model, tmp_path), [it.blocks["layer2.1"]])
    places = {e.value for w in cut.graph.initializer for e in w.external_data if e.key == "location"}
    assert places == {"weights.bin"}


@pytest.mark.parametrize("name", ["digits", "resnet", "mobilenet"])
def test_no_batch_normalisation_is_left(name, exported):
    it = exported(name)
    assert "BatchNormalization" not in operators(without_blocks(it.model, []))
    assert "BatchNormalization" not in operators(to_onnx(it.traced, it.shape))


def test_plain_export_equals_the_network_and_has_the_asked_batch(exported):
    it = exported("resnet")
    x = torch.randn((4, *it.shape[1:]), generator=torch.Generator().manual_seed(1))
    model = to_onnx(it.traced, x.shape)
    with torch.no_grad():
        assert np.abs(run(model, x.numpy()) - it.traced(x).numpy()).max() < 1e-4
    assert [d.dim_value for d in model.graph.input[0].type.tensor_type.shape.dim] == [4, 3, 16, 16]


def test_memory_format_of_the_weights_leaves_no_trace_in_the_export():
    """Channels last, torch's exporter writes a global pool as a gather with the batch in it."""
    shape = (1, 3, 16, 16)
    network = tiny_resnet().to(memory_format=torch.channels_last)
    traced = trace(network, shape)[0]
    model = to_onnx(traced, shape)
    assert "Gather" not in operators(model)
    assert traced.get_parameter("conv1.weight").is_contiguous(memory_format=torch.channels_last)


def test_dynamic_batch_takes_any_number_of_images(exported):
    it = exported("resnet")
    model = to_onnx(it.traced, it.shape, dynamic_batch=True)
    assert model.graph.input[0].type.tensor_type.shape.dim[0].dim_param
    for images in (1, 2, 5):
        x = torch.randn((images, *it.shape[1:]), generator=torch.Generator().manual_seed(1))
        with torch.no_grad():
            assert np.abs(run(model, x.numpy()) - it.traced(x).numpy()).max() < 1e-4


class Bare(nn.Module):
    """Units from the very input to the very output."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 3, 3, padding=1), nn.Conv2d(3, 3, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.first(x)
        return x + self.second(F.relu(x))


@pytest.mark.parametrize("gone", [("add",), ("add_1",)])
def test_block_at_the_very_input_or_output_can_go(gone):
    shape = (1, 3, 8, 8)
    assert Exported(trace(Bare().eval(), shape)[0], shape).gap(gone) < 1e-5


@pytest.mark.parametrize("kind", ["added", "boolean", "none by place"])
def test_attention_with_a_mask_is_exported_as_it_is_computed(kind: str):
    """torch's own MultiheadAttention, and with it torchvision's ViT, gives a mask of None by its place."""

    class Attends(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.qkv, self.mask = nn.Linear(8, 24), nn.Parameter(torch.randn(1, 2, 16, 16))

        def forward(self, x: Tensor) -> Tensor:
            q, k, v = self.qkv(x.flatten(2).transpose(1, 2)).reshape(-1, 16, 3, 2, 4).permute(2, 0, 3, 1, 4).unbind(0)
            if kind == "none by place":
                states = nn.functional.scaled_dot_product_attention(q, k, v, None)
            else:
                mask = self.mask > 0 if kind == "boolean" else self.mask
                states = nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=mask)
            return states.transpose(1, 2).reshape(-1, 16, 8)

    traced, _ = trace(Attends().eval(), (1, 8, 4, 4))
    x = torch.randn(1, 8, 4, 4)
    with torch.no_grad():
        np.testing.assert_allclose(run(to_onnx(traced, x.shape), x.numpy()), traced(x).numpy(), rtol=1e-4, atol=1e-5)


@pytest.mark.skipif(sys.platform != "linux", reason="sets the limit of memory by what /proc says of the process")
def test_protobuf_without_memory_is_known_to_lack_it():
    script = """
import resource
import onnx
from practise_backends.errors import lacks_memory
tensor = onnx.TensorProto(data_type=1, dims=[2**25], raw_data=bytes(2**27))
held = int(open("/proc/self/status").read().split("VmData:")[1].split()[0]) * 1024
resource.setrlimit(resource.RLIMIT_DATA, (held + 2**26, held + 2**26))
try:
    tensor.SerializeToString()
except BaseException as error:
    print(lacks_memory(error))
"""
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert ended.stdout == "True\n", ended.stderr


def test_network_whose_blocks_have_lost_their_ends_is_not_measured_whole(exported):
    it = exported("resnet")
    model = onnx.ModelProto()
    model.CopyFrom(as_deployed(it.model))
    ends = [node for node in model.graph.node if node.output[0].startswith("value:")]
    assert ends, "the ends of the blocks are named by nodes that nothing reads"
    for node in ends:
        model.graph.node.remove(node)
    with pytest.raises(AssertionError, match="has no value value:"):
        without_blocks(model, list(it.blocks.values()))


@pytest.mark.parametrize(
    ("precision", "symmetric"), [(Precision.FP16, False), (Precision.INT8, False), (Precision.INT8, True)]
)
@pytest.mark.parametrize("name", ["resnet", "mobilenet"])
def test_blocks_are_dropped_from_a_network_in_fewer_bits(exported, name, precision, symmetric):
    it = exported(name)
    lowered = in_precision(as_deployed(it.model), precision, None, symmetric=symmetric)
    for dropped in ([], list(it.blocks.values())[:1], list(it.blocks.values())):
        counts = [operators(without_blocks(each, dropped)).count("Conv") for each in (it.model, lowered)]
        assert counts[0] == counts[1]
