"""TensorRT's messages: one logger a process and package, since the first one that is given wins.

A network that does not build says why in these messages, and which layers it was fused to.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from practise_backends.runtimes.tensorrt.package import TensorRtPackage

_GRAVE = ("ERROR", "INTERNAL_ERROR")
_HARMLESS = "catchCudaError"  # the builder asks for a device it does not need, and says so each time


@dataclass(slots=True)
class LogCapture:
    """The messages of one job, in order."""

    messages: list[tuple[str, str]] = field(default_factory=list)

    @property
    def errors(self) -> tuple[str, ...]:
        """Its errors, each once."""
        grave = (
            text for severity, text in self.messages if severity in _GRAVE and _HARMLESS not in text[:60]
        )
        return tuple(dict.fromkeys(grave))

    @property
    def warnings(self) -> tuple[str, ...]:
        """Its warnings, each once."""
        return tuple(dict.fromkeys(text for severity, text in self.messages if severity == "WARNING"))

    def starting(self, words: str) -> str:
        """The last message that begins so; empty without one."""
        return next((text for _, text in reversed(self.messages) if text.startswith(words)), "")


class _CaptureStack:
    """The destination of the logger's messages: the innermost capture."""

    def __init__(self) -> None:
        self.captures: list[LogCapture] = []

    def take(self, severity: Any, text: str) -> None:
        if self.captures:
            self.captures[-1].messages.append((str(severity).rpartition(".")[2], text))


_loggers: dict[str, tuple[Any, _CaptureStack]] = {}


@contextmanager
def capture_log(package: TensorRtPackage) -> Iterator[LogCapture]:
    """Capture the package's messages meanwhile."""
    _, stack = _logger(package)
    log = LogCapture()
    stack.captures.append(log)
    try:
        yield log
    finally:
        stack.captures.remove(log)


def logger_of(package: TensorRtPackage) -> Any:
    """The package's logger of this process; it prints nothing."""
    return _logger(package)[0]


def _logger(package: TensorRtPackage) -> tuple[Any, _CaptureStack]:
    if package.name not in _loggers:
        trt, stack = package.module, _CaptureStack()

        class Logger(trt.ILogger):  # type: ignore[name-defined, misc]
            def __init__(self) -> None:
                trt.ILogger.__init__(self)

            def log(self, severity: Any, text: str) -> None:
                stack.take(severity, text)

        _loggers[package.name] = (Logger(), stack)
    return _loggers[package.name]
