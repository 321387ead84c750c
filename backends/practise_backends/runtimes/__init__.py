"""Backends: what compiles and runs a network."""
