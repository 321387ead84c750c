"""Files of torch.export: inspected, measured and cut, never finetuned."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from networks import tiny_resnet
from practise_deploy.errors import InputError
from practise_deploy.network.graph.onnx_graph import to_onnx, with_splices, without_blocks
from practise_deploy.network.loading.load import load_network
from practise_deploy.network.units.blocks import find_blocks
from practise_deploy.settings import Settings
from practise_deploy.terms import TaskKind

torch.set_num_threads(1)  # networks this small run slower on two
NETWORKS = Path(__file__).parents[2] / "networks.py"
TINY = f"{NETWORKS}:tiny_resnet"


def load(network: str = TINY, **more):
    return load_network(Settings(network=network, **{"input_size": 16, **more}))


def test_weights_beside_an_export_file_are_refused_and_not_ignored(tmp_path: Path):
    (tmp_path / "a.pt2").write_bytes(b"")
    with pytest.raises(InputError, match="has its weights in it"):
        load_network(Settings(network=str(tmp_path / "a.pt2"), weights=tmp_path / "w.pt"))


@pytest.fixture(scope="module")
def exported_file(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("pt2") / "tiny.pt2"
    torch.export.save(torch.export.export(tiny_resnet(), (torch.zeros(1, 3, 16, 16),)), path)
    return path


def test_export_file_has_the_blocks_of_the_network_it_was_made_from(exported_file: Path):
    network, source = load_network(Settings(network=str(exported_file))), load()
    expected = [
        (b.name, b.shape, b.parameters, b.macs, b.droppable) for b in find_blocks(source.traced, source.input_shape)
    ]
    found = find_blocks(network.traced, network.input_shape)
    assert [(b.name, b.shape, b.parameters, b.macs, b.droppable) for b in found] == expected
    assert not network.trainable and network.input_shape == (1, 3, 16, 16)
    assert (network.summary.parameters, network.summary.macs, network.summary.output_classes) == (
        source.summary.parameters,
        source.summary.macs,
        10,
    )


def test_block_of_an_export_file_is_dropped_in_onnx(exported_file: Path):
    import onnxruntime

    network = load_network(Settings(network=str(exported_file)))
    block = next(b for b in find_blocks(network.traced, network.input_shape) if b.name == "layer2.1")
    model = without_blocks(with_splices(network.traced, [block], network.input_shape), [block])
    by_hand = tiny_resnet()
    by_hand.layer2[1] = nn.Identity()
    x = torch.randn(1, 3, 16, 16, generator=torch.Generator().manual_seed(1))
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    with torch.no_grad():
        assert np.abs(session.run(None, {"input": x.numpy()})[0] - by_hand(x).numpy()).max() < 1e-4
    assert "BatchNormalization" not in {n.op_type for n in to_onnx(network.traced, network.input_shape).graph.node}


def test_broken_export_file_is_an_error_that_names_it(tmp_path: Path):
    (tmp_path / "a.pt2").write_bytes(b"nothing of the kind")
    with pytest.raises(InputError, match=r"a\.pt2 is no torch.export file"):
        load_network(Settings(network=str(tmp_path / "a.pt2")))


@pytest.mark.parametrize(
    ("network", "x", "said"),
    [
        (lambda: nn.Linear(8, 2), torch.zeros(1, 8), r"float32\[1, 8\]"),
        (lambda: tiny_resnet().half(), torch.zeros(1, 3, 16, 16).half(), r"float16\[1, 3, 16, 16\]"),
    ],
    ids=["no images", "half"],
)
def test_export_file_of_other_inputs_is_an_error_that_says_which(tmp_path: Path, network, x, said):
    torch.export.save(torch.export.export(network().eval(), (x,)), tmp_path / "a.pt2")
    with pytest.raises(InputError, match=f"takes {said}, not images"):
        load_network(Settings(network=str(tmp_path / "a.pt2")))


def test_export_file_with_a_dynamic_batch_is_understood(tmp_path: Path):
    program = torch.export.export(
        tiny_resnet(), (torch.zeros(2, 3, 16, 16),), dynamic_shapes=({0: torch.export.Dim("batch")},)
    )
    torch.export.save(program, tmp_path / "d.pt2")
    network = load_network(Settings(network=str(tmp_path / "d.pt2")))
    assert network.input_shape == (1, 3, 16, 16)
    assert sum(b.droppable for b in find_blocks(network.traced, network.input_shape)) == 7


class Several(nn.Module):
    def __init__(self, wrap) -> None:
        super().__init__()
        self.network, self.wrap = tiny_resnet(), wrap

    def forward(self, x):
        return self.wrap(self.network(x), x.mean((2, 3)))


@pytest.mark.parametrize(
    "wrap",
    [lambda y, means: [y, means], lambda y, means: {"means": means, "logits": y}, lambda y, means: ((means, None), y)],
    ids=["list", "dict", "nested"],
)
def test_export_file_of_several_outputs_keeps_all_of_them(tmp_path: Path, wrap):
    program = torch.export.export(Several(wrap).eval(), (torch.zeros(1, 3, 16, 16),))
    torch.export.save(program, tmp_path / "s.pt2")
    network = load_network(Settings(network=str(tmp_path / "s.pt2")))
    assert sorted(tuple(output.shape) for output in network.traced(torch.ones(1, 3, 16, 16))) == [(1, 3), (1, 10)]
    assert network.summary.task.kind is TaskKind.CLASSIFICATION


def test_export_file_of_one_output_in_a_structure_is_understood(tmp_path: Path):
    program = torch.export.export(Several(lambda y, _: {"logits": y}).eval(), (torch.zeros(1, 3, 16, 16),))
    torch.export.save(program, tmp_path / "s.pt2")
    assert load_network(Settings(network=str(tmp_path / "s.pt2"))).summary.output_classes == 10


def test_number_of_means_that_does_not_fit_an_export_file_is_an_error_that_says_how_many(exported_file: Path):
    with pytest.raises(InputError, match="takes 3 channels, not 1") as error:
        load_network(Settings(network=str(exported_file), mean="0.5", std="0.5"))
    assert "3 numbers each" in error.value.remedy
