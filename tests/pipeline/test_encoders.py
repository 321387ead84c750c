"""A text encoder from a Hugging Face folder and a file of sentences to a smaller ONNX file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime
import pytest

from practise_deploy.errors import InputError
from practise_deploy.terms import TaskKind
from samples.encoders import bert_folder, encoder_file, sentences, tokens

from .scripted import ScriptedOrt, device, make_build, ms_by_products

pytest.importorskip("transformers", reason='needs transformers: pip install "practise-deploy[transformers]"')


def test_encoder_is_built_from_sentences_and_takes_the_tokenizers_arrays(tmp_path: Path):
    folder, texts = bert_folder(tmp_path / "bert"), tmp_path / "texts.txt"
    texts.write_text("\n".join(sentences(40)))
    given = {"network": f"hf:{folder}", "data": texts, "drop": 1, "max_drop": 100.0, "iterations": 1, "frontier": False}
    with device(ScriptedOrt(ms_by_products)):
        build = make_build(tmp_path / "run", **given)
        release = build.release
    loss, notes = release.verification.loss, build.context.network.summary.notes
    assert loss is not None and loss.kind is TaskKind.EMBEDDING and release.verification.faithful
    assert any("the mean of the tokens' states, of length 1" in note for note in notes)
    assert any("of 16 tokens, the longest text" in note for note in notes)
    report = (tmp_path / "run" / "report.md").read_text()
    assert (
        "Mean cosine" in report and "10 held-out texts" in report and "held-out images" not in release.verdict.sentence
    )
    session = onnxruntime.InferenceSession(str(tmp_path / "run" / "model.onnx"), providers=["CPUExecutionProvider"])
    assert [each.name for each in session.get_inputs()] == ["input_ids", "token_type_ids", "attention_mask"]
    assert session.get_outputs()[0].shape[1:] == [16]
    longer = {**given, "latency_table": tmp_path / "run" / "latency.json", "sequence_length": 24}
    with (
        device(ScriptedOrt(ms_by_products)),
        pytest.raises(InputError, match=r"input \[1, 16\], this network has \[1, 24\]"),
    ):
        assert make_build(tmp_path / "longer", **longer).latency


def test_encoder_file_is_built_from_arrays_in_int8_too(tmp_path: Path):
    np.savez(tmp_path / "tokens.npz", **tokens(40))
    file = encoder_file(tmp_path / "encoder.onnx")
    given = {"network": str(file), "data": tmp_path / "tokens.npz", "drop": 1, "max_drop": "none", "iterations": 1}
    with device(ScriptedOrt(ms_by_products)):
        release = make_build(tmp_path / "run", **given, frontier=False, precision="int8").release
        levers = make_build(tmp_path / "run", **given).measured_levers
    assert release.compiled.precision == "int8" and release.verification.original is not None
    assert {point.precision for point in levers.points} == {"fp32", "int8"}
    assert all(point.loss and point.loss.kind is TaskKind.EMBEDDING for point in levers.points)
    assert levers.notes[-1].startswith("--drop: of no part here")
