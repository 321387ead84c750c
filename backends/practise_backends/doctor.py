"""Look at a machine before it is measured: what is missing, what disturbs, and what can be told apart here."""

from __future__ import annotations

import math
import os
import platform
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Literal

from practise_backends.catalog import available_backends, load_backend
from practise_backends.device import (
    describe_cpu,
    first_line,
    heat_files,
    memory_gib,
    quota_files,
    stops_so_far,
)
from practise_backends.environment import SystemWatch
from practise_backends.errors import BackendError
from practise_backends.terms import (
    SCHEMA,
    Bench,
    Conditions,
    Device,
    Environment,
    Interval,
    Patience,
    Progress,
)

ENVIRONMENT_MISSING = 3
TESTED = "ort"
YARDSTICK = Path(__file__).with_name("yardstick.onnx")

_FOR_DEVICES = ("tensorrt", "tensorrt_rtx", "pycuda", "nvidia-ml-py", "mlcommons-loadgen")
_PACKAGES = ("practise-backends", "numpy", "onnxruntime", *_FOR_DEVICES)
_NAMED_WHERE_FOUND = ("practise-deploy", "torch", "onnx", "onnxruntime-gpu")
_VARIABLES = ("OMP_", "GOMP_", "KMP_", "ORT_")
_CPUS = "/sys/devices/system/cpu"
_STEAL_PERCENT, _LEAST_GIB = 2.0, 1.0

Level = Literal["good", "note", "bad"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing that was looked at. good: leave it; note: know it; bad: change it before believing a figure.

    remedy: what to change, with the exact command where there is one.
    """

    subject: str
    level: Level
    said: str
    remedy: str = ""


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


@dataclass(frozen=True, slots=True, kw_only=True)
class _Scene:
    """What the rules look at."""

    asked: str
    root: Path
    facts: Mapping[str, str]
    environment: Environment
    variables: Mapping[str, str]


def examine(
    backend_name: str | None,
    *,
    root: Path = Path("/"),
    variables: Mapping[str, str] = os.environ,
    test_s: float = 6.0,
    progress: Progress | None = None,
) -> Checkup:
    """Look at packages, backends and the machine; then, where ONNX Runtime loads, measure a network twice.

    root: where `proc` and `sys` are looked for. test_s: seconds of the self-test; 0 leaves it out.
    """
    watch = SystemWatch(root=root, gpu=True)
    device = describe_cpu({}, root=root)
    usable, findings = _look_at_backends(backend_name)
    test, outcome = _try_out(test_s, progress) if TESTED in usable and test_s > 0 else (None, [])
    asked, now = backend_name or "", watch.environment()
    scene = _Scene(asked=asked, root=root, facts=device.facts, environment=now, variables=variables)
    found = [finding for look in (_clock, _share, _memory, _gpu, _settings) for finding in look(scene)]
    return Checkup(
        asked=backend_name,
        device=device,
        usable=usable,
        findings=(_packages(), *findings, *found, *outcome),
        environment=now,
        self_test=test,
    )


def exit_code(checkup: Checkup) -> int:
    """3 where the asked backend, or without one every backend, cannot be used; otherwise 0."""
    works = checkup.asked in checkup.usable if checkup.asked is not None else bool(checkup.usable)
    return 0 if works else ENVIRONMENT_MISSING


def render(checkup: Checkup) -> str:
    """The checkup as plain text, one finding a line and its remedy under it."""
    lines = [f"{checkup.device.name}, {checkup.device.facts.get('logical_cores', '?')} processor(s)", ""]
    for finding in checkup.findings:
        lines.append(f"{finding.level:4}  {finding.subject}: {finding.said}")
        lines += [f"      -> {finding.remedy}"] if finding.remedy else []
    return "\n".join(lines) + "\n"


def self_test(backend_name: str, seconds: float, progress: Progress | None = None) -> SelfTest:
    """Measure the yardstick, a network of three convolutions, against itself.

    Raises: BackendError where it cannot be measured.
    """
    from practise_backends.compare import compare

    began_s = time.monotonic()
    patience = Patience(budget_s=seconds, warmup_s=min(0.5, seconds / 10), enough_percent=0.1)
    bench = Bench(backend=load_backend(backend_name), conditions=Conditions(), patience=patience)
    found = compare(YARDSTICK, YARDSTICK, bench, progress, footprint=False)
    visible = 100 * max(abs(found.speedup.low - 1), abs(found.speedup.high - 1))
    took_s = time.monotonic() - began_s
    return SelfTest(ratio=found.speedup, visible_percent=visible, rounds=found.rounds, seconds=took_s)


def _try_out(seconds: float, progress: Progress | None) -> tuple[SelfTest | None, list[Finding]]:
    """The self-test, and what it says; a failure is a finding too."""
    try:
        test = self_test(TESTED, seconds, progress)
    except BackendError as error:
        return None, [_say("self-test", "bad", error.message, error.remedy)]
    ratio, tenths = test.ratio, math.ceil(round(10 * test.visible_percent, 6))
    said = (
        f"two equal networks measured {ratio.estimate:.4f} [{ratio.low:.3f}, {ratio.high:.3f}] apart: "
        f"differences above {tenths / 10:.1f}% can be seen here in {test.seconds:.0f} seconds"
    )
    if not ratio.low <= 1 <= ratio.high:
        said += f"; chance alone tells them apart, as here, once in {1 / (1 - ratio.confidence):.0f} runs"
        return test, [_say("self-test", "note", said, "run doctor again")]
    level: Level = "good" if test.visible_percent <= 1 else "note" if test.visible_percent <= 5 else "bad"
    remedy = "" if level == "good" else "see to what disturbs, or measure longer: four times for half of it"
    return test, [_say("self-test", level, said, remedy)]


def _packages() -> Finding:
    """The versions of Python and of the packages, as their metadata say."""
    found = {name: _version(name) for name in (*_PACKAGES, *_NAMED_WHERE_FOUND)}
    there = ", ".join(["Python " + platform.python_version(), *(f"{k} {v}" for k, v in found.items() if v)])
    absent = ", ".join(name for name in _PACKAGES if not found[name])
    return _say("packages", "good", f"{there}; not installed: {absent or 'none'}")


def _version(package: str) -> str:
    """A package's version; empty where it is not installed."""
    try:
        return version(package)
    except PackageNotFoundError:
        return ""


def _look_at_backends(asked: str | None) -> tuple[tuple[str, ...], list[Finding]]:
    """Which backends can be used, and a finding for each; the asked one is looked at even where unknown."""
    names = dict.fromkeys((*available_backends(), *([asked] if asked is not None else [])))
    found = {name: _look_at_backend(name, asked) for name in names}
    usable = tuple(name for name, finding in found.items() if finding.level == "good")
    none = _say("backends", "bad", "none can be used", 'pip install "practise-backends[ort]"')
    return usable, [*found.values(), *([] if usable else [none])]


def _look_at_backend(name: str, asked: str | None) -> Finding:
    """Whether one backend loads, and on what."""
    subject = f"backend {name}"
    level: Level = "bad" if name == asked else "note"
    try:
        device = load_backend(name).device()
    except BackendError as error:
        return _say(subject, level, error.message, error.remedy)
    except Exception as error:  # a backend of a third party, or a broken installation, may raise anything
        return _say(subject, level, f"{type(error).__name__}: {error}", "install its package again")
    versions = ", ".join(f"{package} {number}" for package, number in device.versions.items())
    return _say(subject, "good", f"loads, on {device.name} ({versions})")


def _clock(scene: _Scene) -> Iterator[Finding]:
    """Whether the processor keeps one clock."""
    facts, stops = scene.facts, stops_so_far(heat_files(scene.root))
    if (governor := facts.get("governor", "performance")) != "performance":
        command = f"echo performance | sudo tee {_CPUS}/cpu*/cpufreq/scaling_governor"
        yield _say("governor", "bad", f"'{governor}': the clock follows the load", command)
    if facts.get("boost") == "on":
        intel = bool(first_line(scene.root / _CPUS[1:] / "intel_pstate/no_turbo"))
        switch = "intel_pstate/no_turbo" if intel else "cpufreq/boost"
        command = f"echo {int(intel)} | sudo tee {_CPUS}/{switch}"
        yield _say("boost", "note", "on: the clock depends on heat and on the other cores", command)
    if stops:
        level: Level = "bad" if scene.environment.heat_stops else "note"
        cool = "cool it better, or lower the clock: sudo cpupower frequency-set --max 2GHz"
        yield _say("heat", level, f"it stopped the processor {stops} time(s) since boot", cool)


def _share(scene: _Scene) -> Iterator[Finding]:
    """How much of the machine this process gets."""
    facts, now, cores = scene.facts, scene.environment, int(scene.facts.get("logical_cores", "1"))
    quota, allowed = float(facts.get("cgroup_quota_cores", cores)), int(facts.get("affinity_cores", cores))
    stops = stops_so_far(quota_files(scene.root))
    if quota < cores or stops:
        level: Level = "bad" if quota < 1 or now.quota_stops else "note"
        said = (
            f"the control group grants {quota:g} of {cores} processors, and stopped its tasks {stops} time(s)"
        )
        yield _say("quota", level, said, f"docker update --cpus {cores} CONTAINER, or use fewer threads")
    if allowed < cores:
        said = f"this process may use {allowed} of {cores} processors"
        yield _say("affinity", "note", said, f"taskset -cp 0-{cores - 1} $$, or at most {allowed} thread(s)")
    if now.load and now.load[0] > cores / 2:
        said = f"the load average is {now.load[0]:.2f} on {cores} processors: other work runs beside"
        yield _say("load", "bad", said, f"stop that work, or wait until uptime says less than {cores / 2:g}")
    steal = max(now.steal_percent or 0.0, float(facts.get("steal_percent_since_boot", "0")))
    if steal > _STEAL_PERCENT:
        said = f"the hypervisor gave {steal:.1f}% of the time to other machines"
        yield _say("steal", "bad", said, "measure at another time, or on a machine of its own")
    if (threads := int(facts.get("threads_per_core", "1"))) > 1:
        said = f"each core has {threads} threads that slow each other down"
        yield _say("cores", "note", said, f"echo off | sudo tee {_CPUS}/smt/control, or taskset -c 0 COMMAND")
    if (kind := facts.get("hypervisor", "no")) != "no":
        said = "it is virtual" + (f" ({kind})" if kind != "yes" else "") + ": its neighbours are unseen"
        yield _say("machine", "note", said, "measure on the target device itself where you can")


def _memory(scene: _Scene) -> Iterator[Finding]:
    """Whether memory is short."""
    swapped = (memory_gib(scene.root, "swaptotal") or 0) - (memory_gib(scene.root, "swapfree") or 0)
    if swapped > 0:
        said = f"{swapped:.2f} GiB is in use: a page that comes back from it costs milliseconds"
        yield _say("swap", "note", said, "free memory, then: sudo swapoff -a && sudo swapon -a")
    if (left := memory_gib(scene.root, "memavailable")) is not None:
        short = "close other programs" if left < _LEAST_GIB else ""
        yield _say("memory", "bad" if short else "good", f"{left:.1f} GiB is available", short)
    if policy := scene.facts.get("transparent_huge_pages"):
        yield _say("huge pages", "good", f"transparent huge pages: {policy}")


def _gpu(scene: _Scene) -> Iterator[Finding]:
    """What NVML says; its absence matters to a GPU's backend alone."""
    found = scene.environment.gpu
    if "name" not in found:
        if scene.asked.startswith("trt") and found:
            remedy = (
                "pip install nvidia-ml-py"
                if "not installed" in found["gpu"]
                else "check that nvidia-smi runs"
            )
            yield _say("gpu", "note", found["gpu"], remedy)
        return
    held = found["held_back_by"]
    level: Level = "good" if held == "nothing" else "note" if held == "power cap" else "bad"
    said = f"{found['name']}, driver {found.get('driver', 'unknown')}; its clock is held back by {held}"
    cool = "cool it better, or fix a lower clock: sudo nvidia-smi --lock-gpu-clocks=MHZ"
    yield _say("gpu", level, said, "" if level == "good" else cool)
    if found.get("persistence") == "off":
        said = "without persistence mode the driver unloads between programs"
        yield _say("gpu", "note", said, "sudo nvidia-smi --persistence-mode=1")


def _settings(scene: _Scene) -> Iterator[Finding]:
    """The environment variables that change how networks are run."""
    found = {key: value for key, value in sorted(scene.variables.items()) if key.startswith(_VARIABLES)}
    if found:
        said = ", ".join(f"{key}={value}" for key, value in found.items())
        remedy = f"unset {' '.join(found)}, or set the same wherever figures are compared"
        yield _say("variables", "note", said, remedy)


def _say(subject: str, level: Level, said: str, remedy: str = "") -> Finding:
    """A finding in one line."""
    return Finding(subject=subject, level=level, said=said, remedy=remedy)
