"""TensorRT's messages: one logger a process and package, since the first one that is given wins.

A network that does not build says why in these messages, and which layers it was fused to.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from practise_backends.runtimes.tensorrt.package import Provider

_GRAVE = ("ERROR", "INTERNAL_ERROR")
_HEARD_AGAIN = "catchCudaError"  # the builder asks for a device it does not need, and says so each time


@dataclass(slots=True)
class Heard:
    """The messages of one job, in order."""

    messages: list[tuple[str, str]] = field(default_factory=list)

    @property
    def errors(self) -> tuple[str, ...]:
        """What went wrong, each once."""
        grave = (
            text for severity, text in self.messages if severity in _GRAVE and _HEARD_AGAIN not in text[:60]
        )
        return tuple(dict.fromkeys(grave))

    @property
    def warnings(self) -> tuple[str, ...]:
        """What is to be known, each once."""
        return tuple(dict.fromkeys(text for severity, text in self.messages if severity == "WARNING"))

    def starting(self, words: str) -> str:
        """The last message that begins so; empty without one."""
        return next((text for _, text in reversed(self.messages) if text.startswith(words)), "")


class _Ears:
    """Where the logger puts what it hears: the innermost listener."""

    def __init__(self) -> None:
        self.heard: list[Heard] = []

    def take(self, severity: Any, text: str) -> None:
        if self.heard:
            self.heard[-1].messages.append((str(severity).rpartition(".")[2], text))


_loggers: dict[str, tuple[Any, _Ears]] = {}


@contextmanager
def listening(provider: Provider) -> Iterator[Heard]:
    """What the package says meanwhile."""
    _, ears = _logger(provider)
    heard = Heard()
    ears.heard.append(heard)
    try:
        yield heard
    finally:
        ears.heard.remove(heard)


def logger_of(provider: Provider) -> Any:
    """The package's logger of this process; it prints nothing."""
    return _logger(provider)[0]


def _logger(provider: Provider) -> tuple[Any, _Ears]:
    if provider.package not in _loggers:
        trt, ears = provider.module, _Ears()

        class Logger(trt.ILogger):  # type: ignore[name-defined, misc]
            def __init__(self) -> None:
                trt.ILogger.__init__(self)

            def log(self, severity: Any, text: str) -> None:
                ears.take(severity, text)

        _loggers[provider.package] = (Logger(), ears)
    return _loggers[provider.package]
