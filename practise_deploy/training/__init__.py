"""Feature mimicking, and the paper's adaptors."""
