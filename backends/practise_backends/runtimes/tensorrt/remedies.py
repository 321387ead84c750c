"""What TensorRT says when it refuses a network, turned into: which node, why, and what to do.

The parser's own words may be just `false`. Most patterns were read off real refusals of RTX 1.7; those of a GPU at hand (its
memory, no implementation) and the second one of mixed types are the words that TensorRT 10 is known to use. What none of
them knows is passed on in TensorRT's words.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from practise_backends.errors import BackendError, CompileError, DeviceUnavailable
from practise_backends.runtimes.tensorrt.log_capture import LogCapture
from practise_backends.runtimes.tensorrt.package import TensorRtPackage


@dataclass(frozen=True, slots=True)
class _Rule:
    """A pattern of TensorRT's words; cause may use the pattern's groups by name."""

    pattern: str
    cause: str
    remedy: str
    error: type[BackendError] = CompileError


_UNSUPPORTED = "UNSUPPORTED_NODE"
_DOCUMENT = "check the file with onnx.checker, and export it again"
_RULES = (
    _Rule(
        r"Plugin not found",
        "no operator of TensorRT, and no plugin of that name is loaded",
        "replace the operator before the export by ones of the ONNX standard, or run this network with --backend ort",
    ),
    _Rule(
        r"must be of same type\.? `?\w*`? ?type is (?P<one>\w+) but `?\w+`? is of type (?P<two>\w+)",
        "it mixes {one} and {two}; a strongly typed network casts nothing by itself",
        "convert the whole network to one type, or put a Cast before that node",
    ),
    _Rule(
        r"must have (?:the )?same input types.*?(?P<one>Float|Half|BFloat16|Int8|Int32).*?(?P<two>Float|Half|BFloat16|Int8|Int32)",
        "it mixes {one} and {two}; a strongly typed network casts nothing by itself",
        "convert the whole network to one type, or put a Cast before that node",
    ),
    _Rule(
        r"input has type Int32 but must have type",
        "it dequantises int32, as onnxruntime quantises biases by default; TensorRT takes 8 and 4 bit types alone",
        "quantise with onnxruntime's QuantizeBias=False",
    ),
    _Rule(
        r"Non-zero zero point is not supported|zero.?point.*(?:zero|symmetric)|UINT8_AND_ASYMMETRIC",
        "it quantises with a zero point that is not 0, as onnxruntime does by default (uint8); TensorRT takes symmetric int8",
        "quantise with onnxruntime's ActivationSymmetric=True and QuantType.QInt8",
    ),
    _Rule(
        r"Failed to parse the ONNX model|MODEL_DESERIALIZE_FAILED",
        "it is not a whole ONNX file",
        _DOCUMENT,
    ),
    _Rule(
        r"Network must have at least one output",
        "it holds no network: no output was found",
        _DOCUMENT,
    ),
    _Rule(
        r"no optimization profile has been defined",
        "it has inputs of dynamic shape, and no profile says which shapes will come",
        "export with fixed shapes, or give --shape (in Python: TensorRtOptions(profiles={{...}}))",
    ),
    _Rule(
        r"Dynamic input tensor (?P<one>\S+) is missing dimensions in profile",
        "the profile leaves out the input '{one}', whose shape is dynamic",
        "give it too: --shape, or TensorRtOptions(profiles={{...}}) in Python",
    ),
    _Rule(
        r"Dimension mismatch for tensor (?P<one>\S+) and profile.*?axis (?P<axis>\d+), profile has min=(?P<min>\d+).*?tensor has (?P<has>\d+)",
        "the profile gives dimension {axis} of the input '{one}' as {min}, the network has {has} there",
        "change only dynamic dimensions in the profile",
    ),
    _Rule(
        r"Cannot compile operation '(?P<one>[^']*)' for (?P<two>[^:]*): (?P<why>[^.]*)",
        "'{one}' cannot be built for {two}: {why}",
        "leave that GPU out of the targets, or try a network in float16",
    ),
    _Rule(
        r"cudaError 35|driver version is insufficient",
        "there is no NVIDIA driver, or it is too old for this TensorRT",
        "install a newer driver (nvidia-smi shows which CUDA it serves), or build ahead: --backend trt-rtx --target-archs sm86,sm89",
        DeviceUnavailable,
    ),
    _Rule(
        r"(?i)out of memory|cudaErrorMemoryAllocation|Requested amount of GPU memory",
        "the GPU's memory does not suffice to build it",
        "close what else runs on the GPU (nvidia-smi lists it), or give --workspace-mib a smaller figure",
        DeviceUnavailable,
    ),
    _Rule(
        r"Could not find any implementation for node (?P<one>\S+)",
        "no kernel for '{one}' fits this GPU and workspace",
        "give --workspace-mib a larger figure, or try another precision",
    ),
    _Rule(
        rf"^{_UNSUPPORTED}$",
        "TensorRT does not support this operator, or not in this form",
        "replace it before the export, or run this network with --backend ort",
    ),
    _Rule(
        r"Input file cannot be found",
        "there is no such file",
        "check the path",
    ),
)


def refused_by_parser(label: str, parser: Any, log: LogCapture, package: TensorRtPackage) -> BackendError:
    """Why the parser did not take the network: its first error, with the node."""
    errors = [parser.get_error(at) for at in range(parser.num_errors)]
    if not errors:
        return _composed(label, "cannot be read by", log.errors, package)
    message, code = str(errors[0].desc()), str(errors[0].code()).rpartition(".")[2]
    words = (
        _UNSUPPORTED
        if code.startswith("UNSUPPORTED") and message.strip() in ("", "false")
        else f"{code}: {message}"
    )
    return _composed(f"{label}{_node(errors[0])}", "cannot be read by", [words], package)


def refused_by_builder(label: str, log: LogCapture, package: TensorRtPackage) -> BackendError:
    """Why the builder gave no engine."""
    return _composed(label, "does not build with", log.errors, package)


def _composed(subject: str, verb: str, messages: Sequence[str], package: TensorRtPackage) -> BackendError:
    words = " ".join(" ".join(messages).split())
    for rule in _RULES:
        if (match := re.search(rule.pattern, words)) is not None:
            groups = {name: text.strip() for name, text in match.groupdict().items()}
            return rule.error(
                f"{subject}: {rule.cause.format(**groups)}", remedy=rule.remedy.format(**groups)
            )
    explanation = words or "it does not say why"
    remedy = (
        f"export with operators that {package.name} {package.version} supports, or run it with --backend ort"
    )
    return CompileError(f"{subject} {verb} {package.name} {package.version}: {explanation}", remedy=remedy)


def _node(error: Any) -> str:
    """The node of a parser's error, as far as this version tells."""
    name, operator = _error_field(error, "node_name"), _error_field(error, "node_operator")
    if not name and not operator:
        return ""
    return f", node '{name}' ({operator})" if name and operator else f", node {name or operator}"


def _error_field(error: Any, what: str) -> str:
    verb = getattr(error, what, None)
    return str(verb() or "") if verb is not None else ""
