"""ONNX Runtime on the CPU."""

from __future__ import annotations

import hashlib
import importlib
import os
import re
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from practise_backends.choices import ClockKind, Precision
from practise_backends.errors import (
    BackendMissing,
    CompileError,
    DeviceUnavailable,
    EngineClosed,
    MeasureError,
    OutOfMemory,
    lacks_memory,
)
from practise_backends.files import temporary_folder
from practise_backends.interfaces import Capabilities, Progress
from practise_backends.machine.device import describe_cpu
from practise_backends.runtimes.external_data import read_with_weights
from practise_backends.runtimes.onnx_file import Network, content_of, label_of, read_network
from practise_backends.runtimes.precision import Share, share_of_fp32, share_of_int8
from practise_backends.terms import Artifact, Conditions, Device, Tensors, TensorSpec

PROVIDERS = ("CPUExecutionProvider",)
PRECISIONS = (Precision.FP32, Precision.INT8)
CLOCKS = (ClockKind.END_TO_END, ClockKind.WALL, ClockKind.CPU)
_ELEMENTS = {"float": "float32", "double": "float64"}
_FATAL_ONLY = 4
_THREADS_A_PROCESSOR = 4


class OrtBackend:
    """Networks run by ONNX Runtime's CPU provider.

    Raises: BackendMissing where onnxruntime is not installed.
    """

    name = "ort"
    capabilities = Capabilities(precisions=PRECISIONS, clocks=CLOCKS, unsigned_int8=True, cold_start=True)

    def __init__(self) -> None:
        self._runtime = import_onnxruntime()

    def device(self) -> Device:
        """The CPU as it is now."""
        return describe_cpu({"onnxruntime": str(self._runtime.__version__)})

    def compile(
        self,
        model: bytes | Path,
        conditions: Conditions,
        *,
        build: int = 0,
        shapes: Mapping[str, tuple[int, ...]] | None = None,
        progress: Progress | None = None,
    ) -> Artifact:
        """Check that the network loads; ONNX Runtime compiles anew whenever it is opened.

        Takes an ONNX network, or a file of ONNX Runtime's own format (`.ort`), which cannot be looked into.
        `sha256` covers the file and, after it, its external weight files in the order of their names.
        `precision_share` is read from the file for fp32, for int8 from the graph as ONNX Runtime optimised it
        (see `precision`).
        Raises: CompileError where the network or the conditions cannot be run.
        """
        _refuse_unsupported(conditions)
        if isinstance(model, Path) and model.suffix == ".engine":
            raise CompileError(f"{model} is a TensorRT engine", remedy="give --backend trt or trt-rtx")
        network, sha256 = _read(model)
        engine = OrtEngine(model, conditions)
        engine.close()
        share = _share(model, network, conditions)
        return Artifact(
            content=model,
            sha256=sha256,
            format="ort" if network is None else "onnx",
            precision=conditions.precision,
            precision_share=share.share,
            inputs=engine.inputs,
            outputs=engine.outputs,
            device_fingerprint=self.device().fingerprint,
            others=share.others,
        )

    def save(self, artifact: Artifact, path: Path) -> tuple[Path, ...]:
        """Nothing: the network's own file is what is run."""
        return ()

    def load(self, file: Path, conditions: Conditions) -> Artifact:
        """The same as to compile it."""
        return self.compile(file, conditions)

    def open(self, artifact: Artifact, conditions: Conditions, *, optimise: bool = True) -> OrtEngine:
        """Load a network; `optimise=False` turns all graph optimisations off."""
        _refuse_unsupported(conditions)
        return OrtEngine(artifact.content, conditions, optimise=optimise)


class OrtEngine:
    """A network loaded by ONNX Runtime; timed by the CPU's counter around one whole run.

    Raises: CompileError where the network does not load; DeviceUnavailable where it would run elsewhere.
    """

    def __init__(self, model: bytes | Path, conditions: Conditions, *, optimise: bool = True) -> None:
        self._session: Any = _session(model, _options(conditions, optimise))
        self.computes_in_caller: bool | None = conditions.threads == 1
        self.runs_a_timing = 1
        _check_providers(self._session.get_providers())
        self.inputs = tuple(_spec(node_arg) for node_arg in self._session.get_inputs())
        self.outputs = tuple(_spec(node_arg) for node_arg in self._session.get_outputs())
        self._output_names = [spec.name for spec in self.outputs]

    def run(self, tensors: Tensors) -> dict[str, npt.NDArray[np.generic]]:
        """Compute all outputs, by name.

        Raises: MeasureError where the tensors do not fit the inputs, or the engine is closed.
        """
        arrays = _call(self._loaded(), self._output_names, dict(tensors))
        return dict(zip(self._output_names, arrays, strict=True))

    def time_once(self, tensors: Tensors) -> float:
        """Milliseconds of one run."""
        session, feeds = self._loaded(), dict(tensors)
        began = time.perf_counter_ns()
        _call(session, self._output_names, feeds)
        return (time.perf_counter_ns() - began) / 1e6

    def close(self) -> None:
        """Free the session."""
        self._session = None

    def _loaded(self) -> Any:
        """The session; an error once it is closed."""
        if self._session is None:
            raise EngineClosed(spec.name for spec in self.inputs)
        return self._session


def import_onnxruntime() -> Any:
    """The runtime, imported when it is first needed; what it would log, in colours and in the words of a file, its errors say too."""
    try:
        runtime = importlib.import_module("onnxruntime")
        runtime.set_default_logger_severity(_FATAL_ONLY)
        return runtime
    except ImportError as error:
        if lacks_memory(error):
            raise OutOfMemory("onnxruntime cannot be loaded") from error
        raise BackendMissing(
            f"backend 'ort' needs onnxruntime: {error}", remedy='pip install "practise-backends[ort]"'
        ) from error


def _refuse_unsupported(conditions: Conditions) -> None:
    """Refuse conditions that this backend would silently not meet."""
    if conditions.precision not in PRECISIONS:
        raise CompileError(
            f"backend 'ort' cannot run with precision '{conditions.precision}': it would compute in float32 on the CPU",
            remedy=f"use one of: {', '.join(PRECISIONS)}",
        )
    if conditions.clock not in CLOCKS:
        raise CompileError(
            f"backend 'ort' cannot be timed by '{conditions.clock}'",
            remedy=f"use one of: {', '.join(CLOCKS)}",
        )
    if conditions.cuda_graph:
        raise CompileError(
            "backend 'ort' cannot run with --cuda-graph: it computes on the CPU", remedy="leave it out"
        )
    if conditions.clock == ClockKind.CPU and conditions.threads > 1:
        raise CompileError(
            f"the CPU time of an engine with {conditions.threads} threads cannot be told",
            remedy="use --threads 1, or --clock wall",
        )
    most = _THREADS_A_PROCESSOR * (os.cpu_count() or 1)
    if not 1 <= conditions.threads <= most:
        raise CompileError(
            f"{conditions.threads} threads cannot be measured: beyond {_THREADS_A_PROCESSOR} for each of this machine's "
            f"{most // _THREADS_A_PROCESSOR} processor(s) they only wait for each other",
            remedy=f"ask for 1 to {most} threads",
        )


def _read(model: bytes | Path) -> tuple[Network | None, str]:
    """The parsed network (None in the runtime's own format), and the sha256 of its content."""
    content = content_of(model)
    if _is_ort_format(model, content):
        return None, hashlib.sha256(content).hexdigest()
    return read_with_weights(model)


def _share(model: bytes | Path, network: Network | None, conditions: Conditions) -> Share:
    """How much computes in the precision; unknown for the runtime's own format."""
    if network is None:
        return Share(share=None, others={})
    if conditions.precision == Precision.INT8:
        return share_of_int8(_optimised(model, conditions))
    return share_of_fp32(network)


def _optimised(model: bytes | Path, conditions: Conditions) -> Network:
    """The network as the runtime will run it, written out by the runtime itself."""
    with temporary_folder() as folder:
        options = _options(conditions, optimise=True)
        options.optimized_model_filepath = str(folder / "optimised.onnx")
        _session(model, options)
        return read_network(content_of(Path(options.optimized_model_filepath)))


def _is_ort_format(model: bytes | Path, content: bytes) -> bool:
    """Whether the runtime takes it for its own format: a file by its ending, bytes by their mark."""
    return model.suffix.lower() == ".ort" if isinstance(model, Path) else content[4:8] == b"ORTM"


def _options(conditions: Conditions, optimise: bool) -> Any:
    """The session's options: `threads` for one operator, operators one after another.

    With several threads spinning stops with each run, so that an idle session does not burn the cores of
    the next one.
    """
    runtime = import_onnxruntime()
    level = runtime.GraphOptimizationLevel
    options = runtime.SessionOptions()
    options.intra_op_num_threads = conditions.threads
    options.inter_op_num_threads = 1
    options.execution_mode = runtime.ExecutionMode.ORT_SEQUENTIAL
    options.graph_optimization_level = level.ORT_ENABLE_ALL if optimise else level.ORT_DISABLE_ALL
    options.log_severity_level = _FATAL_ONLY
    if conditions.threads > 1:
        options.add_session_config_entry("session.force_spinning_stop", "1")
    return options


def _session(model: bytes | Path, options: Any) -> Any:
    """A session, or a CompileError that names the file, the cause and the remedy."""
    runtime = import_onnxruntime()
    source = str(model) if isinstance(model, Path) else model
    try:
        return runtime.InferenceSession(
            source, sess_options=options, providers=list(PROVIDERS), enable_fallback=False
        )
    except Exception as error:  # the runtime raises a dozen classes without a common public base
        if lacks_memory(error):
            raise OutOfMemory(f"{label_of(model)} does not load") from error
        raise _compile_error(label_of(model), str(error), str(runtime.__version__)) from error


def _compile_error(label: str, message: str, version: str) -> CompileError:
    """The runtime's words, with what to do about them."""
    operator = re.search(r"(?:implementation|registered) for (\w+)", message)
    cause = " ".join(message.split())
    remedy = "check the file with onnx.checker, and export it again"
    if label.lower().endswith(".ort"):
        remedy = f"convert the ONNX file again, with onnxruntime {version} itself"
    if operator or "NOT_IMPLEMENTED" in message or "not a registered" in message:
        remedy = f"export with an opset and operators that onnxruntime {version} supports"
    elif "opset" in message.lower() or "IR version" in message:
        remedy = f"export with an older opset, or install a newer onnxruntime than {version}"
    where = f" (operator {operator[1]})" if operator else ""
    return CompileError(f"{label} does not load in onnxruntime{where}: {cause}", remedy=remedy)


def _check_providers(providers: Sequence[str]) -> None:
    """No silent fallback: the session must run where it was asked to."""
    if tuple(providers) != PROVIDERS:
        raise DeviceUnavailable(
            f"asked for {list(PROVIDERS)}, but the session runs on {list(providers)}",
            remedy="install an onnxruntime that has the provider",
        )


def _spec(node_arg: Any) -> TensorSpec:
    """An input or output as the session describes it, with numpy's name of the type."""
    match = re.fullmatch(r"tensor\((\w+)\)", node_arg.type)
    if match is None:
        raise CompileError(f"'{node_arg.name}' is a {node_arg.type}", remedy="export with tensors alone")
    shape = tuple(dim if isinstance(dim, int) and dim >= 0 else -1 for dim in node_arg.shape)
    return TensorSpec(name=node_arg.name, shape=shape, dtype=_ELEMENTS.get(match[1], match[1]))


def _call(session: Any, outputs: list[str], feeds: dict[str, Any]) -> list[npt.NDArray[np.generic]]:
    """One run; the runtime's refusal becomes a MeasureError."""
    try:
        return session.run(outputs, feeds)
    except Exception as error:  # the runtime raises a dozen classes without a common public base
        if lacks_memory(error):
            raise OutOfMemory("the engine could not run") from error
        raise MeasureError(
            f"the engine refused to run: {' '.join(str(error).split())}",
            remedy="feed every input, with its type and shape",
        ) from error
