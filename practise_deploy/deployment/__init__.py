"""From a network to a file that a device runs, and the proof of it."""
