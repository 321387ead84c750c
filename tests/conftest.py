"""What every test may ask for."""

import os
from pathlib import Path

import pytest

SHARED_DATA = Path(__file__).parents[2] / "shared" / "data"

if "PYTEST_XDIST_WORKER" in os.environ:  # several processes: one thread each, or they wait for each other
    os.environ.setdefault("OMP_NUM_THREADS", "1")


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder with the real networks and images, beside the project's root."""
    if not SHARED_DATA.is_dir():
        pytest.skip("needs ../shared/data (real networks and images) beside the project's root")
    return SHARED_DATA
