"""Stand-ins for what only a machine with a GPU has: its driver, NVML (`driver.c`) and TensorRT (`tensorrt.py`)."""

from __future__ import annotations

import importlib.util
import subprocess
from pathlib import Path

SOURCE = Path(__file__).parent / "driver.c"


def write_driver(folder: Path) -> None:
    """libcuda.so.1 and libnvidia-ml.so.1; what pycuda links to and is not written out answers 801 (not supported)."""
    written = SOURCE.read_text(encoding="utf-8")
    missing = [name for name in _linked_by_pycuda() if f"int {name}(" not in written]
    source = folder / "driver.c"
    source.write_text(written + "".join(f"int {name}(void) {{ return 801; }}\n" for name in missing), encoding="utf-8")
    subprocess.run(["gcc", "-shared", "-fPIC", "-o", folder / "libcuda.so.1", source], check=True)
    (folder / "libnvidia-ml.so.1").symlink_to("libcuda.so.1")


def _linked_by_pycuda() -> list[str]:
    if (found := importlib.util.find_spec("pycuda")) is None:
        return []
    (library,) = Path(str(found.origin)).parent.glob("_driver*.so")
    said = subprocess.run(["nm", "-D", "-u", library], check=True, capture_output=True, text=True).stdout
    return [name for line in said.splitlines() if (name := line.split()[-1]).startswith("cu")]
