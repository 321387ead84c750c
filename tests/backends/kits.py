"""A kit written by hand: a network of named blocks, on a device with scripted times."""

from __future__ import annotations

import hashlib
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

from practise_backends.fake import FakeBackend, Script, ScriptedClock, steady
from practise_backends.options import Measuring
from practise_backends.results.bundle import MANIFEST, Kit, KitNetwork, networks_of
from practise_backends.results.documents import to_json
from practise_backends.results.table_design import Cut, design_of
from practise_backends.terms import Artifact

CUTS = tuple(
    Cut(block=name, latency_class=at)
    for at, names in enumerate((("a0", "a1", "a2"), ("b0", "b1"), ("c0",)))
    for name in names
)
SAVED_MS = {"a0": 1.0, "a1": 1.0, "a2": 1.0, "b0": 0.5, "b1": 0.5, "c0": 2.0}
WHOLE_MS = 10.0


def make_kit(folder: Path, network: Path, **changed: Any) -> Kit:
    """A kit in that folder; every network in it is the same file, told apart by its name."""
    design = design_of(CUTS, 0)
    networks = tuple(
        KitNetwork(dropped=dropped, file=f"networks/{'+'.join(dropped) or 'original'}.onnx")
        for dropped in networks_of(CUTS, design)
    )
    (folder / "networks").mkdir(parents=True)
    for one in networks:
        shutil.copy(network, folder / one.file)
    sha256 = hashlib.sha256(network.read_bytes()).hexdigest()
    kit = Kit(
        network="net",
        structure_sha256="5a" * 32,
        input_shape=(1, 4, 8, 8),
        precision="fp32",
        weights="random",
        asked=Measuring(measure_budget_s=0.3, threads=2),
        cuts=CUTS,
        design=design,
        networks=networks,
        sha256={one.file: sha256 for one in networks},
        plan="practise-deploy plan net --threads 2",
        made_by="a test",
    )
    kit = replace(kit, **changed)
    (folder / MANIFEST).write_text(to_json(kit))
    return kit


def scripted_device(saved_ms: dict[str, float] | None = None) -> FakeBackend:
    """Without a block, its milliseconds are saved."""
    saved = SAVED_MS if saved_ms is None else saved_ms

    def script(artifact: Artifact) -> Script:
        name = Path(str(artifact.content)).stem
        return steady(WHOLE_MS - sum(saved[each] for each in name.split("+") if name != "original"))

    return FakeBackend(ScriptedClock(), script)
