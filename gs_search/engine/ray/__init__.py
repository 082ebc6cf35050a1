"""A study on machines that others look after: submitted as a job of Ray's, and the files that start a cluster."""

from __future__ import annotations

from gs_search.engine.ray.jobs import Submission, follow, submit

__all__ = ["Submission", "follow", "submit"]
