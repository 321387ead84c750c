"""Weights from every kind of file, that fit or are refused."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from networks import tiny_resnet
from practise_deploy.errors import InputError
from practise_deploy.network.loading.checkpoints import read_state_dicts
from practise_deploy.network.loading.load import load_network
from practise_deploy.network.loading.weights import load_state_dict
from practise_deploy.settings import Settings

torch.set_num_threads(1)  # networks this small run slower on two
NETWORKS = Path(__file__).parents[2] / "networks.py"
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
    assert holds(network, other_weights) and network.summary.weights == str(path)


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
        read_state_dicts(path)


def test_empty_weights_file_is_an_error_that_names_it(tmp_path: Path):
    (tmp_path / "w.pth").touch()
    with pytest.raises(InputError, match=r"cannot read the weights file .*w\.pth"):
        read_state_dicts(tmp_path / "w.pth")


def small() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4))


def put(weights: object, tmp_path: Path, module: nn.Module) -> tuple[str, ...]:
    torch.save(weights, tmp_path / "w.pt")
    return load_state_dict(module, tmp_path / "w.pt")


def shifted(by: float) -> dict[str, torch.Tensor]:
    return {name: value + by if value.is_floating_point() else value for name, value in small().state_dict().items()}


@pytest.mark.parametrize(
    "wrap",
    [
        lambda raw, averaged: {"model": raw, "ema": {"module": averaged}},
        lambda raw, averaged: {"swa_state": averaged, "state_dict": raw},
        lambda raw, averaged: {"net": raw, "extra": {"n_averaged": torch.tensor(3), **prefixed("module.", averaged)}},
        lambda raw, averaged: {**prefixed("net.", raw), **prefixed("net_ema.module.", averaged)},
    ],
    ids=["below ema", "swa", "AveragedModel", "by prefix"],
)
def test_averaged_weights_are_taken_where_there_are_raw_ones_too_and_it_is_said(tmp_path: Path, wrap):
    module, averaged = small(), shifted(2)
    (note,) = (each for each in put(wrap(shifted(1), averaged), tmp_path, module) if "left out" not in each)
    assert "the averaged weights, are taken, not " in note and str(tmp_path / "w.pt") in note
    assert all(torch.equal(value, averaged[name]) for name, value in module.state_dict().items())


def prefixed(prefix: str, weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {prefix + name: value for name, value in weights.items()}


def test_averaged_weights_that_do_not_fit_are_mentioned(tmp_path: Path):
    (note,) = put({"net": shifted(1), "ema": {"shadow_params": [torch.ones(2)]}}, tmp_path, small())
    assert "['net'] is taken; ['ema']['shadow_params'], averaged weights" in note


def test_several_state_dicts_that_fit_are_refused_with_a_remedy_that_works(tmp_path: Path):
    with pytest.raises(InputError, match=r"several state dicts that fit the network: \['a'\]\['x'\], \['b'\]") as error:
        put({"a": {"x": shifted(1)}, "b": shifted(2)}, tmp_path, small())
    alone = tmp_path / "alone.pth"
    exec(error.value.remedy.partition(" by ")[2].replace("'weights.pth'", repr(str(alone))), {"torch": torch})
    assert load_state_dict(small(), alone) == ()


def test_prefix_of_the_networks_weights_is_taken_off_and_what_is_beside_it_is_named(tmp_path: Path):
    weights = {**prefixed("teacher.backbone.", shifted(1)), "metric.scale": torch.ones(1), "epoch": 3}
    (note,) = put(weights, tmp_path, small())
    assert "left out, as the network has no such weight: metric.scale, epoch" in note


def test_weights_under_a_prefix_that_the_network_does_not_have_are_refused(tmp_path: Path):
    with pytest.raises(InputError, match=r"unexpected: 2\.weight"):
        put({**prefixed("net.", shifted(1)), "net.2.weight": torch.ones(1)}, tmp_path, small())


def test_words_of_wrappers_within_names_are_passed_over(tmp_path: Path):
    weights = {name.replace(".", ".module._orig_mod."): value for name, value in shifted(1).items()}
    module = small()
    assert put(weights, tmp_path, module) == () and torch.equal(module[0].weight, shifted(1)["0.weight"])


class Translating(nn.Module):
    """Takes weights under the names that it had before."""

    def __init__(self) -> None:
        super().__init__()
        self.now = nn.Linear(3, 2)
        self._register_load_state_dict_pre_hook(self.translate)

    def translate(self, weights, prefix, *_):
        for name in [name for name in weights if name.startswith(f"{prefix}before.")]:
            weights[name.replace("before.", "now.")] = weights.pop(name)


def normed(kind) -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 4, 1), kind(nn.Linear(4, 2)))


@pytest.mark.parametrize(
    "module, weights",
    [
        (Translating(), {"before.weight": torch.ones(2, 3), "before.bias": torch.ones(2)}),
        (nn.Sequential(Translating()), {"m.0.before.weight": torch.ones(2, 3), "m.0.now.bias": torch.ones(2)}),
        (normed(nn.utils.parametrizations.weight_norm), normed(nn.utils.weight_norm).state_dict()),
        (nn.Sequential(nn.LazyLinear(2)), {"0.weight": torch.ones(2, 3), "0.bias": torch.ones(2)}),
    ],
    ids=["renamed", "renamed under a prefix", "weight_norm", "lazy"],
)
@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::UserWarning")
def test_what_torchs_own_load_hooks_translate_is_loaded(tmp_path: Path, module, weights):
    assert put(weights, tmp_path, module) == ()


@pytest.mark.parametrize(
    "odd, said",
    [
        (lambda ones: {"1.bias": ones.to_sparse()}, "1.bias is sparse"),
        (lambda ones: {"1.bias": ones[:, None].to_sparse_csr()}, "1.bias is sparse"),
        (lambda ones: {"1.bias": torch.nested.nested_tensor([ones])}, "1.bias is nested"),
        (lambda ones: {"1.bias": ones.to("meta")}, r"1.bias has a shape, but no numbers"),
        (lambda ones: {"1.bias": torch.quantize_per_tensor(ones, 0.1, 0, torch.quint8)}, "1.bias is quantised"),
        (lambda ones: {"1.bias": ones.to(torch.complex64)}, "1.bias is of complex64"),
        (lambda ones: {"1.bias": ones.to(torch.uint8)}, "1.bias is of uint8"),
        (lambda ones: {3: ones}, "3 is a number"),
    ],
    ids=["sparse", "csr", "nested", "meta", "quantised", "complex", "integers", "number"],
)
@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("wrap", [lambda w: w, lambda w: {"weights": w}], ids=["alone", "wrapped"])
def test_weights_that_are_no_plain_numbers_are_refused_by_name_and_not_cast(tmp_path: Path, odd, said, wrap):
    with pytest.raises(InputError, match=rf"w\.pt.*{said}") as error:
        put(wrap({**shifted(1), **odd(torch.ones(4))}), tmp_path, small())
    assert error.value.remedy


def test_weights_of_another_precision_are_taken_and_it_is_said(tmp_path: Path):
    doubled = {name: value.double() if value.is_floating_point() else value for name, value in shifted(1).items()}
    (note,) = put(doubled, tmp_path, small())
    assert "weights of float64 are taken as float32" in note
