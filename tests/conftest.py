"""What every test may ask for."""

import os
import signal
from pathlib import Path

import pytest

SHARED_DATA = Path(__file__).parents[2] / "shared" / "data"

if "PYTEST_XDIST_WORKER" in os.environ:  # several processes: one thread each, or they wait for each other
    os.environ.setdefault("OMP_NUM_THREADS", "1")

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as a shell's background jobs have it; some tests send Ctrl-C
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder with the real networks and images, beside the project's root."""
    if not SHARED_DATA.is_dir():
        pytest.skip("needs ../shared/data (real networks and images) beside the project's root")
    return SHARED_DATA
