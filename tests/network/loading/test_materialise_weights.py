"""Weights that are computed, or of another precision, become plain ones before anything is planned with them."""

import copy
import warnings
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations, spectral_norm, weight_norm

from networks import tiny_resnet
from practise_deploy.errors import InputError
from practise_deploy.network.graph.surgery import drop_blocks
from practise_deploy.network.loading.load import load_network
from practise_deploy.network.loading.materialise_weights import materialise_weights
from practise_deploy.settings import Settings

torch.set_num_threads(1)  # networks this small run slower on two
X = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(1))


def convolutions(module: nn.Module) -> list[nn.Conv2d]:
    return [each for each in module.modules() if isinstance(each, nn.Conv2d)]


@pytest.mark.parametrize(
    "compute", [parametrizations.weight_norm, parametrizations.spectral_norm, weight_norm, spectral_norm]
)
def test_computed_weights_become_what_they_are_computed_to_be(compute):
    module = tiny_resnet()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for each in convolutions(module):
            compute(each)
    with torch.no_grad():
        wanted = module.eval()(X)
        plain, notes = materialise_weights(module)
        assert torch.allclose(plain(X), wanted, atol=1e-5)
    assert all(type(each) is nn.Conv2d and "weight" in dict(each.named_parameters()) for each in convolutions(plain))
    assert notes == (
        f"{len(convolutions(plain))} weights that were computed from others (weight_norm and the like) are plain now",
    )
    copy.deepcopy(plain)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_precisions_are_computed_as_float32_and_that_is_said(dtype):
    plain, notes = materialise_weights(tiny_resnet().to(dtype))
    assert {value.dtype for value in plain.parameters()} == {torch.float32}
    assert notes == (f"weights of type {str(dtype).removeprefix('torch.')} are computed as float32",)


def test_weights_of_two_layers_become_each_ones_own_and_that_is_said():
    module = tiny_resnet()
    module.layer2[1].conv2.weight = module.layer2[2].conv2.weight
    with torch.no_grad():
        wanted = module.eval()(X)
        plain, notes = materialise_weights(module)
        assert torch.equal(plain(X), wanted)
    assert plain.layer2[1].conv2.weight is not plain.layer2[2].conv2.weight
    assert notes == ("1 weights that were another layer's too are a layer's own now",)


def test_plain_weights_are_left_as_they_are_and_nothing_is_said():
    module = tiny_resnet()
    before = {name: value.clone() for name, value in module.state_dict().items()}
    plain, notes = materialise_weights(module)
    assert plain is module and notes == ()
    assert all(torch.equal(value, before[name]) for name, value in plain.state_dict().items())


def test_network_with_computed_weights_is_loaded_with_a_note_and_can_be_pruned(tmp_path: Path):
    tests = Path(__file__).parents[2]
    (tmp_path / "n.py").write_text(
        f"import sys\nsys.path.insert(0, {str(tests)!r})\n"
        "from torch import nn\nfrom torch.nn.utils.parametrizations import weight_norm\nfrom networks import tiny_resnet\n"
        "def make():\n    module = tiny_resnet().half()\n    for each in module.modules():\n"
        "        if isinstance(each, nn.Conv2d):\n            weight_norm(each)\n    return module\n"
    )
    network = load_network(Settings(network=f"{tmp_path / 'n.py'}:make", input_size=16))
    assert "plain now" in network.summary.notes[0] and "float16" in network.summary.notes[1]
    drop_blocks(network.traced, [])


def test_network_that_puts_out_no_numbers_is_refused(tmp_path: Path):
    weights = tiny_resnet().state_dict()
    weights["conv1.weight"][0, 0, 0, 0] = float("nan")
    torch.save(weights, tmp_path / "w.pt")
    tiny = f"{Path(__file__).parents[2] / 'networks.py'}:tiny_resnet"
    with pytest.raises(InputError, match="NaN or infinity") as error:
        load_network(Settings(network=tiny, weights=tmp_path / "w.pt", input_size=16))
    assert "weights" in error.value.remedy
