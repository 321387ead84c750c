"""From a student to a file that is proved to compute what it should, and how fast."""
