"""Residual units, and why some cannot be dropped."""
