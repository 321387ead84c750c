"""The real packages pycuda and nvidia-ml-py, on a driver that is compiled for the test and needs no GPU.

It shows what a scripted package cannot: which arguments the packages take, and what their objects do in other threads
and when a process ends.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from standin import write_driver

TESTS = Path(__file__).parents[2]

pytestmark = pytest.mark.skipif(
    sys.platform != "linux" or not all(map(shutil.which, ("gcc", "nm"))), reason="needs Linux, gcc and nm"
)

BEGINNING = """
import ctypes
from concurrent.futures import ThreadPoolExecutor
import numpy as np
from backends.streams import in_another_thread, there_and_back
from practise_backends.machine.driver import first_gpu
from practise_backends.runtimes.tensorrt.cuda import open_cuda

def left():
    found = (ctypes.c_long * 6)()
    ctypes.CDLL("libcuda.so.1").standin_left(found)
    return list(found)
"""

STREAM = (
    BEGINNING
    + """
assert first_gpu().name == "Stand-in GPU"
cuda = open_cuda("pycuda")
assert cuda.name.startswith("pycuda 20") and cuda.stream > 0

assert there_and_back(cuda) > 0
assert in_another_thread(cuda) > 0
print(left())
"""
)

ENGINE = (
    BEGINNING
    + """
from backends.scripted_trt import Script, scripted_provider
from practise_backends.runtimes.tensorrt.engine import TensorRtEngine
from practise_backends.terms import Artifact, Conditions

def session():
    artifact = Artifact(content=b"engine", sha256="", format="", precision="fp32", precision_share=1.0,
                        inputs=(), outputs=(), device_fingerprint="")
    provider = scripted_provider(Script(), package="scripted", by_itself=False)
    engine = TensorRtEngine(provider, artifact, Conditions(clock="gpu_compute"), cuda)
    for batch in (1, 2):
        feeds = {"x": np.ones((batch, 3, 8, 8), np.float32)}
        assert engine.run(feeds)["y"].shape == (batch, 10)
        assert engine.time_once(feeds) > 0
        assert engine.parts_once(feeds).end_to_end_ms > 0
    engine.close()

with ThreadPoolExecutor(max_workers=1) as pool:  # as under LoadGen: the main thread has not touched the device
    cuda = pool.submit(open_cuda, "pycuda").result()
    pool.submit(session).result()
session()
print(left())
"""
)

NVML = """
from practise_backends.machine.nvml import monitor_gpu
monitor = monitor_gpu()
monitor.read()
print(monitor.readings())
"""


@pytest.fixture(scope="module")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("driver")
    write_driver(folder)
    return folder


def run_on(driver: Path, script: str) -> str:
    """What a script prints; it must end well and have nothing to complain of."""
    paths = os.pathsep.join([str(TESTS), *filter(None, [os.environ.get("PYTHONPATH")])])
    libraries = os.pathsep.join([str(driver), *filter(None, [os.environ.get("LD_LIBRARY_PATH")])])
    variables = {**os.environ, "LD_LIBRARY_PATH": libraries, "PYTHONPATH": paths}
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, env=variables, timeout=120)
    assert (ended.returncode, ended.stderr) == (0, "")
    return ended.stdout.strip()


@pytest.mark.parametrize("script", [STREAM, ENGINE], ids=["stream", "engine"])
def test_pycuda_works_in_every_thread_and_leaves_nothing(driver: Path, script: str) -> None:
    pytest.importorskip("pycuda")
    assert run_on(driver, script) == "[0, 0, 0, 1, 1, 0]"  # the stream and its context live as long as the process


def test_nvml_tells_the_gpu_that_cuda_takes_first(driver: Path) -> None:
    pytest.importorskip("pynvml")
    assert run_on(driver, NVML) == str(
        {
            "name": "Stand-in GPU",
            "driver": "580.1",
            "sm_mhz": "1411",
            "memory_mhz": "1412",
            "temperature_c": "41",
            "power_w": "250",
            "held_back_by": "power cap",
            "persistence": "on",
        }
    )
