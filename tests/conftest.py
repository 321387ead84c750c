"""What every test may ask for."""

from pathlib import Path

import pytest

SHARED_DATA = Path(__file__).parents[2] / "shared" / "data"


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder with the real networks and images, beside the project's root."""
    if not SHARED_DATA.is_dir():
        pytest.skip("needs ../shared/data (real networks and images) beside the project's root")
    return SHARED_DATA
