"""Start-up of both programs: any text may go to stdout, SIGTERM and SIGHUP act like an interrupt, telemetry is off."""

from __future__ import annotations

import os
import signal
import sys
import threading
from types import FrameType

_ENDS = ("SIGTERM", "SIGHUP")
_SET_HERE: dict[str, str] = {}


def begin() -> None:
    """Prepare this process for being a program of ours."""
    disable_telemetry()
    _open_streams()
    if threading.current_thread() is not threading.main_thread():
        return  # which alone hears signals
    for name in _ENDS:
        number = getattr(signal, name, None)  # not every system has a hang-up
        if (
            number is not None and signal.getsignal(number) is not signal.SIG_IGN
        ):  # nohup asks to be left alone
            signal.signal(number, _interrupt)


def disable_telemetry() -> None:
    """ONNX Runtime from 1.32 on sends what it was used for to its maker, unless this says otherwise before it is imported: from a
    thread beside what is measured, with files left in the user's cache and among the temporary ones.
    """
    set_default("ORT_DISABLE_TELEMETRY", "1")


def set_default(name: str, value: str) -> None:
    """Set an environment variable of this process that the user has not set."""
    if name not in os.environ:
        os.environ[name] = _SET_HERE[name] = value


def users_variables() -> dict[str, str]:
    """The environment without what `set_default` set."""
    return {name: value for name, value in os.environ.items() if _SET_HERE.get(name) != value}


def _interrupt(number: int, frame: FrameType | None) -> None:
    """What is half done is taken away on the way out."""
    raise KeyboardInterrupt


def _open_streams() -> None:
    """What an encoding lacks is replaced; where stdout or stderr are closed, nobody reads."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115
        elif hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace" if name == "stdout" else "backslashreplace")
