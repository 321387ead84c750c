"""Modules that take several inputs, tokens or a dictionary, by the arrays that the samples hold."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from practise_deploy.errors import InputError
from practise_deploy.images.packed import samples_of
from practise_deploy.network.loading.load import network_of
from practise_deploy.network.loading.loaded import Network
from practise_deploy.network.loading.named_inputs import NamedInputs, OfNamedInputs, named_inputs
from practise_deploy.network.loading.samples import Samples
from practise_deploy.network.units.blocks import find_blocks
from practise_deploy.settings import Settings
from practise_deploy.terms import TaskKind
from samples.encoders import WORDS, Encoder, tokens

TOKENS = tokens(40)
TENSORS = {name: torch.from_numpy(array) for name, array in TOKENS.items()}


class Keyed(nn.Module):
    """Takes a dictionary, and gives one."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = Encoder()

    def forward(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        counts = batch["attention_mask"].sum(1, keepdim=True).float()
        return {"vector": self.encoder(batch["input_ids"], batch["attention_mask"]), "length": counts}


class Two(nn.Module):
    """Takes an image and numbers, and has an option that is no array."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.unit, self.numbers = nn.Conv2d(3, 8, 3, 2, 1), nn.Conv2d(8, 8, 3, 1, 1), nn.Linear(4, 8)
        self.head = nn.Linear(8, 5)

    def forward(self, image: Tensor, numbers: Tensor, doubled: bool = False) -> Tensor:
        x = self.stem(image) + self.numbers(numbers)[:, :, None, None]
        x = x + self.unit(x.relu())
        return self.head(x.mean((2, 3))) * (2 if doubled else 1)


class Images(nn.Module):
    def forward(self, images: Tensor) -> Tensor:
        return images.mean((2, 3))


def sampled(**arrays: np.ndarray) -> Samples:
    return Samples(
        shapes={name: array.shape[1:] for name, array in arrays.items()},
        dtypes={name: str(array.dtype) for name, array in arrays.items()},
    )


def loaded(module: nn.Module, folder: Path, **arrays: np.ndarray) -> Network:
    np.savez(folder / "samples.npz", **arrays)
    settings = Settings(network="python:Module", data=folder / "samples.npz")
    return network_of(module.eval(), settings, samples=samples_of(settings))


def outputs(network: Network, tensors: dict[str, Tensor]) -> Any:
    return OfNamedInputs(network.traced, network.summary.preprocessing.inputs)(**tensors)


def test_module_of_tokens_and_a_mask_is_what_it_was(tmp_path: Path):
    torch.manual_seed(0)
    module = Encoder().eval()
    network = loaded(module, tmp_path, **TOKENS)
    assert torch.allclose(outputs(network, TENSORS), module(**TENSORS), atol=1e-5)
    assert network.summary.task.kind is TaskKind.EMBEDDING and network.summary.name == "Encoder"
    assert sum(block.droppable for block in find_blocks(network.traced, network.input_shape)) == 4
    assert any("exported to ONNX as it takes input_ids, attention_mask" in note for note in network.summary.notes)


def test_dictionary_of_arrays_is_given_as_one_and_outputs_keep_their_names(tmp_path: Path):
    torch.manual_seed(0)
    module = Keyed().eval()
    network = loaded(module, tmp_path, **TOKENS)
    assert network.summary.task.names == ("vector", "length")
    wanted = module(TENSORS)
    for found, name in zip(outputs(network, TENSORS), wanted, strict=True):
        assert torch.allclose(found, wanted[name], atol=1e-5)


class Nested(nn.Module):
    """Units in modules of their own."""

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(WORDS, 8)
        self.layers = nn.ModuleList(Unit() for _ in range(2))
        self.head = nn.Linear(8, 3)

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.words(tokens)
        for layer in self.layers:
            x = layer(x)
        return self.head(x.mean(1))


class Unit(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(8, 8)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.inner(x).relu()


def test_blocks_have_the_names_of_the_modules(tmp_path: Path):
    network = loaded(Nested(), tmp_path, tokens=TOKENS["input_ids"])
    blocks = find_blocks(network.traced, network.input_shape)
    assert [(block.name, block.kind) for block in blocks] == [("layers.0", "Unit"), ("layers.1", "Unit")]


def test_images_beside_numbers_are_two_inputs(tmp_path: Path):
    torch.manual_seed(0)
    module, rng = Two().eval(), np.random.default_rng(0)
    arrays = {"image": rng.normal(size=(12, 3, 16, 16)).astype("f4"), "numbers": rng.normal(size=(12, 4))}
    network = loaded(module, tmp_path, **arrays, labels=np.zeros(12, int))
    assert [spec.name for spec in network.summary.preprocessing.inputs] == ["image", "numbers"]
    tensors = {name: torch.from_numpy(array).float() for name, array in arrays.items()}
    assert torch.allclose(outputs(network, tensors), module(**tensors), atol=1e-5)


@pytest.mark.parametrize(
    ("module", "arrays", "wanted"),
    [
        (Encoder(), TOKENS, NamedInputs(("input_ids", "attention_mask"))),
        (Encoder(), {"other": TOKENS["input_ids"]}, None),
        (Images(), {"images": np.zeros((4, 8, 8, 3), np.uint8)}, None),
        (Two(), {"images": np.zeros((4, 8, 8, 3), np.uint8)}, None),
        (nn.Linear(4, 2), {"input": np.zeros((4, 4), np.float32)}, NamedInputs(("input",))),
        (nn.Conv2d(3, 4, 3), {"input": np.zeros((4, 3, 8, 8), np.float32)}, None),  # images are read as such
        (Keyed(), TOKENS, NamedInputs(("input_ids", "attention_mask"), as_mapping=True)),
        (Keyed(), {"other": TOKENS["input_ids"]}, None),
    ],
)
def test_module_takes_arrays_by_name_where_it_has_parameters_for_them(module, arrays, wanted):
    assert named_inputs(module, sampled(**arrays)) == wanted


def test_arrays_that_a_module_does_not_run_on_are_refused_by_their_shapes(tmp_path: Path):
    with pytest.raises(InputError, match=r"does not run on input_ids \[2, 5\], attention_mask \[2, 7\]") as error:
        loaded(Encoder(), tmp_path, input_ids=np.zeros((9, 5), int), attention_mask=np.ones((9, 7), int))
    assert "by its parameters' names" in error.value.remedy


def test_arrays_that_are_a_part_of_what_a_module_needs_are_refused_by_what_is_missing(tmp_path: Path):
    with pytest.raises(
        InputError, match=r"needs input_ids, attention_mask, and --data has no attention_mask; it has input_ids"
    ):
        loaded(Encoder(), tmp_path, input_ids=TOKENS["input_ids"])


def test_settings_of_images_are_refused_with_their_own_remedy(tmp_path: Path):
    np.savez(tmp_path / "samples.npz", **TOKENS)
    settings = Settings(network="python:Encoder", data=tmp_path / "samples.npz", mean=(0.5,), std=(0.5,))
    with pytest.raises(InputError, match="takes no images, so --mean, --std cannot be heeded") as error:
        network_of(Encoder().eval(), settings, samples=samples_of(settings))
    assert error.value.remedy == "leave --mean, --std out"


def test_export_that_is_something_else_is_refused(tmp_path: Path):
    class Hides(Encoder):
        def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
            x = super().forward(input_ids, attention_mask)
            return x.flip(1) if torch.compiler.is_exporting() else x

    with pytest.raises(InputError, match="what is exported of the network differs from it by up to") as error:
        loaded(Hides(), tmp_path, **TOKENS)
    assert "FILE.onnx" in error.value.remedy


def test_module_that_cannot_be_exported_says_so(tmp_path: Path):
    class Decides(Encoder):
        def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
            x = super().forward(input_ids, attention_mask)
            return x if float(x.sum()) > 0 else -x

    with pytest.raises(InputError, match="cannot be exported to ONNX") as error:
        loaded(Decides(), tmp_path, **TOKENS)
    assert "FILE.onnx" in error.value.remedy


@pytest.mark.parametrize("given", [{}, {"input_ids": TENSORS["input_ids"]}, {**TENSORS, "other": TENSORS["input_ids"]}])
def test_network_of_named_inputs_names_what_it_takes(tmp_path: Path, given):
    network = loaded(Encoder(), tmp_path, **TOKENS)
    with pytest.raises(InputError, match="the network takes input_ids, attention_mask;"):
        outputs(network, given)


@pytest.mark.parametrize(
    "kind",
    ["DebertaV2", *(pytest.param(kind, marks=pytest.mark.slow) for kind in ("Bert", "Roberta", "MPNet", "ModernBert"))],
)
def test_encoders_of_the_library_are_taken_as_they_take_the_mask(tmp_path: Path, kind: str):
    """BERT's kind also takes it as what is added to the attention scores, DeBERTa only as the tokenizer gives it."""
    transformers = pytest.importorskip("transformers")
    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
    special = {f"{name}_token_id": 0 for name in ("pad", "bos", "eos", "cls", "sep")}
    config = getattr(transformers, f"{kind}Config")(vocab_size=WORDS, max_position_embeddings=32, **sizes, **special)
    network = loaded(getattr(transformers, f"{kind}Model")(config).eval(), tmp_path, **TOKENS)
    assert sum(block.droppable for block in find_blocks(network.traced, network.input_shape)) == 4
