"""What every test may ask for."""

import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from xdist.scheduler import LoadScopeScheduling

from practise_backends.errors import Refusal

SHARED_DATA = Path(__file__).parents[2] / "shared" / "data"

if "PYTEST_XDIST_WORKER" in os.environ:  # several processes: one thread each, or they wait for each other
    os.environ.setdefault("OMP_NUM_THREADS", "1")

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as a shell's background jobs have it; some tests send Ctrl-C
    signal.signal(signal.SIGINT, signal.default_int_handler)


class Together(LoadScopeScheduling):  # type: ignore[misc]
    """Tests that share what takes long to make run in one process: builds, the command line, and the tests of a file."""

    def _split_scope(self, nodeid: str) -> str:
        file = nodeid.partition("::")[0]
        folder = Path(file).parent
        if folder.name in ("pipeline", "cli"):
            return str(folder)
        return nodeid if "backends" in folder.parts and not file.endswith("_networks.py") else file


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Together:
    """How tests are shared out among processes."""
    return Together(config, log)


@pytest.fixture
def gpu() -> Iterator[str]:
    """Where torch computes in the tests that are marked so: on CUDA, or with `-p standin.far` on a device beside the CPU."""
    if (far := sys.modules.get("standin.far")) is None:
        yield "cuda"
        return
    with far.there() as device:
        yield device.type


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder with the real networks and images, beside the project's root."""
    if not SHARED_DATA.is_dir():
        pytest.skip("needs ../shared/data (real networks and images) beside the project's root")
    return SHARED_DATA


@pytest.fixture(scope="session", autouse=True)
def _every_refusal_says_something() -> Iterator[None]:
    """Whatever any test makes the product refuse has a message and a remedy."""
    plain = Refusal.__init__

    def checked(self: Refusal, message: str, *, remedy: str, snippet: str = "") -> None:
        assert message.strip() and remedy.strip(), f"{type(self).__name__}({message!r}, remedy={remedy!r})"
        plain(self, message, remedy=remedy, snippet=snippet)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Refusal, "__init__", checked)
        yield
