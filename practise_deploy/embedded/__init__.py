"""The digits network and its tiny set, shipped with the package."""
