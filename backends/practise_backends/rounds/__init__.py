"""Measuring in interleaved rounds, and what is estimated from them."""
