"""From a module to its graph, and what is refused on the way."""
