"""Random tensors that several networks share."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, numpy_helper

from backends.conftest import chain
from practise_backends.errors import MeasureError
from practise_backends.interfaces import MeasurementSetup
from practise_backends.rounds.feeds import select_feeds, shared_feeds
from practise_backends.rounds.sessions import Candidate, opened
from practise_backends.runtimes.ort import OrtBackend
from practise_backends.terms import Conditions, StoppingRule, TensorSpec

BENCH = MeasurementSetup(backend=OrtBackend(), conditions=Conditions(), stopping_rule=StoppingRule(budget_s=1.0))


def image(dtype: str, side: int = 8) -> TensorSpec:
    return TensorSpec(name="image", shape=(-1, 4, side, side), dtype=dtype)


@pytest.mark.parametrize("order", [("float16", "float32"), ("float32", "float16")])
def test_floats_of_two_widths_are_the_same_values(order: tuple[str, str]) -> None:
    specs = {dtype: (image(dtype),) for dtype in order}
    feeds = shared_feeds(specs, BENCH)
    assert feeds["image"].dtype == "float32"
    half, whole = (select_feeds(specs[dtype], feeds)["image"] for dtype in ("float16", "float32"))
    assert (half.dtype, whole.dtype) == ("float16", "float32")
    np.testing.assert_array_equal(half, whole.astype(np.float16))


@pytest.mark.parametrize("other", [image("int32"), image("float32", side=16)], ids=["type", "shape"])
def test_other_types_and_shapes_cannot_be_shared(other: TensorSpec) -> None:
    with pytest.raises(MeasureError, match=r"in 'new', but float32 \(1, 4, 8, 8\) in an earlier network"):
        shared_feeds({"original": (image("float32"),), "new": (other,)}, BENCH)


def test_what_is_not_fed_is_named() -> None:
    with pytest.raises(MeasureError, match="an input 'image' that is not fed") as found:
        select_feeds((image("float32"),), {"tokens": np.zeros(1, np.int64)})
    assert "tokens" in found.value.remedy


def test_a_network_is_measured_beside_itself_in_half_precision(tmp_path: Path) -> None:
    whole, half = tmp_path / "whole.onnx", tmp_path / "half.onnx"
    onnx.save(chain(2), whole)
    onnx.save(in_half(chain(2)), half)
    with opened(
        {"original": Candidate(model=whole, sessions=1), "new": Candidate(model=half, sessions=1)}, BENCH
    ) as found:
        outputs = {
            name: engine.run(select_feeds(engine.inputs, found.feeds))["features"]
            for name, (engine,) in found.engines.items()
        }
    assert outputs["new"].dtype == "float16"
    np.testing.assert_allclose(outputs["new"], outputs["original"], atol=5e-3)


def in_half(network: onnx.ModelProto) -> onnx.ModelProto:
    """The same chain in float16, its input and output too."""
    for tensor in network.graph.initializer:
        tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float16), tensor.name))
    for value in (*network.graph.input, *network.graph.output):
        value.type.tensor_type.elem_type = TensorProto.FLOAT16
    return network
