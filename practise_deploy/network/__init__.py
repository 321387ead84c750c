"""The network: loading, tracing, its blocks, and the same network without some of them."""
