"""GAN Slimming as a library: distillation, channel pruning and quantization in one objective.

The paper: Wang, Gui, Yang, Liu, Wang: GAN Slimming, ECCV 2020. ``slim_generator`` does all of it in one call; the
rest are its parts, for those who bring their own data or loop.
"""

from __future__ import annotations

from gs_search.slimming.api import FrozenParts, slim_generator
from gs_search.slimming.learning_rates import harm_of_rates, rate_factor
from gs_search.slimming.lessons import Lessons
from gs_search.slimming.repair import record_targets
from gs_search.slimming.run import Slimmed, slim
from gs_search.slimming.student import load_student, save_student
from gs_search.slimming.teacher import Batch, Teacher
from gs_search.study.settings import SlimmingSettings

__all__ = [
    "Batch",
    "FrozenParts",
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
    "slim_generator",
]
