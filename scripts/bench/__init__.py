"""Measurements behind the tables of the documents: each prints markdown and writes JSON with date and hardware."""
