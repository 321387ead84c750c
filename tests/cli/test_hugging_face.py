"""Hugging Face folders that cannot be taken."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

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


def test_texts_beyond_what_the_encoder_takes_are_refused(cli: Cli, folder: Path):
    said = cli("inspect", f"hf:{folder}", "--sequence-length", 64)
    assert said.code == 2 and "takes 32 tokens at most, not 64" in said.err
