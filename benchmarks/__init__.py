"""Measurements behind the figures in the documents; each module prints a table. See ``README.md``."""
