"""Can latency be measured beside six busy processes? One file against itself, and the savings of MobileNetV2's blocks in a minute.

    python benchmarks/speed/busy.py [--hogs 6] [--repeats 20]

Every measurement runs beside the hogs of noise.py, with one thread and the clock that the instrument chooses. Writes benchmarks/results/busy.json.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from noise import CONDITIONS, RESULTS, export, hogs

from practise_backends.interfaces import MeasurementSetup
from practise_backends.results.compare import compare
from practise_backends.runtimes.ort import OrtBackend
from practise_backends.terms import StoppingRule
from practise_deploy.deployment.block_latency import measure_block_latency
from practise_deploy.run import Silent

ITSELF, BLOCKS = "efficientnet-lite0", "torchvision:mobilenet_v2"
A_MINUTE = 60.0


def against_itself(file: Path, repeats: int) -> list[dict[str, Any]]:
    """One file against itself, a quarter of a minute each."""
    rows = []
    for _ in range(repeats):
        rule = StoppingRule(budget_s=A_MINUTE / 4, warmup_s=1.0)
        setup = MeasurementSetup(backend=OrtBackend(), conditions=CONDITIONS, stopping_rule=rule)
        found = compare(file, file, setup, footprint=False)
        rows.append(
            {
                "ratio": asdict(found.speedup),
                "clock": found.timed_by,
                "rounds": found.rounds,
                "discarded": len(found.discarded),
            }
        )
        print(rows[-1], flush=True)
    return rows


def savings() -> dict[str, Any]:
    """What each block saves, measured for a minute."""
    with TemporaryDirectory() as folder:
        model, blocks, _ = export(BLOCKS, Path(folder))
        setup = MeasurementSetup(
            backend=OrtBackend(), conditions=CONDITIONS, stopping_rule=StoppingRule(budget_s=A_MINUTE)
        )
        table = measure_block_latency(model, BLOCKS, blocks, setup, Silent())
    return {
        "network": BLOCKS,
        "clock": table.timed_by,
        "rounds": table.rounds,
        "stopped_because": table.stopped_because,
        "reduction_percent": {saving.block: asdict(saving.reduction_percent) for saving in table.savings},
        "above_zero": sum(saving.reduction_percent.low > 0 for saving in table.savings),
    }


def main() -> None:
    """Measure beside so many hogs; other numbers of them stay in the file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hogs", type=int, default=6)
    parser.add_argument("--repeats", type=int, default=20)
    asked = parser.parse_args()
    path = RESULTS / "busy.json"
    found = json.loads(path.read_text()) if path.is_file() else {"schema": 1, "hogs": {}}
    device = OrtBackend().device()
    with TemporaryDirectory() as folder:
        _, _, file = export(ITSELF, Path(folder))
        with hogs(asked.hogs):
            rows, saved = against_itself(file, asked.repeats), savings()
    found["device"] = {"name": device.name, "versions": device.versions}
    found["hogs"][str(asked.hogs)] = {
        "network": ITSELF,
        "against_itself": rows,
        "within_half_a_percent": sum(abs(row["ratio"]["estimate"] - 1) <= 0.005 for row in rows),
        "covers_1": sum(row["ratio"]["low"] <= 1 <= row["ratio"]["high"] for row in rows),
        "worst_percent": 100 * max(abs(row["ratio"]["estimate"] - 1) for row in rows),
        "savings": saved,
    }
    path.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
