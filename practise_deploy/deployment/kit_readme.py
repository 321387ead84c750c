"""The README of a kit, for whoever takes it to the device."""

from __future__ import annotations

from practise_backends.results.bundle import Kit
from practise_backends.runtimes.catalog import backend_class

_PAGE = """# What does every block of {network} cost on this device?

In this folder, on the device, with Python 3.10 or newer (torch is not needed):

```
{install}
practise-measure .
```

It takes minutes: {networks} networks are opened, then measured for {measure_budget_s:g} s, with backend {backend}, batch {batch}, {precision}.
`practise-measure table --help` lists what can be asked otherwise, for instance `practise-measure . --threads 4`.
{device_setup}
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


def kit_readme(kit: Kit, wheel: str) -> str:
    """The page. wheel: the name of the tool's file."""
    setup = backend_class(kit.asked.backend).capabilities.device_setup
    return _PAGE.format(
        network=kit.network,
        install=install_line(kit, wheel),
        networks=len(kit.networks),
        measure_budget_s=kit.asked.measure_budget_s,
        backend=kit.asked.backend,
        batch=kit.input_shape[0],
        precision=kit.precision,
        device_setup=f"\n{setup.format(wheel=wheel)}\n" if setup else "",
        wheel=wheel,
        plan=_PLAN.format(plan=kit.plan) if kit.plan else _NO_PLAN,
        weights=kit.weights,
        made_by=kit.made_by,
    )


def install_line(kit: Kit, wheel: str) -> str:
    """The command that installs the tool; every backend is an extra of that name."""
    return f'pip install "./{wheel}[{kit.asked.backend}]"'
