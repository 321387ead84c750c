"""What a machine shows that disturbs measuring, and the command that changes it: rules over what was read of it."""

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
class Scene:
    """What the rules look at."""

    asked: str
    root: Path
    facts: Mapping[str, str]
    environment: Environment
    variables: Mapping[str, str]


def symptoms(scene: Scene) -> Iterator[Finding]:
    """What all rules find, in the order in which a person would look."""
    for look in (_clock, _share, _memory, _gpu, _settings):
        yield from look(scene)


def say(subject: str, level: Level, said: str, remedy: str = "") -> Finding:
    """A finding in one line."""
    return Finding(subject=subject, level=level, said=said, remedy=remedy)


def _clock(scene: Scene) -> Iterator[Finding]:
    """Whether the processor keeps one clock."""
    facts, stops = scene.facts, stops_so_far(heat_files(scene.root))
    if (governor := facts.get("governor", "performance")) != "performance":
        command = f"echo performance | sudo tee {_CPUS}/cpu*/cpufreq/scaling_governor"
        yield say("governor", "bad", f"'{governor}': the clock follows the load", command)
    if facts.get("boost") == "on":
        intel = bool(first_line(scene.root / _CPUS[1:] / "intel_pstate/no_turbo"))
        switch = "intel_pstate/no_turbo" if intel else "cpufreq/boost"
        command = f"echo {int(intel)} | sudo tee {_CPUS}/{switch}"
        yield say("boost", "note", "on: the clock depends on heat and on the other cores", command)
    if stops:
        level: Level = "bad" if scene.environment.heat_stops else "note"
        cool = "cool it better, or lower the clock: sudo cpupower frequency-set --max 2GHz"
        yield say("heat", level, f"it stopped the processor {stops} time(s) since boot", cool)


def _share(scene: Scene) -> Iterator[Finding]:
    """How much of the machine this process gets."""
    facts, now, cores = scene.facts, scene.environment, int(scene.facts.get("logical_cores", "1"))
    quota, allowed = float(facts.get("cgroup_quota_cores", cores)), int(facts.get("affinity_cores", cores))
    stops = stops_so_far(quota_files(scene.root))
    if quota < cores or stops:
        level: Level = "bad" if quota < 1 or now.quota_stops else "note"
        said = (
            f"the control group grants {quota:g} of {cores} processors, and stopped its tasks {stops} time(s)"
        )
        yield say("quota", level, said, f"docker update --cpus {cores} CONTAINER, or use fewer threads")
    if allowed < cores:
        said = f"this process may use {allowed} of {cores} processors"
        yield say("affinity", "note", said, f"taskset -cp 0-{cores - 1} $$, or at most {allowed} thread(s)")
    if now.load and now.load[0] > cores / 2:
        said = f"the load average is {now.load[0]:.2f} on {cores} processors: other work runs beside"
        yield say("load", "bad", said, f"stop that work, or wait until uptime says less than {cores / 2:g}")
    steal = max(now.steal_percent or 0.0, float(facts.get("steal_percent_since_boot", "0")))
    if steal > _STEAL_PERCENT:
        said = f"the hypervisor gave {steal:.1f}% of the time to other machines"
        yield say("steal", "bad", said, "measure at another time, or on a machine of its own")
    if (threads := int(facts.get("threads_per_core", "1"))) > 1:
        said = f"each core has {threads} threads that slow each other down"
        yield say("cores", "note", said, f"echo off | sudo tee {_CPUS}/smt/control, or taskset -c 0 COMMAND")
    if (kind := facts.get("hypervisor", "no")) != "no":
        said = "it is virtual" + (f" ({kind})" if kind != "yes" else "") + ": its neighbours are unseen"
        yield say("machine", "note", said, "measure on the target device itself where you can")


def _memory(scene: Scene) -> Iterator[Finding]:
    """Whether memory is short."""
    swapped = (memory_gib(scene.root, "swaptotal") or 0) - (memory_gib(scene.root, "swapfree") or 0)
    if swapped > 0:
        said = f"{swapped:.2f} GiB is in use: a page that comes back from it costs milliseconds"
        yield say("swap", "note", said, "free memory, then: sudo swapoff -a && sudo swapon -a")
    if (free := available_memory(scene.root)) is not None:
        left = free / 2**30
        short = "close other programs, or raise the container's limit" if left < _LEAST_GIB else ""
        yield say("memory", "bad" if short else "good", f"{left:.1f} GiB is available", short)
    if policy := scene.facts.get("transparent_huge_pages"):
        yield say("huge pages", "good", f"transparent huge pages: {policy}")


def _gpu(scene: Scene) -> Iterator[Finding]:
    """What NVML says; its absence matters to a GPU's backend alone."""
    found = scene.environment.gpu
    if "name" not in found:
        if scene.asked.startswith("trt") and found:
            remedy = (
                "pip install nvidia-ml-py"
                if "not installed" in found["gpu"]
                else "check that nvidia-smi runs"
            )
            yield say("gpu", "note", found["gpu"], remedy)
        return
    held = found["held_back_by"]
    level: Level = "good" if held == "nothing" else "note" if held == "power cap" else "bad"
    said = f"{found['name']}, driver {found.get('driver', 'unknown')}; its clock is held back by {held}"
    cool = "cool it better, or fix a lower clock: sudo nvidia-smi --lock-gpu-clocks=MHZ"
    yield say("gpu", level, said, "" if level == "good" else cool)
    if found.get("persistence") == "off":
        said = "without persistence mode the driver unloads between programs"
        yield say("gpu", "note", said, "sudo nvidia-smi --persistence-mode=1")


def _settings(scene: Scene) -> Iterator[Finding]:
    """The environment variables that change how networks are run."""
    found = {key: value for key, value in sorted(scene.variables.items()) if key.startswith(_VARIABLES)}
    if found:
        said = ", ".join(f"{key}={value}" for key, value in found.items())
        remedy = f"unset {' '.join(found)}, or set the same wherever figures are compared"
        yield say("variables", "note", said, remedy)
