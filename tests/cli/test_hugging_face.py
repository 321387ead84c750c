"""Hugging Face folders that cannot be taken."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from practise_deploy.network.loading.hugging_face import _positions
from samples.encoders import bert_folder

pytest.importorskip("transformers", reason='needs transformers: pip install "practise-deploy[transformers]"')
Cli = Callable[..., Any]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return bert_folder(tmp_path_factory.mktemp("bert") / "model")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda folder: (folder / "config.json").unlink(), ("holds no config.json", "hf:FOLDER")),
        (lambda folder: (folder / "model.safetensors").write_bytes(b"x"), ("cannot be read", "save_pretrained")),
    ],
    ids=["no configuration", "broken weights"],
)
def test_folder_that_cannot_be_read_is_an_error(cli: Cli, tmp_path: Path, change, words: tuple[str, ...]):
    broken = bert_folder(tmp_path / "broken")
    change(broken)
    said = cli("inspect", f"hf:{broken}")
    assert said.code == 2 and all(word in said.err for word in words) and "Traceback" not in said.err


def test_folder_that_is_not_there_is_said_so(cli: Cli):
    said = cli("inspect", "hf:nowhere")
    assert said.code == 2 and "no such folder: nowhere" in said.err


@pytest.mark.parametrize(
    ("pooling", "name"),
    [({"pooling_mode_max_tokens": True}, "max_tokens"), ({"pooling_mode": "weightedmean"}, "weightedmean")],
)
def test_pooling_that_is_not_known_is_refused(cli: Cli, folder: Path, tmp_path: Path, pooling: dict, name: str):
    pooled = shutil.copytree(folder, tmp_path / "pooled")
    (pooled / "1_Pooling").mkdir()
    (pooled / "1_Pooling" / "config.json").write_text(json.dumps(pooling), encoding="utf-8")
    said = cli("inspect", f"hf:{pooled}")
    assert said.code == 2 and f"pools its tokens by '{name}'" in said.err and "FILE.onnx" in said.err


@pytest.mark.parametrize(("kind", "padding", "longest"), [("bert", 0, 32), ("roberta", 1, 30), ("roberta", 0, 31)])
def test_positions_of_roberta_begin_behind_the_padding(kind: str, padding: int, longest: int):
    config = SimpleNamespace(model_type=kind, max_position_embeddings=32, pad_token_id=padding)
    assert _positions(config) == longest


def test_texts_beyond_what_the_encoder_takes_are_refused(cli: Cli, folder: Path):
    said = cli("inspect", f"hf:{folder}", "--sequence-length", 64)
    assert said.code == 2 and "takes 32 tokens at most, not 64" in said.err
    assert "give --sequence-length 32, or less" in said.err


def test_assumed_length_is_one_that_the_encoder_takes(cli: Cli, folder: Path):
    said = cli("inspect", f"hf:{folder}")
    assert said.code == 0 and "texts of 32 tokens, assumed" in said.err


def test_head_that_predicts_tokens_is_no_part_of_an_embedding(cli: Cli, folder: Path, tmp_path: Path):
    transformers = pytest.importorskip("transformers")
    masked = shutil.copytree(folder, tmp_path / "masked")
    config = transformers.AutoConfig.from_pretrained(folder)
    transformers.BertForMaskedLM(config).save_pretrained(masked)
    said = cli("inspect", f"hf:{masked}")
    assert said.code == 0 and f"{config.hidden_size} numbers" in said.err
    assert "the head of BertForMaskedLM is left out" in said.err


def test_networks_that_write_text_are_refused(cli: Cli, folder: Path, tmp_path: Path):
    writer = shutil.copytree(folder, tmp_path / "writer")
    config = {"model_type": "gpt2", "architectures": ["GPT2LMHeadModel"]}
    (writer / "config.json").write_text(json.dumps(config), encoding="utf-8")
    said = cli("inspect", f"hf:{writer}")
    assert said.code == 2 and "GPT2LMHeadModel, which writes text" in said.err


def test_export_that_is_something_else_than_the_librarys_own_call_is_refused(
    cli: Cli, folder: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("practise_deploy.network.loading.named_inputs._MASKED", 0.0)  # padding is attended to
    monkeypatch.setattr("practise_deploy.network.loading.hugging_face.takes_additive_mask", lambda *_: True)
    said = cli("inspect", f"hf:{folder}")
    assert said.code == 2 and "what is exported of the network differs from it by up to" in said.err
