"""Checks of what disturbs measuring on a machine, each with the command that fixes it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from practise_backends.machine.device import first_line, heat_files, memory_gib, quota_files, stops_so_far
from practise_backends.machine.memory import available_memory
from practise_backends.terms import Environment

_VARIABLES = ("OMP_", "GOMP_", "KMP_", "ORT_")
_CPUS = "/sys/devices/system/cpu"
_STEAL_PERCENT, _LEAST_GIB = 2.0, 1.0

Level = Literal["good", "note", "bad"]


@dataclass(frozen=True, slots=True)
class Finding:
    """The outcome of one check. good: leave it; note: know it; bad: change it before trusting a figure.

    remedy: what to change, with the exact command where there is one.
    """

    subject: str
    level: Level
    said: str
    remedy: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class MachineState:
    """What the checks read. wants_gpu: the backend that was asked about runs on one."""

    wants_gpu: bool
    root: Path
    properties: Mapping[str, str]
    environment: Environment
    variables: Mapping[str, str]


def run_checks(machine: MachineState) -> Iterator[Finding]:
    """The findings of all checks, in the order in which a person would look."""
    for check in (_clock, _share, _memory, _gpu, _settings):
        yield from check(machine)


def _clock(machine: MachineState) -> Iterator[Finding]:
    """Whether the processor keeps one clock."""
    properties, stops = machine.properties, stops_so_far(heat_files(machine.root))
    if (governor := properties.get("governor", "performance")) != "performance":
        command = f"echo performance | sudo tee {_CPUS}/cpu*/cpufreq/scaling_governor"
        yield Finding("governor", "bad", f"'{governor}': the clock follows the load", command)
    if properties.get("boost") == "on":
        intel = bool(first_line(machine.root / _CPUS[1:] / "intel_pstate/no_turbo"))
        switch = "intel_pstate/no_turbo" if intel else "cpufreq/boost"
        command = f"echo {int(intel)} | sudo tee {_CPUS}/{switch}"
        yield Finding("boost", "note", "on: the clock depends on heat and on the other cores", command)
    if stops:
        level: Level = "bad" if machine.environment.heat_stops else "note"
        cool = "cool it better, or lower the clock: sudo cpupower frequency-set --max 2GHz"
        yield Finding("heat", level, f"it stopped the processor {stops} time(s) since boot", cool)


def _share(machine: MachineState) -> Iterator[Finding]:
    """How much of the machine this process gets."""
    properties, now, cores = (
        machine.properties,
        machine.environment,
        int(machine.properties.get("logical_cores", "1")),
    )
    quota, allowed = (
        float(properties.get("cgroup_quota_cores", cores)),
        int(properties.get("affinity_cores", cores)),
    )
    stops = stops_so_far(quota_files(machine.root))
    if quota < cores or stops:
        level: Level = "bad" if quota < 1 or now.quota_stops else "note"
        message = (
            f"the control group grants {quota:g} of {cores} processors, and stopped its tasks {stops} time(s)"
        )
        yield Finding(
            "quota", level, message, f"docker update --cpus {cores} CONTAINER, or use fewer threads"
        )
    if allowed < cores:
        message = f"this process may use {allowed} of {cores} processors"
        yield Finding(
            "affinity", "note", message, f"taskset -cp 0-{cores - 1} $$, or at most {allowed} thread(s)"
        )
    if now.load and now.load[0] > cores / 2:
        message = f"the load average is {now.load[0]:.2f} on {cores} processors: other work is running"
        yield Finding(
            "load", "bad", message, f"stop that work, or wait until uptime says less than {cores / 2:g}"
        )
    steal = max(now.steal_percent or 0.0, float(properties.get("steal_percent_since_boot", "0")))
    if steal > _STEAL_PERCENT:
        message = f"the hypervisor gave {steal:.1f}% of the time to other machines"
        yield Finding("steal", "bad", message, "measure at another time, or on a dedicated machine")
    if (threads := int(properties.get("threads_per_core", "1"))) > 1:
        message = f"each core has {threads} threads that slow each other down"
        yield Finding(
            "cores", "note", message, f"echo off | sudo tee {_CPUS}/smt/control, or taskset -c 0 COMMAND"
        )
    if (kind := properties.get("hypervisor", "no")) != "no":
        message = "it is virtual" + (f" ({kind})" if kind != "yes" else "") + ": its neighbours are unseen"
        yield Finding("machine", "note", message, "measure on the target device itself where you can")


def _memory(machine: MachineState) -> Iterator[Finding]:
    """Whether memory is short."""
    swapped = (memory_gib(machine.root, "swaptotal") or 0) - (memory_gib(machine.root, "swapfree") or 0)
    if swapped > 0:
        message = f"{swapped:.2f} GiB is in use: a page that comes back from it costs milliseconds"
        yield Finding("swap", "note", message, "free memory, then: sudo swapoff -a && sudo swapon -a")
    if (free := available_memory(machine.root)) is not None:
        left = free / 2**30
        short = "close other programs, or raise the container's limit" if left < _LEAST_GIB else ""
        yield Finding("memory", "bad" if short else "good", f"{left:.1f} GiB is available", short)
    if policy := machine.properties.get("transparent_huge_pages"):
        yield Finding("huge pages", "good", f"transparent huge pages: {policy}")


def _gpu(machine: MachineState) -> Iterator[Finding]:
    """NVML's readings; their absence matters only to a GPU backend."""
    readings = machine.environment.gpu
    if "name" not in readings:
        if machine.wants_gpu and readings:
            remedy = (
                "pip install nvidia-ml-py"
                if "not installed" in readings["gpu"]
                else "check that nvidia-smi runs"
            )
            yield Finding("gpu", "note", readings["gpu"], remedy)
        return
    limiter = readings["held_back_by"]
    level: Level = "good" if limiter == "nothing" else "note" if limiter == "power cap" else "bad"
    message = (
        f"{readings['name']}, driver {readings.get('driver', 'unknown')}; its clock is held back by {limiter}"
    )
    cool = "cool it better, or fix a lower clock: sudo nvidia-smi --lock-gpu-clocks=MHZ"
    yield Finding("gpu", level, message, "" if level == "good" else cool)
    if readings.get("persistence") == "off":
        message = "without persistence mode the driver unloads between programs"
        yield Finding("gpu", "note", message, "sudo nvidia-smi --persistence-mode=1")


def _settings(machine: MachineState) -> Iterator[Finding]:
    """The environment variables that change how networks are run."""
    variables = {key: value for key, value in sorted(machine.variables.items()) if key.startswith(_VARIABLES)}
    if variables:
        message = ", ".join(f"{key}={value}" for key, value in variables.items())
        remedy = f"unset {' '.join(variables)}, or set the same wherever figures are compared"
        yield Finding("variables", "note", message, remedy)
