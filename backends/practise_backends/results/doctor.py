"""Look at a machine before it is measured: what is missing, what disturbs, and which differences can be seen."""

from __future__ import annotations

import math
import os
import platform
import time
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from practise_backends.errors import BackendError, lacks_memory
from practise_backends.interfaces import MeasurementSetup, Progress
from practise_backends.machine.device import describe_cpu
from practise_backends.machine.environment import SystemMonitor
from practise_backends.results.checks import Finding, Level, MachineState, run_checks
from practise_backends.runtimes.catalog import available_backends, backend_class, load_backend
from practise_backends.terms import SCHEMA, Conditions, Device, Environment, Interval, StoppingRule

ENVIRONMENT_MISSING = 3
SELF_TEST_NETWORK = Path(__file__).with_name("yardstick.onnx")

_FOR_DEVICES = ("tensorrt", "tensorrt-rtx-cu13", "pycuda", "nvidia-ml-py", "mlcommons-loadgen")
_PACKAGES = ("practise-backends", "numpy", "onnxruntime", *_FOR_DEVICES)
_OPTIONAL_PACKAGES = ("practise-deploy", "torch", "onnx", "onnxruntime-gpu")


@dataclass(frozen=True, slots=True, kw_only=True)
class SelfTest:
    """A network measured against itself. visible_percent: the least difference that is seen in `seconds`."""

    ratio: Interval
    visible_percent: float
    rounds: int
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkup:
    """What was found. usable: the backends that load and have their device. self_test: None where not run."""

    schema: int = SCHEMA
    asked: str | None
    device: Device
    usable: tuple[str, ...]
    findings: tuple[Finding, ...]
    environment: Environment
    self_test: SelfTest | None


def examine(
    backend_name: str | None,
    *,
    root: Path = Path("/"),
    variables: Mapping[str, str] = os.environ,
    test_s: float = 6.0,
    progress: Progress | None = None,
) -> Checkup:
    """Look at packages, backends and the machine; then, where a backend without a GPU can be used, measure a network twice.

    root: where `proc` and `sys` are looked for. test_s: seconds of the self-test; 0 leaves it out.
    """
    monitor = SystemMonitor(root=root, gpu=True)
    device = describe_cpu({}, root=root)
    usable, findings = _look_at_backends(backend_name)
    testable = [name for name in usable if not backend_class(name).capabilities.on_gpu]
    test, outcome = _try_out(testable[0], test_s, progress) if testable and test_s > 0 else (None, [])
    now = monitor.environment()
    machine = MachineState(
        wants_gpu=_on_gpu(backend_name),
        root=root,
        properties=device.facts,
        environment=now,
        variables=variables,
    )
    return Checkup(
        asked=backend_name,
        device=device,
        usable=usable,
        findings=(_packages(), *findings, *run_checks(machine), *outcome),
        environment=now,
        self_test=test,
    )


def exit_code(checkup: Checkup) -> int:
    """3 where the requested backend, or without a request every backend, cannot be used; else 0."""
    works = checkup.asked in checkup.usable if checkup.asked is not None else bool(checkup.usable)
    return 0 if works else ENVIRONMENT_MISSING


def render(checkup: Checkup) -> str:
    """The checkup as text: one finding a line, its remedy below."""
    lines = [f"{checkup.device.name}, {checkup.device.facts.get('logical_cores', '?')} processor(s)", ""]
    for finding in checkup.findings:
        lines.append(f"{finding.level:4}  {finding.subject}: {finding.said}")
        lines += [f"      -> {finding.remedy}"] if finding.remedy else []
    return "\n".join(lines) + "\n"


def self_test(backend_name: str, seconds: float, progress: Progress | None = None) -> SelfTest:
    """Measure a network of three convolutions against itself.

    Raises: BackendError where it cannot be measured.
    """
    from practise_backends.results.compare import compare

    began_s = time.monotonic()
    rule = StoppingRule(budget_s=seconds, warmup_s=min(0.5, seconds / 10), half_width_percent=0.1)
    setup = MeasurementSetup(backend=load_backend(backend_name), conditions=Conditions(), stopping_rule=rule)
    comparison = compare(SELF_TEST_NETWORK, SELF_TEST_NETWORK, setup, progress, footprint=False)
    visible = 100 * max(abs(comparison.speedup.low - 1), abs(comparison.speedup.high - 1))
    took_s = time.monotonic() - began_s
    return SelfTest(
        ratio=comparison.speedup, visible_percent=visible, rounds=comparison.rounds, seconds=took_s
    )


def _on_gpu(backend_name: str | None) -> bool:
    """Whether a backend runs on a GPU, as far as its class can be loaded."""
    try:
        return backend_name is not None and bool(backend_class(backend_name).capabilities.on_gpu)
    except BackendError:
        return False


def _try_out(
    backend_name: str, seconds: float, progress: Progress | None
) -> tuple[SelfTest | None, list[Finding]]:
    """The self-test, and what it says; a failure is a finding too."""
    try:
        test = self_test(backend_name, seconds, progress)
    except BackendError as error:
        return None, [Finding("self-test", "bad", error.message, error.remedy)]
    ratio, tenths = test.ratio, math.ceil(round(10 * test.visible_percent, 6))
    message = (
        f"two equal networks measured {ratio.estimate:.4f} [{ratio.low:.3f}, {ratio.high:.3f}] apart: "
        f"differences above {tenths / 10:.1f}% can be seen here in {test.seconds:.0f} seconds"
    )
    if not ratio.low <= 1 <= ratio.high:
        message += f"; chance alone tells them apart, as here, once in {1 / (1 - ratio.confidence):.0f} runs"
        return test, [Finding("self-test", "note", message, "run doctor again")]
    level: Level = "good" if test.visible_percent <= 1 else "note" if test.visible_percent <= 5 else "bad"
    remedy = "" if level == "good" else "see to what disturbs, or measure longer: four times for half of it"
    return test, [Finding("self-test", level, message, remedy)]


def _packages() -> Finding:
    """The versions of Python and of the packages, as their metadata say."""
    versions = {name: _version(name) for name in (*_PACKAGES, *_OPTIONAL_PACKAGES)}
    there = ", ".join(
        ["Python " + platform.python_version(), *(f"{k} {v}" for k, v in versions.items() if v)]
    )
    absent = ", ".join(name for name in _PACKAGES if not versions[name])
    return Finding("packages", "good", f"{there}; not installed: {absent or 'none'}")


def _version(package: str) -> str:
    """A package's version; empty where it is not installed."""
    try:
        return version(package)
    except PackageNotFoundError:
        return ""


def _look_at_backends(requested: str | None) -> tuple[tuple[str, ...], list[Finding]]:
    """Which backends can be used, and a finding for each; the requested one is checked even if unknown."""
    names = dict.fromkeys((*available_backends(), *([requested] if requested is not None else [])))
    findings = {name: _look_at_backend(name, requested) for name in names}
    usable = tuple(name for name, finding in findings.items() if finding.level == "good")
    none = Finding("backends", "bad", "none can be used", 'pip install "practise-backends[ort]"')
    return usable, [*findings.values(), *([] if usable else [none])]


def _look_at_backend(name: str, requested: str | None) -> Finding:
    """Whether one backend loads, and on what."""
    subject = f"backend {name}"
    level: Level = "bad" if name == requested else "note"
    try:
        device = load_backend(name).device()
    except BackendError as error:
        return Finding(subject, level, error.message, error.remedy)
    except Exception as error:  # a backend of a third party, or a broken installation, may raise anything
        if lacks_memory(error):
            raise
        return Finding(subject, level, f"{type(error).__name__}: {error}", "install its package again")
    versions = ", ".join(f"{package} {number}" for package, number in device.versions.items())
    return Finding(subject, "good", f"loads, on {device.name} ({versions})")
