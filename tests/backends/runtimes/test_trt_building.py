"""Engines built by the real builder of tensorrt_rtx, ahead of time: no GPU takes part."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from practise_backends.errors import BackendMissing, CompileError, DeviceUnavailable
from practise_backends.runtimes.tensorrt import EngineArtifact, Profile, TensorRtOptions, TensorRtRtxBackend
from practise_backends.terms import Conditions

pytest.importorskip("tensorrt_rtx", reason="the extra trt-rtx is not installed")

AHEAD = TensorRtOptions(target_archs=("sm86",))
COMPUTE = Conditions(clock="gpu_compute")

Write = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """`write(nodes, weights)`: a network of these nodes from x to y, in a file."""

    def made(
        nodes: list[Any], weights: list[Any] = (), *, shape: Any = (1, 3, 8, 8), kind: int = TensorProto.FLOAT
    ) -> Path:  # type: ignore[assignment]
        graph = helper.make_graph(
            nodes,
            "network",
            [helper.make_tensor_value_info("x", kind, shape)],
            [helper.make_tensor_value_info("y", kind, None)],
            list(weights),
        )
        domains = [helper.make_opsetid("", 18), helper.make_opsetid("com.acme", 1)]
        path = tmp_path / "network.onnx"
        onnx.save(helper.make_model(graph, opset_imports=domains, ir_version=10), path)
        return path

    return made


def weight(dtype: str = "float32") -> onnx.TensorProto:
    return numpy_helper.from_array(np.full((4, 3, 3, 3), 0.1, dtype=dtype), "w")


def convolution(input_name: str = "x", output: str = "y") -> onnx.NodeProto:
    return helper.make_node("Conv", [input_name, "w"], [output], name="conv_1")


def built(path: Path, options: TensorRtOptions = AHEAD, conditions: Conditions = COMPUTE) -> EngineArtifact:
    return TensorRtRtxBackend(options).compile(path, conditions)


def refused(path: Path, *words: str, options: TensorRtOptions = AHEAD, kind: type[Exception] = CompileError) -> None:
    with pytest.raises(kind) as found:
        built(path, options)
    said = f"{found.value} -> {getattr(found.value, 'remedy', '')}"
    for word in words:
        assert word in said


def test_engine_is_proved_to_compute_in_the_types_of_its_file(write: Write) -> None:
    artifact = built(write([convolution()], [weight()]))
    assert (artifact.format, artifact.precision_share, dict(artifact.others)) == ("tensorrt", 1.0, {})
    assert any("conv_1" in layer.nodes for layer in artifact.layers)
    assert isinstance(artifact.content, bytes) and len(artifact.content) > 1000


def test_asking_for_fp16_does_not_make_it_so(write: Write) -> None:
    artifact = built(write([convolution()], [weight()]), conditions=Conditions(clock="gpu_compute", precision="fp16"))
    assert artifact.precision_share == 0.0
    assert artifact.others == {"conv_1": "Float"}


def test_half_precision_of_the_file_is_kept(write: Write) -> None:
    path = write([convolution()], [weight("float16")], kind=TensorProto.FLOAT16)
    assert built(path, conditions=Conditions(clock="gpu_compute", precision="fp16")).precision_share == 1.0


def test_one_engine_serves_several_kinds_of_gpu(write: Write) -> None:
    artifact = built(write([convolution()], [weight()]), TensorRtOptions(target_archs=("sm86", "sm89", "sm120")))
    assert artifact.targets == ("sm86", "sm89", "sm120")


def test_dynamic_batch_gets_a_profile_by_itself(write: Write) -> None:
    artifact = built(write([convolution()], [weight()], shape=("N", 3, 8, 8)))
    assert artifact.inputs[0].shape == (-1, 3, 8, 8)


def test_profiles_reach_other_dynamic_dimensions(write: Write) -> None:
    path = write([convolution()], [weight()], shape=(1, 3, "H", "W"))
    refused(path, "dynamic dimensions besides the batch: 1x3x?x?", "--shape x=1x3x224x224", "profiles={'x': Profile")
    named = TensorRtRtxBackend(AHEAD).compile(path, COMPUTE, shapes={"x": (1, 3, 16, 16)})
    assert named.precision_share == 1.0
    shapes = Profile(least=(1, 3, 8, 8), best=(1, 3, 16, 16), most=(1, 3, 32, 32))
    assert built(path, TensorRtOptions(target_archs=("sm86",), profiles={"x": shapes})).precision_share == 1.0


@pytest.mark.parametrize(
    ("profiles", "words"),
    [
        ({"picture": Profile(least=(1,), best=(1,), most=(1,))}, ("no input 'picture'", "['x']")),
        ({"x": Profile(least=(1, 3, 8, 8), best=(2, 3, 8, 8), most=(1, 3, 8, 8))}, ("does not rise",)),
        ({"x": Profile(least=(1, 3, 9, 8), best=(1, 3, 9, 8), most=(1, 3, 9, 8))}, ("does not fit", "(-1)")),
        ({"x": Profile(least=(1, 3), best=(1, 3), most=(1, 3))}, ("does not fit", "(-1)")),
    ],
)
def test_profile_that_cannot_be_is_refused(write: Write, profiles: dict[str, Profile], words: tuple[str, ...]) -> None:
    path = write([convolution()], [weight()], shape=("N", 3, 8, 8))
    refused(path, *words, options=TensorRtOptions(target_archs=("sm86",), profiles=profiles))


QUANTISED = [
    helper.make_node("QuantizeLinear", ["x", "s", "z"], ["q"], name="quantise"),
    helper.make_node("DequantizeLinear", ["q", "s", "z"], ["d"], name="dequantise"),
    helper.make_node("Conv", ["d", "w"], ["y"], name="conv_1"),
]
BIASED = [
    helper.make_node("DequantizeLinear", ["b", "s", "z"], ["bias"], name="dequantise"),
    helper.make_node("Conv", ["x", "w", "bias"], ["y"], name="conv_1"),
]


def constant(name: str, array: Any) -> onnx.TensorProto:
    return numpy_helper.from_array(np.asarray(array), name)


SCALE = constant("s", np.float32(0.1))


class TestErrorsThatUsersMeet:
    def test_operator_that_nobody_knows(self, write: Write) -> None:
        node = helper.make_node("Fancy", ["x"], ["y"], name="my_fancy", domain="com.acme")
        refused(write([node]), "node 'my_fancy' (Fancy)", "no plugin of that name", "--backend ort")

    def test_operator_that_is_not_supported(self, write: Write) -> None:
        nodes = [
            helper.make_node("SequenceConstruct", ["x"], ["q"], name="sequence"),
            helper.make_node("SequenceAt", ["q", "at"], ["y"], name="at"),
        ]
        path = write(nodes, [constant("at", np.int64(0))])
        refused(path, "node 'sequence' (SequenceConstruct)", "does not support this operator")

    def test_mixed_types(self, write: Write) -> None:
        path = write([convolution()], [weight("float16")])
        refused(path, "node 'conv_1' (Conv)", "mixes Float and Half", "convert the whole network")

    def test_zero_point(self, write: Write) -> None:
        path = write(QUANTISED, [SCALE, constant("z", np.uint8(128)), weight()])
        refused(path, "node 'quantise' (QuantizeLinear)", "zero point", "ActivationSymmetric=True")

    def test_int32_bias(self, write: Write) -> None:
        path = write(BIASED, [SCALE, constant("b", np.zeros(4, np.int32)), constant("z", np.int32(0)), weight()])
        refused(path, "node 'dequantise' (DequantizeLinear)", "dequantises int32", "QuantizeBias=False")

    def test_truncated_file(self, write: Write) -> None:
        path = write([convolution()], [weight()])
        path.write_bytes(path.read_bytes()[:-40])
        refused(path, "network.onnx", "not an ONNX network")

    def test_float64(self, write: Write) -> None:
        refused(write([convolution()], [weight("float64")], kind=TensorProto.DOUBLE), "input 'x' is float64")

    def test_gpu_that_is_not_supported(self, write: Write) -> None:
        nodes = [helper.make_node("Gemm", ["x", "w"], ["y"], name="linear")]
        path = write(nodes, [constant("w", np.ones((8, 4), np.float32))], shape=(1, 8))
        refused(
            path,
            "'linear' cannot be built for Turing (SM75)",
            "FP32 GEMM",
            options=TensorRtOptions(target_archs=("sm75",)),
        )

    def test_gpu_that_nobody_knows(self, write: Write) -> None:
        path = write([convolution()], [weight()])
        refused(path, "does not build for sm87", "sm86", "sm120", options=TensorRtOptions(target_archs=("sm87",)))

    def test_absent_file(self, tmp_path: Path) -> None:
        refused(tmp_path / "absent.onnx", "absent.onnx", "give the path")

    def test_no_driver(self, write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
        def missing() -> None:
            raise DeviceUnavailable("there is no NVIDIA driver", remedy="install one")

        monkeypatch.setattr("practise_backends.runtimes.tensorrt.backend.first_gpu", missing)
        path = write([convolution()], [weight()])
        refused(path, "no NVIDIA driver", options=TensorRtOptions(), kind=DeviceUnavailable)

    def test_conditions_that_it_cannot_keep(self, write: Write) -> None:
        path = write([convolution()], [weight()])
        for conditions in (Conditions(clock="sundial"), Conditions(clock="gpu_compute", precision="int4")):
            with pytest.raises(CompileError, match=r"sundial|int4"):
                built(path, conditions=conditions)


def test_other_package_is_named_where_the_asked_one_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    from practise_backends.runtimes.tensorrt import TensorRtBackend

    monkeypatch.setitem(sys.modules, "tensorrt", None)
    with pytest.raises(BackendMissing, match="tensorrt_rtx is installed") as found:
        TensorRtBackend()
    assert found.value.exit_code == 3 and "--backend trt-rtx" in found.value.remedy


class Screen:
    """A screen that does something at every step."""

    def __init__(self, then: Callable[[], None] = lambda: None) -> None:
        self.shares: list[float] = []
        self._then = then

    def advance(self, done: float, total: float, note: str = "") -> None:
        self.shares.append(done / total)
        self._then()


def test_progress_is_shown(write: Write) -> None:
    screen = Screen()
    TensorRtRtxBackend(AHEAD).compile(write([convolution()], [weight()]), COMPUTE, progress=screen)
    assert len(screen.shares) > 5
    assert all(0 <= share <= 1 for share in screen.shares)
    assert screen.shares[-1] > 0.5


def test_ctrl_c_ends_a_build(write: Write) -> None:
    screen = Screen(lambda: os.kill(os.getpid(), signal.SIGINT))
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        TensorRtRtxBackend(AHEAD).compile(write([convolution()], [weight()]), COMPUTE, progress=screen)
    assert signal.getsignal(signal.SIGINT) is before


def test_what_the_screen_raises_is_not_lost(write: Write) -> None:
    def torn() -> None:
        raise BrokenPipeError("the reader went away")

    with pytest.raises(BrokenPipeError):
        TensorRtRtxBackend(AHEAD).compile(write([convolution()], [weight()]), COMPUTE, progress=Screen(torn))
