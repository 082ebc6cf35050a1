"""Jinja environments for files that people read and change: YAML, shell."""

from __future__ import annotations

import jinja2

__all__ = ["text_templates"]


def text_templates(package: str) -> jinja2.Environment:
    """Templates beside the modules of ``package``; what they lack is an error, and nothing is escaped.

    What comes from outside has to pass a filter of its own that quotes it.
    """
    return jinja2.Environment(
        loader=jinja2.PackageLoader(package, "."),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,
    )
