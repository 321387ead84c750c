"""The tiny set: reading, labels, and what planning and recovery learn from."""
