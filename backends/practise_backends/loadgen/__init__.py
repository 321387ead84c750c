"""MLPerf LoadGen as a second instrument."""
