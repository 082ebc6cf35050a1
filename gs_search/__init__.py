"""gs-search: shrink image-to-image GANs with GAN Slimming, and search how far each one can go."""

from __future__ import annotations

__all__ = ["__version__"]

__version__ = "0.1.0"
