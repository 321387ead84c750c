"""The flags: their words, and how they reach the backend and the conditions."""

from __future__ import annotations

import sys
from types import SimpleNamespace

import pytest

from practise_backends.cli.commands import file_setup
from practise_backends.loadgen.settings import SCENARIOS as LOADGEN_SCENARIOS
from practise_backends.options import SCENARIOS, BenchOptions, CompareOptions, Options, flags_of
from practise_backends.runtimes import catalog
from practise_backends.runtimes.ort import CLOCKS as ORT_CLOCKS
from practise_backends.runtimes.tensorrt import TensorRtBackend, TensorRtOptions
from practise_backends.runtimes.tensorrt.backend import CLOCKS, PRECISIONS
from practise_backends.runtimes.tensorrt.cuda import PACKAGES
from practise_backends.runtimes.tensorrt_flags import FLAGS
from practise_backends.terms import Device


class OnGpu(TensorRtBackend):
    """TensorRT's backend, where only its package is missing."""

    def device(self) -> Device:
        return Device(name="scripted GPU", fingerprint="gpu", versions={}, facts={})


def test_options_reach_the_backend_and_the_conditions(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt", SimpleNamespace(__version__="10.3.0"))
    monkeypatch.setattr(catalog, "_entry_points", lambda: {"trt": SimpleNamespace(load=lambda: OnGpu)})
    plain = file_setup(Options(backend="trt"))
    assert isinstance(plain.backend, OnGpu) and plain.backend.options == TensorRtOptions()
    assert (plain.conditions.clock, plain.conditions.cuda_graph) == ("gpu_compute", False)
    asked = Options(
        backend="trt", clock="end_to_end", cuda_graph=True, options={"cuda": "torch", "tf32": False}, sessions=3
    )
    found = file_setup(asked)
    assert isinstance(found.backend, OnGpu)
    assert found.backend.options == TensorRtOptions(cuda="torch", tf32=False)
    assert (found.conditions.clock, found.conditions.cuda_graph) == ("end_to_end", True)
    assert found.stopping_rule.sessions == 3


def test_words_of_the_flags_are_those_of_the_packages() -> None:
    words = {flag.name: flag.metavar.split("|") for flag in (*flags_of(Options), *FLAGS)}
    assert words["cuda"] == list(PACKAGES) and words["clock"] == [*CLOCKS, *ORT_CLOCKS[1:]]
    assert {flag.name: flag.default for flag in FLAGS} == {
        flag.name: getattr(TensorRtOptions(), flag.name) for flag in FLAGS
    }
    assert words["precision"] == list(PRECISIONS)


def test_scenarios_are_those_of_loadgen_in_any_case() -> None:
    assert SCENARIOS == LOADGEN_SCENARIOS
    read = next(flag.parse for flag in flags_of(BenchOptions) if flag.name == "scenarios")
    assert read is not None
    assert read("offline, singlestream,offline") == ("Offline", "SingleStream")
    assert read("all") == SCENARIOS


def test_every_option_has_a_flag_of_its_name_and_a_sentence() -> None:
    for options in (CompareOptions, BenchOptions):
        for flag in flags_of(options):
            assert flag.written.removeprefix("--no-").removeprefix("--").replace("-", "_") == flag.name
            assert flag.help and not flag.help.endswith(".")
