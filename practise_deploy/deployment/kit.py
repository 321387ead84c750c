"""The kit for a device without this tool: a folder that measures there what every block costs."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from practise_backends.files import temporary_folder
from practise_backends.results.bundle import MANIFEST, TABLE, Dropped, Kit, KitNetwork, networks_of
from practise_backends.results.documents import to_json
from practise_deploy.deployment.kit_readme import install_line, kit_readme
from practise_deploy.deployment.wheel import device_wheel
from practise_deploy.errors import EnvironmentProblem, InputError
from practise_deploy.run import file_digest

NETWORKS, README = "networks", "README.md"
_ELSEWHERE = "name another folder with --kit"


@dataclass(frozen=True, slots=True, kw_only=True)
class WrittenKit:
    """A kit as it lies on the disk. networks: how many. commands: on the device. plan: takes its table."""

    schema: int = 1
    folder: str
    network: str
    backend: str
    batch: int
    precision: str
    blocks: int
    networks: int
    bytes: int
    commands: tuple[str, ...]
    plan: str


def write_kit(kit: Kit, folder: Path, make: Callable[[Path], Callable[[Dropped], Path]]) -> WrittenKit:
    """Write a kit so that the folder is there whole or not at all.

    kit: without its networks. make: gives, for a folder, where it wrote the network without some blocks; whatever else it
    leaves there that is no network is what the networks share.
    Raises: EnvironmentProblem; InputError where the folder holds something else (`check_place`).
    """
    check_place(folder)
    with _replacing(folder) as fresh:
        (fresh / NETWORKS).mkdir()
        without = make(fresh / NETWORKS)
        files = {dropped: without(dropped) for dropped in networks_of(kit.cuts, kit.design)}
        _clear(fresh / NETWORKS, keep={*files.values()})
        whole = _filled(kit, fresh, files)
        name, wheel = device_wheel()
        (fresh / name).write_bytes(wheel)
        (fresh / MANIFEST).write_text(to_json(whole), encoding="utf-8")
        (fresh / README).write_text(kit_readme(whole, name), encoding="utf-8")
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
        commands=(install_line(whole, name), "practise-measure ."),
        plan=f"{kit.plan} --latency-table {TABLE}" if kit.plan else "",
    )


def check_place(folder: Path) -> None:
    """Refuse a folder that holds anything but a kit: a new kit takes the whole place.

    Raises: InputError; EnvironmentProblem where nothing can be written there.
    """
    if folder.is_dir():
        found = {path.name for path in folder.iterdir()}
        others = sorted(name for name in found if name not in (MANIFEST, NETWORKS, README) and not _is_tool(name))
        if others or (found and MANIFEST not in found):
            raise InputError(
                f"{folder} holds {others[0] if others else min(found)}, which is no part of a kit and would be lost",
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
    """Take away the networks that are not measured."""
    for file in folder.glob("*.onnx"):
        if file not in keep:
            file.unlink()


def _filled(kit: Kit, fresh: Path, files: dict[Dropped, Path]) -> Kit:
    """The record with its networks, and the sha256 of all that they are."""
    networks = (KitNetwork(dropped=dropped, file=file.relative_to(fresh).as_posix()) for dropped, file in files.items())
    sums = {file.relative_to(fresh).as_posix(): file_digest(file) for file in sorted((fresh / NETWORKS).iterdir())}
    return replace(kit, networks=tuple(networks), sha256=sums)


@contextmanager
def _replacing(folder: Path) -> Iterator[Path]:
    """A new folder that takes the place of this one once all is in it."""
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with temporary_folder(folder.parent, f".{folder.name}.") as beside:
            fresh = beside / "new"
            fresh.mkdir()
            yield fresh
            _swap(fresh, folder, aside=beside / "old")
    except OSError as error:
        raise EnvironmentProblem(
            f"cannot write the kit {folder}: {error.strerror or error}", remedy=_ELSEWHERE
        ) from None


def _swap(fresh: Path, folder: Path, aside: Path) -> None:
    """Put the new folder in the old one's place; the old one stays where that fails."""
    if folder.exists():
        os.replace(folder, aside)
    try:
        os.replace(fresh, folder)
    except OSError:
        if aside.exists():
            os.replace(aside, folder)
        raise
