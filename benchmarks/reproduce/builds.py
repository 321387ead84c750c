"""The README's builds: runs each as a user would, and keeps what it measured as JSON.

    python benchmarks/reproduce/builds.py [digits] [efficientnet-lite0-25] [resnet56] [--data ../shared/data]

Each build is a process of its own; its wall time and peak memory are taken from outside.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tiny.provenance import commit

HERE = Path(__file__).resolve().parent
RESULTS = HERE.parent / "results"


def builds(data: Path) -> dict[str, list[str]]:
    """Name -> arguments of `practise-deploy build`."""
    imagenette, cifar = data / "imagenette", data / "cifar10"
    return {
        "digits": [],
        "efficientnet-lite0-25": [
            "efficientnet-lite0", "--data", str(imagenette / "train"), "--eval", str(imagenette / "val"),
            "--reduce", "25%", "--threads", "1", "--fit-images", "500",
        ],
        "resnet56": [
            f"{HERE.parents[1] / 'benchmarks' / 'cifar_resnets.py'}:make_resnet56", "--weights", str(cifar / "resnet56.pt"),
            "--data", str(cifar / "train.npz"), "--eval", str(cifar / "test.npz"), "--reduce", "30%", "--fit-images", "100",
        ],
    }  # fmt: skip


def run(name: str, arguments: list[str], data: Path) -> dict[str, object]:
    """One build in a fresh run folder, with what it cost."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "practise_deploy.cli", "build", *arguments, "--out", folder]
        began = time.monotonic()
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        _, status, usage = os.wait4(process.pid, 0)  # this child's own figures, not the largest of all
        process.returncode = code = os.waitstatus_to_exitcode(status)
        wall_s = time.monotonic() - began
        release = json.loads((Path(folder) / "release.json").read_text())
        manifest = json.loads((Path(folder) / "manifest.json").read_text())
    return {
        "schema": 1,
        "name": name,
        "commit": commit(),
        "arguments": [_relative(argument, data) for argument in arguments],
        "exit_code": code,
        "wall_s": wall_s,
        "peak_memory_mb": usage.ru_maxrss * 1024 / 1e6 if sys.platform == "linux" else None,
        "speedup": release["speedup"],
        "aa_ratio": release["bench"]["aa_ratio"],
        "engines": [{**engine, "file": Path(engine["file"]).name} for engine in release["bench"]["engines"]],
        "conditions": release["bench"]["conditions"],
        "device": {"name": manifest["device"]["name"], "facts": manifest["device"]["facts"]},
        "versions": manifest["versions"],
        "seconds": release["seconds"],
        "plan": {key: release["plan"][key] for key in ("dropped", "target_percent", "attempts", "measured_percent")},
        "recovered": {key: release["recovered"][key] for key in ("method", "mse_before", "mse")},
        "finetuned": {key: release["finetuned"][key] for key in ("method", "mse_before", "mse", "history")},
        "frontier": release["frontier"],
        "levers": release["levers"],
        "fp32": release["bench"]["fp32"] and release["bench"]["fp32"]["speedup"],
        "verification": release["verification"],
        "images": {key: release["images"][key] for key in ("fit", "held_out")},
        "verdict": release["verdict"],
    }


def _relative(argument: str, data: Path) -> str:
    """Paths as seen from the repository's root, the images where they are by default: no machine's own paths are kept."""
    if argument.startswith(f"{data}/"):
        return f"../shared/data{argument.removeprefix(str(data))}"
    root = str(HERE.parents[1])
    return os.path.relpath(argument, root) if argument.startswith("/") else argument


def main() -> None:
    """Run the named builds, or all, one after another."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*")
    parser.add_argument("--data", type=Path, default=HERE.parents[2] / "shared" / "data")
    options = parser.parse_args()
    data = options.data.resolve()
    known = builds(data)
    RESULTS.mkdir(exist_ok=True)
    for name in options.names or known:
        found = run(name, known[name], data)
        (RESULTS / f"build_{name}.json").write_text(json.dumps(found, indent=1) + "\n")
        print(name, found["verdict"])


if __name__ == "__main__":
    main()
