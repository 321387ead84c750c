"""Weights from every kind of file, that fit or are refused."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from networks import tiny_resnet
from practise_deploy.errors import InputError
from practise_deploy.model.networks import load_network
from practise_deploy.model.weights import load_state_dict, read_state_dict
from practise_deploy.settings import Settings

torch.set_num_threads(1)  # networks this small run slower on two
NETWORKS = Path(__file__).parents[1] / "networks.py"
TINY = f"{NETWORKS}:tiny_resnet"


def load(network: str = TINY, **more):
    return load_network(Settings(network=network, **{"input_size": 16, **more}))


@pytest.fixture(scope="module")
def other_weights() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(5)
    return {
        name: torch.rand(value.shape, generator=generator) if value.is_floating_point() else value
        for name, value in tiny_resnet().state_dict().items()
    }


def holds(network, weights: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(value, weights[name]) for name, value in network.traced.state_dict().items())


@pytest.mark.parametrize("suffix", [".pt", ".pth", ".safetensors"])
def test_weights_are_read_from_each_kind_of_file(tmp_path: Path, other_weights, suffix):
    path = tmp_path / f"w{suffix}"
    save_file(other_weights, path) if suffix == ".safetensors" else torch.save(other_weights, path)
    network = load(weights=path)
    assert holds(network, other_weights) and network.facts.weights == str(path)


@pytest.mark.parametrize(
    "wrap",
    [
        lambda w: {"state_dict": w, "epoch": 3},
        lambda w: {"module." + k: v for k, v in w.items()},
        lambda w: {"state_dict": {"module." + k: v for k, v in w.items()}},
        lambda w: {"model": w},
        lambda w: {"_orig_mod." + k: v for k, v in w.items()},
        lambda w: {"_orig_mod.module." + k: v for k, v in w.items()},
        lambda w: {k: v for k, v in w.items() if not k.endswith("num_batches_tracked")},
    ],
    ids=[
        "state_dict",
        "module.",
        "state_dict of module.",
        "model",
        "compiled",
        "compiled and parallel",
        "without counters",
    ],
)
def test_usual_wrappers_around_weights_are_understood(tmp_path: Path, other_weights, wrap):
    torch.save(wrap(other_weights), tmp_path / "w.pt")
    found = load(weights=tmp_path / "w.pt").traced.state_dict()
    assert all(torch.equal(found[k], v) for k, v in other_weights.items() if not k.endswith("num_batches_tracked"))


def test_names_of_the_network_that_look_like_a_wrappers_are_its_own(tmp_path: Path):
    wrapped = nn.ModuleDict({"model": tiny_resnet()})
    torch.save(wrapped.state_dict(), tmp_path / "w.pt")
    load_state_dict(wrapped, tmp_path / "w.pt")


def test_weights_that_do_not_fit_are_an_error_that_lists_missing_unexpected_and_misshapen(
    tmp_path: Path, other_weights
):
    wrong = dict(other_weights)
    del wrong["layer1.0.conv1.weight"], wrong["fc.bias"]
    wrong |= {"head.weight": torch.zeros(3), "fc.weight": torch.zeros(7, 32)}
    torch.save(wrong, tmp_path / "w.pt")
    with pytest.raises(InputError) as error:
        load(weights=tmp_path / "w.pt")
    assert "missing: layer1.0.conv1.weight, fc.bias;" in error.value.message
    assert "unexpected: head.weight;" in error.value.message
    assert "wrong shape: fc.weight (7, 32) instead of (10, 32)" in error.value.message


def test_long_lists_of_names_are_cut_and_counted(tmp_path: Path):
    torch.save({"x": torch.zeros(1)}, tmp_path / "w.pt")
    expected = sum(not name.endswith("num_batches_tracked") for name in tiny_resnet().state_dict()) - 8
    with pytest.raises(InputError, match=f"and {expected} more; unexpected: x"):
        load(weights=tmp_path / "w.pt")


@pytest.mark.parametrize("what", ["missing", "garbage", "a whole module", "a list", "garbage.safetensors"])
def test_file_without_a_state_dict_is_an_error_that_names_it(tmp_path: Path, what):
    path = tmp_path / ("w.safetensors" if what.endswith("safetensors") else "w.pt")
    if what.startswith("garbage"):
        path.write_bytes(b"\x80garbage" * 9)
    elif what == "a whole module":
        torch.save(nn.Linear(2, 2), path)
    elif what == "a list":
        torch.save([1, 2], path)
    with pytest.raises(InputError, match=path.name):
        read_state_dict(path)


def test_empty_weights_file_is_an_error_that_names_it(tmp_path: Path):
    (tmp_path / "w.pth").touch()
    with pytest.raises(InputError, match=r"cannot read the weights file .*w\.pth"):
        read_state_dict(tmp_path / "w.pth")
