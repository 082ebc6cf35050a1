"""Horses and zebras in a landscape, drawn on the fly."""
