"""The kit for a device without this tool: a folder that measures the latency of every block there."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from practise_backends.choices import Precision
from practise_backends.errors import EnvironmentProblem
from practise_backends.files import temporary_folder
from practise_backends.results.bundle import MANIFEST, TABLE, Dropped, Kit, KitNetwork, networks_of
from practise_backends.results.documents import to_json
from practise_deploy.deployment.kit_readme import install_line, kit_readme
from practise_deploy.deployment.wheel import device_wheel
from practise_deploy.errors import InputError
from practise_deploy.run import file_digest

NETWORKS, README = "networks", "README.md"
_ELSEWHERE = "name another folder with --kit"


@dataclass(frozen=True, slots=True, kw_only=True)
class WrittenKit:
    """A kit on disk. networks: how many. commands: to run on the device. plan: the command that plans with its table."""

    schema: int = 1
    folder: str
    network: str
    backend: str
    batch: int
    precision: Precision
    blocks: int
    networks: int
    bytes: int
    commands: tuple[str, ...]
    plan: str


def write_kit(kit: Kit, folder: Path, make: Callable[[Path], Callable[[Dropped], Path]]) -> WrittenKit:
    """Write a kit atomically: the folder is complete or absent.

    kit: without its networks. make: for a folder, a function that writes the network without some blocks there and gives the path;
    other files that it leaves there are shared by the networks.
    Raises: EnvironmentProblem; InputError where the folder holds something else (`check_place`).
    """
    check_place(folder)
    with _replacing(folder) as fresh:
        (fresh / NETWORKS).mkdir()
        without = make(fresh / NETWORKS)
        files = {dropped: without(dropped) for dropped in networks_of(kit.cuts, kit.design)}
        _clear(fresh / NETWORKS, keep={*files.values()})
        filled = _filled(kit, fresh, files)
        name, wheel = device_wheel()
        (fresh / name).write_bytes(wheel)
        (fresh / MANIFEST).write_text(to_json(filled), encoding="utf-8")
        (fresh / README).write_text(kit_readme(filled, name), encoding="utf-8")
        size = sum(file.stat().st_size for file in fresh.rglob("*") if file.is_file())
    return WrittenKit(
        folder=str(folder),
        network=kit.network,
        backend=kit.asked.backend,
        batch=kit.input_shape[0],
        precision=kit.precision,
        blocks=len(kit.cuts),
        networks=len(files),
        bytes=size,
        commands=(install_line(filled, name), "practise-measure ."),
        plan=f"{kit.plan} --latency-table {TABLE}" if kit.plan else "",
    )


def check_place(folder: Path) -> None:
    """Refuse a folder that holds anything but a kit, since a new kit replaces it.

    Raises: InputError; EnvironmentProblem where nothing can be written there.
    """
    if folder.is_dir():
        names = {path.name for path in folder.iterdir()}
        others = sorted(name for name in names if name not in (MANIFEST, NETWORKS, README) and not _is_tool(name))
        if others or (names and MANIFEST not in names):
            raise InputError(
                f"{folder} holds {others[0] if others else min(names)}, which is no part of a kit and would be lost",
                remedy="move it away, or name another folder with --kit",
            )
    elif folder.exists():
        raise InputError(f"{folder} is a file", remedy=_ELSEWHERE)
    above = next(path for path in folder.absolute().parents if path.exists())
    if not os.access(above, os.W_OK):
        raise EnvironmentProblem(f"cannot write the kit {folder}: {above} is not writable", remedy=_ELSEWHERE)


def _is_tool(name: str) -> bool:
    return name.startswith("practise_backends-") and name.endswith(".whl")


def _clear(folder: Path, keep: set[Path]) -> None:
    """Delete the networks that are not measured."""
    for file in folder.glob("*.onnx"):
        if file not in keep:
            file.unlink()


def _filled(kit: Kit, fresh: Path, files: dict[Dropped, Path]) -> Kit:
    """The record with its networks and the sha256 of their files."""
    networks = (KitNetwork(dropped=dropped, file=file.relative_to(fresh).as_posix()) for dropped, file in files.items())
    sums = {file.relative_to(fresh).as_posix(): file_digest(file) for file in sorted((fresh / NETWORKS).iterdir())}
    return replace(kit, networks=tuple(networks), sha256=sums)


@contextmanager
def _replacing(folder: Path) -> Iterator[Path]:
    """A new folder that replaces this one once it is complete."""
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with temporary_folder(folder.parent, f".{folder.name}.") as staging:
            fresh = staging / "new"
            fresh.mkdir()
            yield fresh
            _swap(fresh, folder, aside=staging / "old")
    except OSError as error:
        raise EnvironmentProblem(
            f"cannot write the kit {folder}: {error.strerror or error}", remedy=_ELSEWHERE
        ) from None


def _swap(fresh: Path, folder: Path, aside: Path) -> None:
    """Replace the old folder by the new one; the old one stays if that fails."""
    if folder.exists():
        os.replace(folder, aside)
    try:
        os.replace(fresh, folder)
    except OSError:
        if aside.exists():
            os.replace(aside, folder)
        raise
