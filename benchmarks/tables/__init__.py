"""The tables of the README and the docs, each from its JSON under benchmarks/results, as Markdown."""
