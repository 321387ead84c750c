"""The machine: devices, clocks, memory, other work."""
