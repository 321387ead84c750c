"""What the backend uses of TensorRT's Python API exists in 10, 11 and RTX, by the lists that were read off the packages."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import practise_backends.runtimes.tensorrt as backend
from conftest import SHARED_DATA

LISTS = SHARED_DATA / "tensorrt-api"
FOLDER = Path(backend.__file__).parent

# The class of what a name holds, wherever the backend's files use that name.
CLASSES = {
    "builder": "Builder",
    "network": "INetworkDefinition",
    "config": "IBuilderConfig",
    "profile": "IOptimizationProfile",
    "cache": "ITimingCache",
    "parser": "OnnxParser",
    "runtime": "Runtime",
    "_runtime": "Runtime",
    "engine": "ICudaEngine",
    "_engine": "ICudaEngine",
    "context": "IExecutionContext",
    "_context": "IExecutionContext",
    "inspector": "EngineInspector",
}
FILES = ("building.py", "engine.py", "bindings.py", "monitor.py", "log_capture.py", "package.py")
NOT_TENSORRT = {"building.py": {"network"}, "cuda_python.py": {"runtime"}}

# Used only where the module has it (`TensorRtPackage.builds_ahead`, `graphs_by_itself`).
RTX_ALONE = {
    ("module", "ComputeCapability"),
    ("module", "CudaGraphStrategy"),
    ("CudaGraphStrategy", "WHOLE_GRAPH_CAPTURE"),
    ("CudaGraphStrategy", "DISABLED"),
    ("IBuilderConfig", "num_compute_capabilities"),
    ("IBuilderConfig", "set_compute_capability"),
    ("IRuntimeConfig", "cuda_graph_strategy"),
}

LISTED_BY_NAME = {"TensorIOMode": ("INPUT",)}  # the lists name this enumeration without its members

pytestmark = [
    pytest.mark.data,
    pytest.mark.skipif(not LISTS.is_dir(), reason=f"needs the lists of TensorRT's API in {LISTS}"),
]

Used = tuple[str, str]


def told(text: str) -> dict[str, set[str]]:
    """A list's classes and enumerations, and what each has; `None` marks one that the package lacks."""
    found: dict[str, set[str]] = {}
    for line in text.splitlines():
        name, _, members = line.removeprefix("== ").partition(" ")
        if members and members != "None":
            found[name] = set(ast.literal_eval(members))
    found["module"] = found["ALL"]
    return found


def chain(node: ast.AST) -> list[str]:
    """`package.module.DataType.HALF` as its names."""
    if isinstance(node, ast.Attribute):
        return [*chain(node.value), node.attr]
    return [node.id] if isinstance(node, ast.Name) else [""]


def used_in(path: Path) -> Iterator[Used]:
    """What a file uses: (class, attribute), and ("module", name) of the package's own names."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if not isinstance(node, ast.Attribute):
            continue
        names = chain(node)
        at = next((k + 1 for k, name in enumerate(names) if name in ("module", "trt")), None)
        if at is not None and len(names) > at:
            yield "module", names[at]
            if len(names) > at + 1:
                yield names[at], names[at + 1]
        elif names[-2] in CLASSES and names[-2] not in NOT_TENSORRT.get(path.name, ()):
            yield CLASSES[names[-2]], names[-1]


def everything_used() -> set[Used]:
    """Of all files; a runtime's configuration is told from a builder's by its file, a strategy by its name."""
    found: set[Used] = set()
    for name in FILES:
        for owner, attribute in used_in(FOLDER / name):
            if name == "engine.py" and owner == "IBuilderConfig":
                owner = "IRuntimeConfig"
            if attribute.startswith("__"):
                continue
            found.add((owner, attribute))
    return found


def test_the_uses_that_matter_are_seen() -> None:
    found = everything_used()
    assert {
        ("Builder", "build_serialized_network"),
        ("OnnxParser", "parse_from_file"),
        ("IBuilderConfig", "progress_monitor"),
        ("IExecutionContext", "execute_async_v3"),
        ("ICudaEngine", "get_tensor_mode"),
        ("module", "NetworkDefinitionCreationFlag"),
        ("NetworkDefinitionCreationFlag", "STRONGLY_TYPED"),
        ("IRuntimeConfig", "cuda_graph_strategy"),
    } <= found


@pytest.mark.parametrize("package", ["10", "11", "rtx"])
def test_all_that_is_used_exists(package: str) -> None:
    has = told((LISTS / f"api_{package}.txt").read_text(encoding="utf-8"))
    missing = [
        (owner, attribute)
        for owner, attribute in sorted(everything_used())
        if (package == "rtx" or (owner, attribute) not in RTX_ALONE)
        and attribute not in has.get(owner, LISTED_BY_NAME.get(owner, ()))
    ]
    assert missing == []
