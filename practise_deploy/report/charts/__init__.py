"""The charts of a report: each file makes one chart in the units of its figures; `drawing` lays it out in pixels."""
