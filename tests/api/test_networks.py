"""Modules as networks: the same network as from its file, and the module itself stays as it is."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from torch import nn

import practise_deploy as pd
from api.quick import SETTINGS as QUICK
from networks import tiny_resnet
from pipeline.scripted import ScriptedOrt, device, ms_by_products
from practise_deploy.network.loading.load import load_network, network_of
from practise_deploy.network.loading.loaded import Network
from practise_deploy.settings import Settings
from samples.encoders import Encoder, tokens

NETWORKS = Path(__file__).parents[1] / "networks.py"
SETTINGS = Settings(input_size=16)


def state(module: nn.Module) -> list[Any]:
    return [
        (name, value.clone(), value.dtype, value.requires_grad, value.grad, value.is_contiguous())
        for name, value in (*module.named_parameters(), *module.named_buffers())
    ]


def same(before: list[Any], after: list[Any]) -> bool:
    return all(
        a[0] == b[0] and torch.equal(a[1], b[1]) and a[2:4] == b[2:4] and a[5] == b[5]
        for a, b in zip(before, after, strict=True)
    )


def test_module_gives_the_network_that_its_file_gives(module: nn.Module):
    by_module = network_of(module, SETTINGS)
    by_file = load_network(Settings(network=f"{NETWORKS}:tiny_resnet", input_size=16))
    assert by_module.summary.name == "TinyResNet" and by_module.trainable
    assert by_module.summary.weights == "as the module has them"
    sample = torch.randn(2, 3, 16, 16)
    assert torch.equal(by_module.traced(sample), by_file.traced(sample))


def test_module_stays_as_it_is():
    module = tiny_resnet().train()
    module.layer1.eval()
    module.conv1.weight.requires_grad_(False)
    module.fc.weight.grad = torch.ones_like(module.fc.weight)
    before, modes = state(module), [part.training for part in module.modules()]
    network = network_of(module, SETTINGS)
    for weight in network.traced.parameters():
        weight.data.zero_()
    assert same(before, state(module)) and [part.training for part in module.modules()] == modes
    assert torch.equal(module.fc.weight.grad, torch.ones_like(module.fc.weight))


def halved() -> nn.Module:
    return tiny_resnet().half()


def with_old_weight_norm() -> nn.Module:
    module = tiny_resnet()
    nn.utils.weight_norm(module.fc)
    module(torch.zeros(1, 3, 16, 16))  # whose weight is now computed from others
    return module


def with_parametrization() -> nn.Module:
    module = tiny_resnet()
    nn.utils.parametrizations.weight_norm(module.fc)
    return module


def in_data_parallel() -> nn.Module:
    return nn.DataParallel(tiny_resnet())


def compiled() -> nn.Module:
    return torch.compile(tiny_resnet())  # type: ignore[return-value]


@pytest.mark.parametrize("make", [halved, with_old_weight_norm, with_parametrization, in_data_parallel, compiled])
def test_network_is_named_by_its_class_and_what_is_around_it_stays(make: Callable[[], nn.Module]):
    module = make()
    kept, parts = state(module), [type(part) for part in module.modules()]
    network = network_of(module, SETTINGS)
    assert network.summary.name == "TinyResNet"
    assert same(kept, state(module)) and [type(part) for part in module.modules()] == parts
    sample = torch.randn(1, 3, 16, 16)
    original = copy.deepcopy(tiny_resnet()).eval()
    assert torch.allclose(network.traced(sample), original(sample), atol=1e-2)


def test_hooks_of_a_module_hear_nothing_of_us_and_that_is_told():
    module, heard = tiny_resnet(), list[Any]()
    handle = module.conv1.register_forward_hook(lambda *told: heard.append(told))
    notes = network_of(module, SETTINGS).summary.notes
    assert not heard and any("forward hooks are left out of the copy (of Conv2d)" in note for note in notes)
    module(torch.zeros(1, 3, 16, 16))
    assert len(heard) == 1
    handle.remove()
    assert not any("hooks" in note for note in network_of(module, SETTINGS).summary.notes)


def test_configuration_of_a_module_says_how_its_input_is_prepared():
    module = tiny_resnet()
    module.pretrained_cfg = {"input_size": (3, 16, 16), "mean": (0.1, 0.2, 0.3), "std": (0.4, 0.5, 0.6)}
    preprocessing = network_of(module, Settings()).summary.preprocessing
    assert preprocessing.size == (16, 16) and preprocessing.mean == (0.1, 0.2, 0.3) and not preprocessing.assumed


def test_size_of_the_images_is_that_of_the_input_where_nobody_states_it(module: nn.Module):
    network: Network = network_of(module, Settings(), (16, 16))
    assert network.input_shape == (1, 3, 16, 16)
    assert any(note.startswith("assumed: input size 16x16") for note in network.summary.notes)


def test_module_that_cannot_be_copied_is_an_error_with_a_remedy():
    module = tiny_resnet()
    module.handle = (row for row in ())
    with pytest.raises(pd.InputError, match="TinyResNet cannot be copied: cannot pickle") as refused:
        pd.inspect(module, input_size=16, progress=False)
    assert "copy.deepcopy" in str(refused.value)


def test_weights_without_values_are_an_error_that_names_one():
    with pytest.raises(pd.InputError, match=r"TinyResNet: the weight conv1\.weight is on the device meta"):
        pd.inspect(tiny_resnet().to("meta"), input_size=16, progress=False)


def test_refusal_of_a_network_names_its_class_and_the_python_to_write():
    class Paired(nn.Module):
        def forward(self, images: Any, mask: Any) -> Any:
            return images

    with pytest.raises(pd.InputError, match="Paired") as refused:
        pd.inspect(Paired(), progress=False)
    assert "\nRemedy: " in str(refused.value) and "FILE.py" not in str(refused.value)


@pytest.mark.parametrize("network", [3, None, tiny_resnet, torch.zeros(3)])
def test_what_is_no_network_is_an_error_with_a_remedy(network: Any):
    with pytest.raises(pd.InputError, match="the network is an object of type") as refused:
        pd.inspect(network, progress=False)
    assert "call the function" in refused.value.remedy


def test_object_of_python_is_refused_by_name():
    with pytest.raises(pd.InputError, match="python:TinyResNet was an object in Python"):
        load_network(Settings(network="python:TinyResNet"))


def test_module_of_several_inputs_is_built_from_arrays_by_name(tmp_path: Path):
    torch.manual_seed(0)
    module, arrays = Encoder().eval(), tokens(40)
    assert sum(block.droppable for block in pd.inspect(module, arrays, progress=False).blocks) == 4
    with device(ScriptedOrt(ms_by_products)):
        release = pd.build(module, arrays, out=tmp_path / "run", progress=False, **QUICK)
    tensors = {name: torch.from_numpy(array) for name, array in tokens(5, seed=3).items()}
    found = release.network(**tensors)
    assert torch.equal(found, release.network(*tensors.values())) and found.shape == module(**tensors).shape
    session = onnxruntime.InferenceSession(str(release.onnx), providers=["CPUExecutionProvider"])
    (shipped,) = session.run(None, {name: tensor.numpy() for name, tensor in tensors.items()})
    assert np.allclose(shipped, found.detach().numpy(), atol=1e-4)
    with pytest.raises(pd.InputError, match="holds images, and the network takes input_ids"):
        pd.plan(f"{release.onnx}", np.zeros((40, 8, 8, 3), np.uint8), out=tmp_path / "other", progress=False)
