"""Networks from every source, weights that fit or are refused, and where the input's preparation is from."""

import os
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from networks import tiny_resnet
from practise_deploy.errors import EnvironmentProblem, InputError
from practise_deploy.model.blocks import find_blocks
from practise_deploy.model.networks import _preprocessing, fingerprint, load_network, structure_of
from practise_deploy.model.onnx_graph import to_onnx, with_cuts, without
from practise_deploy.model.surgery import drop_blocks
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


@pytest.mark.parametrize(
    "name, remedy",
    [
        ("torchvision:resnet19", "did you mean resnet18"),
        ("resnet18", "torchvision:NAME"),
        ("torchvision:", "torchvision:NAME"),
        ("nothing.py:make", ""),
        ("nothing.pt2", ""),
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


def test_embedded_network_is_the_default_and_knows_its_input():
    network = load_network(Settings())
    made = network.facts.preprocessing
    assert (network.input_shape, made.mean, made.std, made.augment, made.assumed) == (
        (1, 1, 28, 28),
        (0.1307,),
        (0.3081,),
        "crop",
        (),
    )
    assert network.facts.weights == "embedded" and network.learns
    assert not any(module.training for module in network.traced.modules())


def test_input_is_prepared_by_the_networks_own_configuration():
    made = load_network(Settings(network="torchvision:mobilenet_v2"), structure_only=True).facts.preprocessing
    assert (made.size, made.resize, made.mean, made.interpolation, made.assumed) == (
        (224, 224),
        232,
        (0.485, 0.456, 0.406),
        "bilinear",
        (),
    )


def test_efficientnet_lite0_is_prepared_in_its_own_way():
    pytest.importorskip("efficientnet_lite_pytorch", reason="efficientnet-lite0 is not installed")
    made = load_network(Settings(network="efficientnet-lite0"), structure_only=True).facts.preprocessing
    assert (made.mean, made.std, made.interpolation) == ((127 / 255,) * 3, (128 / 255,) * 3, "bicubic")


def test_options_win_over_the_networks_own_configuration():
    made = load(
        "digits", input_size=32, mean="0.5", std="0.25", interpolation="bicubic", resize=40, augment="none"
    ).facts.preprocessing
    assert (made.size, made.resize, made.mean, made.std) == ((32, 32), 40, (0.5,), (0.25,))
    assert (made.interpolation, made.augment, made.assumed) == ("bicubic", "none", ())


def test_what_nobody_stated_is_assumed_and_said():
    facts = load_network(Settings(network=TINY), image_size=(16, 16)).facts
    assert facts.preprocessing.size == (16, 16) and len(facts.preprocessing.assumed) == 2
    assert any("assumed: input size 16x16" in note and "--input-size" in note for note in facts.notes)
    assert any("--mean" in note for note in facts.notes)


def configured(config: dict, **more):
    return _preprocessing(config, Settings(network=TINY, **more), None)


def test_default_resize_covers_the_longer_side_of_the_input():
    assert configured({"input_size": (3, 64, 128)}).resize == 146
    assert configured({"input_size": (3, 32, 64)}).resize == 64
    with pytest.raises(
        InputError, match="configuration resizes to 100 is smaller than the input, whose longer side is 128"
    ):
        configured({"input_size": (3, 64, 128), "resize": 100})


def test_share_of_the_crop_is_taken_from_the_configuration():
    assert configured({"input_size": (3, 224, 224), "crop_pct": 0.95}).resize == 235
    assert configured({"input_size": (3, 224, 224), "crop_pct": 0.95}, input_size=100).resize == 105


def test_interpolation_that_cannot_be_done_is_an_error_with_the_option():
    with pytest.raises(InputError, match="lanczos") as error:
        configured({"interpolation": "lanczos"})
    assert "--interpolation" in error.value.remedy


def test_weights_beside_an_export_file_are_refused_and_not_ignored(tmp_path: Path):
    (tmp_path / "a.pt2").write_bytes(b"")
    with pytest.raises(InputError, match="has its weights in it"):
        load_network(Settings(network=str(tmp_path / "a.pt2"), weights=tmp_path / "w.pt"))


def test_empty_weights_file_is_an_error_that_names_it(tmp_path: Path):
    (tmp_path / "w.pth").touch()
    with pytest.raises(InputError, match=r"cannot read the weights file .*w\.pth"):
        read_state_dict(tmp_path / "w.pth")


def test_number_of_means_that_does_not_fit_the_channels_is_an_error():
    with pytest.raises(InputError, match="1 input channels, but mean has 3"):
        load("digits", mean="0.5,0.5,0.5", std="1,1,1")


def test_untraceable_module_is_named_in_the_notes(tmp_path: Path):
    (tmp_path / "net.py").write_text(
        "from torch import nn\n"
        "class Decides(nn.Sequential):\n    def forward(self, x):\n        return self[0](x) if x.sum() > 0 else x * 2\n"
        "def make():\n    return nn.Sequential(nn.Conv2d(3, 4, 3), Decides(nn.ReLU()), nn.Flatten(), nn.Linear(784, 2))\n"
    )
    assert (
        load(f"{tmp_path / 'net.py'}:make").facts.notes[0] == "1 could not be traced into and counts as one operation"
    )


def test_fingerprint_changes_with_a_weight_and_with_the_structure_and_with_nothing_else():
    first, again = load(), load()
    assert first.facts.sha256 == again.facts.sha256 == fingerprint(first.traced, first.structure)
    with torch.no_grad():
        next(again.traced.parameters())[0, 0, 0, 0] += 1e-3
    block = find_blocks(first.traced, first.input_shape)[1]
    prints = {fingerprint(n) for n in (first.traced, again.traced, drop_blocks(first.traced, [block]))}
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
        found.append((network.structure, structure_of(network.traced), network.facts.sha256))
    assert all(before != after for before, after in zip(*found, strict=True))


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
    assert not network.learns and network.input_shape == (1, 3, 16, 16)
    assert (network.facts.parameters, network.facts.macs, network.facts.output_classes) == (
        source.facts.parameters,
        source.facts.macs,
        10,
    )


def test_block_of_an_export_file_is_dropped_in_onnx(exported_file: Path):
    import onnxruntime

    network = load_network(Settings(network=str(exported_file)))
    block = next(b for b in find_blocks(network.traced, network.input_shape) if b.name == "layer2.1")
    model = without(with_cuts(network.traced, [block], network.input_shape), [block])
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


def test_trained_resnet20_keeps_its_accuracy_when_loaded_from_its_file(shared_data: Path):
    network = load_network(
        Settings(network=f"{NETWORKS}:make_resnet20", weights=shared_data / "cifar10" / "resnet20.pt", input_size=32)
    )
    with np.load(shared_data / "cifar10" / "test.npz") as file:
        images, labels = file["images"][:300], file["labels"][:300]
    x = torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255
    made = network.facts.preprocessing
    x = (x - torch.tensor(made.mean).view(1, 3, 1, 1)) / torch.tensor(made.std).view(1, 3, 1, 1)
    with torch.no_grad():
        right = (network.traced(x).argmax(1).numpy() == labels).mean()
    assert right > 0.88
