"""Graphs: their operations, values and outputs, and what is changed in them."""
