"""Accuracy at equal latency with tiny sets: the grid, its methods, and what came of them. Begin with `grid`."""
