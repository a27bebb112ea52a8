"""Radiology reports as they are published: sections, cleaning, prior studies, and studies with several images."""
