"""Networks from every source, weights that fit or are refused, and where the input's preparation is from."""

import os
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from practise_backends.errors import EnvironmentProblem
from practise_deploy.errors import InputError
from practise_deploy.network.graph.structure import fingerprint, structure_of
from practise_deploy.network.graph.surgery import drop_blocks
from practise_deploy.network.loading.load import load_network
from practise_deploy.network.loading.preprocessing import preprocessing_of
from practise_deploy.network.loading.sources import construct
from practise_deploy.network.units.blocks import find_blocks
from practise_deploy.settings import Settings

torch.set_num_threads(1)  # networks this small run slower on two
NETWORKS = Path(__file__).parents[2] / "networks.py"
RESNETS = Path(__file__).parents[3] / "benchmarks" / "cifar_resnets.py"
TINY = f"{NETWORKS}:tiny_resnet"


def load(network: str = TINY, **more):
    return load_network(Settings(network=network, **{"input_size": 16, **more}))


@pytest.mark.parametrize(
    "name, remedy",
    [
        ("torchvision:resnet19", "did you mean resnet18"),
        ("resnet18", "torchvision:NAME"),
        ("torchvision:", "torchvision:NAME"),
        ("torchvision:quantized_resnet18", "--precision int8"),
        ("nothing.py:make", ""),
        ("nothing.pt2", ""),
        ("model.pt", "FILE.py:FUNCTION --weights model.pt"),
        (f"{NETWORKS}:tiny_resnett", "tiny_resnet"),
    ],
)
def test_unknown_network_is_an_error_that_helps(name, remedy):
    with pytest.raises(InputError) as error:
        load(name)
    assert remedy in error.value.remedy


def test_unknown_network_of_timm_is_an_error_that_helps():
    pytest.importorskip("timm", reason="timm is not installed")
    with pytest.raises(InputError, match="timm has no network 'resnet19'"):
        load("timm:resnet19")


@pytest.mark.parametrize(
    "body, message",
    [
        ("def make():\n    raise KeyError('depth')", "make failed in line 2: KeyError"),
        ("def make():\n    return 3", "returned int, not a torch.nn.Module"),
        ("def make(:", "make failed: SyntaxError"),
        ("make = 3", "has no function 'make'"),
    ],
)
def test_failing_function_of_a_file_is_an_error_that_names_it(tmp_path: Path, body, message):
    (tmp_path / "net.py").write_text(body)
    with pytest.raises(InputError, match=r"net\.py") as error:
        load(f"{tmp_path / 'net.py'}:make")
    assert message in error.value.message


def test_weights_that_cannot_be_fetched_are_a_problem_of_the_environment(monkeypatch):
    def offline(*_, **__):
        raise OSError("no route to host")

    monkeypatch.setattr(torch.hub, "load_state_dict_from_url", offline)
    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", offline)
    with pytest.raises(EnvironmentProblem, match="could not be fetched") as error:
        load("torchvision:resnet18")
    assert "--weights" in error.value.remedy


def test_structure_alone_fetches_no_backbone(monkeypatch):
    def offline(*_, **__):
        raise OSError("no route to host")

    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", offline)
    module, _, weights = construct(Settings(network="torchvision:lraspp_mobilenet_v3_large"), structure_only=True)
    assert weights == "random" and sum(each.numel() for each in module.parameters()) > 1e6


def test_embedded_network_is_the_default_and_knows_its_input():
    network = load_network(Settings())
    made = network.summary.preprocessing
    assert (network.input_shape, made.mean, made.std, made.augment, made.assumed) == (
        (1, 1, 28, 28),
        (0.1307,),
        (0.3081,),
        "crop",
        (),
    )
    assert network.summary.weights == "embedded" and network.trainable
    assert not any(module.training for module in network.traced.modules())


def test_input_is_prepared_by_the_networks_own_configuration():
    made = load_network(Settings(network="torchvision:mobilenet_v2"), structure_only=True).summary.preprocessing
    assert (made.size, made.resize, made.mean, made.interpolation, made.assumed) == (
        (224, 224),
        232,
        (0.485, 0.456, 0.406),
        "bilinear",
        (),
    )


def test_efficientnet_lite0_is_prepared_in_its_own_way():
    pytest.importorskip("efficientnet_lite_pytorch", reason="efficientnet-lite0 is not installed")
    made = load_network(Settings(network="efficientnet-lite0"), structure_only=True).summary.preprocessing
    assert (made.mean, made.std, made.interpolation) == ((127 / 255,) * 3, (128 / 255,) * 3, "bicubic")


def test_options_win_over_the_networks_own_configuration():
    made = load(
        "digits", input_size=32, mean="0.5", std="0.25", interpolation="bicubic", resize=40, augment="none"
    ).summary.preprocessing
    assert (made.size, made.resize, made.mean, made.std) == ((32, 32), 40, (0.5,), (0.25,))
    assert (made.interpolation, made.augment, made.assumed) == ("bicubic", "none", ())


def test_what_nobody_stated_is_assumed_and_said():
    facts = load_network(Settings(network=TINY), image_size=(16, 16)).summary
    assert facts.preprocessing.size == (16, 16) and len(facts.preprocessing.assumed) == 2
    assert any("assumed: input size 16x16" in note and "--input-size" in note for note in facts.notes)
    assert any("--mean" in note for note in facts.notes)


def configured(config: dict, **more):
    return preprocessing_of(config, Settings(network=TINY, **more), None)


def test_default_resize_is_of_the_inputs_shorter_side():
    """A picture of the input's own shape is seen whole but for the usual margin, and so is a square one's."""
    wide = configured({"input_size": (3, 128, 256)})
    assert (wide.resize, wide.enlarged) == (146, (146, 292))
    assert configured({"input_size": (3, 256, 128)}).enlarged == (292, 146)
    assert configured({"input_size": (3, 64, 128)}).enlarged == (64, 128)
    assert configured({"input_size": (3, 128, 256)}, resize=128).enlarged == (128, 256)


@pytest.mark.parametrize(("mode", "squash", "said"), [("squash", True, 0), ("center", False, 0), ("border", False, 1)])
def test_how_a_network_wants_its_pictures_cropped_is_done_or_said(mode: str, squash: bool, said: int):
    found = configured({"input_size": (3, 96, 96), "crop_mode": mode, "mean": (0.5,) * 3, "std": (0.5,) * 3})
    assert found.squash == squash and len(found.assumed) == said


def test_share_of_the_crop_is_taken_from_the_configuration():
    assert configured({"input_size": (3, 224, 224), "crop_pct": 0.95}).resize == 235
    assert configured({"input_size": (3, 224, 224), "crop_pct": 0.95}, input_size=100).resize == 105


def test_interpolation_that_cannot_be_done_is_an_error_with_the_option():
    with pytest.raises(InputError, match="lanczos") as error:
        configured({"interpolation": "lanczos"})
    assert "--interpolation" in error.value.remedy


def test_number_of_means_that_does_not_fit_the_channels_is_an_error():
    with pytest.raises(InputError, match=r"expected input.* to have 1 channels, but got 3") as error:
        load("digits", input_size=28, mean="0.5,0.5,0.5", std="1,1,1")
    assert "--mean and --std" in error.value.remedy


def test_means_win_over_the_channels_of_the_networks_configuration_which_libraries_leave_as_they_were():
    config = {"input_size": (3, 64, 64), "mean": (0.4, 0.5, 0.6), "std": (0.2, 0.2, 0.2), "crop_pct": 0.9}
    made = configured(config, mean="0.5,0.4", std="0.25,0.2")
    assert (made.channels, made.size, made.mean, made.std, made.resize) == (2, (64, 64), (0.5, 0.4), (0.25, 0.2), 71)
    assert (configured(config, std="0.5").mean, configured(config, std="1,1,1").mean) == ((0.0,), (0.4, 0.5, 0.6))


def test_means_and_deviations_of_different_numbers_are_an_error_with_a_remedy():
    with pytest.raises(InputError, match="mean has 2 numbers and std 1") as error:
        configured({"input_size": (3, 64, 64)}, mean="0.5,0.5", std="1")
    assert "--mean and --std" in error.value.remedy


def test_mean_that_was_given_is_kept_where_the_deviation_is_assumed():
    made = configured({}, mean="0.1,0.2,0.3")
    assert made.mean == (0.1, 0.2, 0.3) and made.assumed[1] == "std (0.229, 0.224, 0.225)"


def test_untraceable_module_is_named_in_the_notes(tmp_path: Path):
    (tmp_path / "net.py").write_text(
        "from torch import nn\n"
        "class Decides(nn.Sequential):\n    def forward(self, x):\n        return self[0](x) if x.sum() > 0 else x * 2\n"
        "def make():\n    return nn.Sequential(nn.Conv2d(3, 4, 3), Decides(nn.ReLU()), nn.Flatten(), nn.Linear(784, 2))\n"
    )
    assert (
        load(f"{tmp_path / 'net.py'}:make").summary.notes[0] == "1 could not be traced into and counts as one operation"
    )


def test_fingerprint_changes_with_a_weight_and_with_the_structure_and_with_nothing_else():
    first, again = load(), load()
    assert first.summary.sha256 == again.summary.sha256 == fingerprint(first.traced, first.structure)
    with torch.no_grad():
        next(again.traced.parameters())[0, 0, 0, 0] += 1e-3
    block = find_blocks(first.traced, first.input_shape)[1]
    prints = {fingerprint(n, structure_of(n)) for n in (first.traced, again.traced, drop_blocks(first.traced, [block]))}
    assert len(prints) == 3


def test_attribute_of_a_users_module_makes_another_network(tmp_path: Path):
    body = (
        "from torch import nn\nimport torch\n\nclass Sharp(nn.Module):\n    def __init__(self, k):\n        super().__init__()\n"
        "        self.k = k\n    def forward(self, x):\n        return x * self.k\n"
    )
    (tmp_path / "sharp_layer.py").write_text(body)
    (tmp_path / "n.py").write_text(
        "from __future__ import annotations\nimport os\nfrom dataclasses import dataclass\nfrom torch import nn\n"
        "from sharp_layer import Sharp\n\n@dataclass\nclass Asked:\n    k: float\n\ndef make():\n"
        "    return nn.Sequential(nn.Conv2d(3, 4, 1), Sharp(Asked(float(os.environ['SHARP_K'])).k))\n"
    )
    found = []
    for k in ("1", "1", "5"):
        os.environ["SHARP_K"] = k
        torch.manual_seed(0)
        found.append(load(f"{tmp_path / 'n.py'}:make").structure)
    assert found[0] == found[1] != found[2]
    assert str(tmp_path) not in sys.path


@pytest.mark.parametrize("now", ["nn.Hardswish()", "nn.ReLU6()", "nn.LeakyReLU(0.3)"])
def test_changed_activation_without_weights_is_another_network(tmp_path: Path, now: str):
    text = "from torch import nn\ndef make():\n    return nn.Sequential(nn.Conv2d(3, 4, 3), {}, nn.Flatten(), nn.Linear(784, 2))\n"
    found = []
    for activation in ("nn.ReLU()", now):
        torch.manual_seed(0)
        (tmp_path / "net.py").write_text(text.format(activation))
        network = load(f"{tmp_path / 'net.py'}:make")
        found.append((network.structure, structure_of(network.traced), network.summary.sha256))
    assert all(before != after for before, after in zip(*found, strict=True))


def test_trained_resnet20_keeps_its_accuracy_when_loaded_from_its_file(shared_data: Path):
    network = load_network(
        Settings(network=f"{RESNETS}:make_resnet20", weights=shared_data / "cifar10" / "resnet20.pt", input_size=32)
    )
    with np.load(shared_data / "cifar10" / "test.npz") as file:
        images, labels = file["images"][:300], file["labels"][:300]
    x = torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255
    made = network.summary.preprocessing
    x = (x - torch.tensor(made.mean).view(1, 3, 1, 1)) / torch.tensor(made.std).view(1, 3, 1, 1)
    with torch.no_grad():
        right = (network.traced(x).argmax(1).numpy() == labels).mean()
    assert right > 0.88
