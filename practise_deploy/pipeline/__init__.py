"""A build: the only place that knows the order."""
