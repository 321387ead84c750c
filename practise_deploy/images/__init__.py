"""The tiny set: reading, labels, and the calibration problem of planning and recovery."""
