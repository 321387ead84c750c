"""The errors of the device half.

BackendError
├── BackendMissing      the backend, or a package it needs, is not installed
├── DeviceUnavailable   the package is there, the device is not
├── CompileError        the network cannot be compiled for this backend
└── MeasureError        the measurement cannot support what was asked of it
"""

from __future__ import annotations


class BackendError(Exception):
    """What went wrong, where, and (`remedy`) what to do about it."""

    def __init__(self, message: str, *, remedy: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.remedy = remedy


class BackendMissing(BackendError):
    """The backend, or a package it needs, is not installed."""


class DeviceUnavailable(BackendError):
    """The package is installed, but its device cannot be used."""


class CompileError(BackendError):
    """The network cannot be compiled for this backend."""


class MeasureError(BackendError):
    """The measurement cannot support what was asked of it."""
