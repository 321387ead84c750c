"""Accuracy at equal measured latency with tiny sets: the default, the paper's recipe, and baselines.

    python benchmarks/reproduce/tiny_sets.py latency                         # once, on the device
    python benchmarks/reproduce/tiny_sets.py list --grid small
    python benchmarks/reproduce/tiny_sets.py run --grid small --jobs 2       # goes on where it stopped; CPU or CUDA
    python benchmarks/reproduce/tiny_sets.py sets                            # what the dropped sets save, measured
    python benchmarks/reproduce/tiny_sets.py summary

Every unit (network, reduction, images, method, seed) is one JSON under benchmarks/results/tiny_sets; one that exists
is skipped, and several invocations share the work. `tiny/` holds the parts; docs/tiny-sets.md says what came of it.
"""

import sys

from tiny.commands import main

if __name__ == "__main__":
    sys.exit(main())
