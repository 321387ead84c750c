"""What every block costs, what losing it costs, and which ones go."""
