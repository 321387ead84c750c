"""TensorRT's words turned into node, cause and remedy: those that take no GPU to hear are in test_trt_building."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from practise_backends.errors import BackendError, CompileError, DeviceUnavailable
from practise_backends.runtimes.tensorrt.log_capture import LogCapture
from practise_backends.runtimes.tensorrt.package import TensorRtPackage
from practise_backends.runtimes.tensorrt.remedies import refused_by_builder, refused_by_parser

PROVIDER = TensorRtPackage(backend="trt", name="tensorrt", module=SimpleNamespace(__version__="10.3.0"))


def refused(*said: str) -> BackendError:
    return refused_by_builder("net.onnx", LogCapture([("ERROR", text) for text in said]), PROVIDER)


@pytest.mark.parametrize(
    ("said", "cause", "remedy", "kind"),
    [
        ("Network has dynamic or shape inputs, but no optimization profile has been defined.", "no profile says",
         "profiles={...}", CompileError),
        ("Dynamic input tensor image is missing dimensions in profile 0.", "leaves out the input 'image'",
         "profiles={...}", CompileError),
        ("Dimension mismatch for tensor x and profile 0. At dimension axis 2, profile has min=100, opt=100, max=100 but "
         "tensor has 224.", "dimension 2 of the input 'x' as 100, the network has 224", "dynamic dimensions", CompileError),
        ("(add_1: elementwise inputs must have same input types. They are of types Float and Half)", "mixes Float and Half",
         "one type", CompileError),
        ("Network must have at least one output", "no output was found", "onnx.checker", CompileError),
        ("Cuda Runtime (cudaError 35: CUDA driver version is insufficient)", "no NVIDIA driver, or it is too old",
         "--target-archs sm86,sm89", DeviceUnavailable),
        ("Requested amount of GPU memory (8589934592 bytes) could not be allocated.", "memory does not suffice",
         "--workspace-mib", DeviceUnavailable),
        ("Could not find any implementation for node conv_1.", "no kernel for 'conv_1", "--workspace-mib", CompileError),
        ("Something new happened", "Something new happened", "--backend ort", CompileError),
    ],
)  # fmt: skip
def test_words_become_cause_and_remedy(said: str, cause: str, remedy: str, kind: type[BackendError]) -> None:
    found = refused(said)
    assert type(found) is kind
    assert "net.onnx" in found.message and cause in found.message
    assert remedy in found.remedy


def test_builder_that_says_nothing_is_said_to() -> None:
    assert "it does not say why" in refused().message


def test_parser_of_a_version_without_names_of_nodes_is_understood() -> None:
    error = SimpleNamespace(desc=lambda: "false", code=lambda: "ErrorCode.UNSUPPORTED_NODE", node=lambda: 3)
    parser = SimpleNamespace(num_errors=1, get_error=lambda at: error)
    found = refused_by_parser("net.onnx", parser, LogCapture(), PROVIDER)
    assert found.message == "net.onnx: TensorRT does not support this operator, or not in this form"
