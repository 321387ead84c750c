"""The README of a kit, for whoever takes it to the device."""

from __future__ import annotations

from practise_backends.results.bundle import Kit

_PAGE = """# What does every block of {network} cost on this device?

In this folder, on the device, with Python 3.10 or newer (torch is not needed):

```
{install}
practise-measure .
```

It takes minutes: {networks} networks are opened, then measured for {measure_budget_s:g} s, with backend {backend}, batch {batch}, {precision}.
`practise-measure table --help` lists what can be asked otherwise, for instance `practise-measure . --threads 4`.
{jetson}
Where nothing can be installed, but numpy and the backend's package are there, the wheel runs as it is:
`PYTHONPATH={wheel} python3 -m practise_backends.cli .`

Bring `latency.json` home, with `latency.npz`, its raw samples, beside it{plan}

Made by {made_by}. Weights, in `networks/weights.bin`: {weights}. The sha256 of every network is in `kit.json`.
"""
_PLAN = """; there:

```
{plan} --latency-table latency.json
```"""
_NO_PLAN = ".\nThis network is a torch.export file: it can be measured, not replanned."
_JETSON = """
On a Jetson, JetPack brings numpy and TensorRT along. With its own python3, or in an environment made with
`--system-site-packages`, `pip install --no-deps ./{wheel}` takes what is there; `practise-measure .` says which
package for CUDA to add (`pip install cuda-python`, for instance) where there is none.
"""


def kit_readme(kit: Kit, wheel: str) -> str:
    """The page. wheel: the name of the tool's file."""
    return _PAGE.format(
        network=kit.network,
        install=install_line(kit, wheel),
        networks=len(kit.networks),
        measure_budget_s=kit.asked.measure_budget_s,
        backend=kit.asked.backend,
        batch=kit.input_shape[0],
        precision=kit.precision,
        jetson=_JETSON.format(wheel=wheel) if kit.asked.backend == "trt" else "",
        wheel=wheel,
        plan=_PLAN.format(plan=kit.plan) if kit.plan else _NO_PLAN,
        weights=kit.weights,
        made_by=kit.made_by,
    )


def install_line(kit: Kit, wheel: str) -> str:
    """The command that installs the tool; every backend is an extra of that name."""
    return f'pip install "./{wheel}[{kit.asked.backend}]"'
