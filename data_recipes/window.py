"""How many samples are packed together. A module of its own, so that settings can be read without importing torch."""

WINDOW = 1024
"""Samples that are packed together: enough that little is wasted, few enough to be measured in half a second."""
