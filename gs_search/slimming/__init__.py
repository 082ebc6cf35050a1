"""GAN Slimming as a library: distillation, channel pruning and quantization in one objective.

The paper: Wang, Gui, Yang, Liu, Wang: GAN Slimming, ECCV 2020.
"""

from __future__ import annotations

from gs_search.settings import SlimmingSettings
from gs_search.slimming.recipe import Slimmed, harm_of_rates, rate_factor, slim
from gs_search.slimming.repair import record_targets
from gs_search.slimming.student import load_student, save_student
from gs_search.slimming.teacher import Batch, Lessons, Teacher

__all__ = [
    "Batch",
    "Lessons",
    "Slimmed",
    "SlimmingSettings",
    "Teacher",
    "harm_of_rates",
    "load_student",
    "rate_factor",
    "record_targets",
    "save_student",
    "slim",
]
