"""A network with its weights: those beside its file are regular files in the file's folder, or it is refused.

To be read before a library opens a network, since that would open whatever the file names: a pipe, a device, a file elsewhere.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from practise_backends.errors import CompileError, about
from practise_backends.files import regular_file
from practise_backends.runtimes.onnx_file import Network, content_of, label_of, read_network


def read_with_weights(model: bytes | Path) -> tuple[Network, str]:
    """Read a network, and the sha256 over its bytes and, after them, its weight files in the order of their names.

    Raises: CompileError where a file cannot be read or is not where it may be, or where the network is bytes and its weights are files.
    """
    content = content_of(model)
    with about(label_of(model)):
        network = read_network(content)
    digest = hashlib.sha256(content)
    for file in external_weights(model, network):
        digest.update(content_of(file))
    return network, digest.hexdigest()


def external_weights(model: bytes | Path, network: Network) -> tuple[Path, ...]:
    """The weight files of a network, in the order of their names. Where its file is a link, they may lie where that leads to.

    Raises: CompileError where one is not there, is no regular file or lies elsewhere, or where bytes name one.
    """
    if not isinstance(model, Path):
        for name in network.weight_files:
            raise CompileError(
                f"the network's weights lie beside it, in '{name}', and bytes have no place",
                remedy="pass the path of the file instead of its bytes",
            )
        return ()
    return tuple(_weight_file(model, name) for name in network.weight_files)


def _weight_file(model: Path, name: str) -> Path:
    """The file of that name beside a network's."""
    path, homes = model.parent / name, (model.parent, Path(os.path.realpath(model)).parent)
    try:
        if os.path.isabs(name):
            raise ValueError("is an absolute path")
        return regular_file(path, *homes)
    except OSError as error:
        raise CompileError(f"{path} cannot be read: {error.strerror}", remedy="check the path") from None
    except ValueError as error:
        raise CompileError(
            f"{model} has weights in '{name}', which {error}",
            remedy="put its weights beside it, as it was exported, or export it again",
        ) from None


def size_of(model: bytes | Path) -> int:
    """Bytes of a network with its weights; a file that is not ONNX (`.ort`, an engine) has none beside it.

    Raises: CompileError as `external_weights`, or where the file cannot be read.
    """
    content = content_of(model)
    try:
        network = read_network(content)
    except CompileError:
        return len(content)
    return len(content) + sum(file.stat().st_size for file in external_weights(model, network))
