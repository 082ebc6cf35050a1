"""The settings of one GAN Slimming run: names, meaning, defaults, legal ranges.

A study file gives defaults for them, a search space proposes some of them, and ``gs_search.slimming`` obeys
them. This module knows neither torch nor files, so that checking a study costs no import of either.

Settings marked *per group* take one value for the whole network or a mapping from layer groups
(``stem, down, body, up, head``) to values; in a search space and in a trial's point the value of one group is
written ``name.group``, for example ``weight_bits.body``.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from gs_search.errors import ConfigError

__all__ = ["GROUPS", "LEGAL", "TRAINING", "Legal", "Point", "SlimmingSettings", "Value", "settings_from_point"]

Value = float | int | str | bool
Point = Mapping[str, Value]
"""A point of a search space: setting (or ``setting.group``) to value."""

GROUPS = ("stem", "down", "body", "up", "head")
"""Groups of layers, in the order in which an image passes them."""

BITS = (2, 3, 4, 5, 6, 7, 8, 32)
"""Legal bit-widths; 32 means float."""


@dataclass(frozen=True)
class Legal:
    """What a setting may be: a closed interval of numbers, or one of some choices."""

    low: float | None = None
    high: float | None = None
    choices: tuple[Value, ...] | None = None
    integer: bool = False
    per_group: bool = False
    optional: bool = False

    def problem(self, value: object) -> str | None:
        """Say what is wrong with ``value``, or return None."""
        if value is None and self.optional:
            return None
        if self.choices is not None:
            if value not in self.choices or isinstance(value, bool) != isinstance(self.choices[0], bool):
                return f"must be one of {', '.join(map(str, self.choices))}, not {value!r}"
            return None
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            return f"must be a number, not {value!r}"
        if isinstance(value, float) and not math.isfinite(value):
            return f"must be finite, not {value!r}"
        if self.integer and int(value) != value:
            return f"must be a whole number, not {value!r}"
        assert self.low is not None and self.high is not None
        if not self.low <= value <= self.high:
            return f"must lie between {self.low:g} and {self.high:g}, not {value!r}"
        return None


LEGAL: dict[str, Legal] = {
    "prune": Legal(choices=("all", "inner")),
    "schedule": Legal(choices=("at_once", "proximal")),
    "importance": Legal(choices=("taylor", "rank", "raw")),
    "sparsity_weight": Legal(0.0, 1e3, optional=True),
    "target_gflops_ratio": Legal(0.01, 1.0, optional=True),
    "sparsity_multiplier": Legal(0.0, 100.0, per_group=True),
    "width_floor": Legal(1, 4096, integer=True),
    "round_to": Legal(1, 256, integer=True),
    "revive": Legal(choices=(True, False)),
    "repair": Legal(choices=(True, False)),
    "repair_pictures": Legal(1, 4096, integer=True),
    "weight_bits": Legal(choices=BITS, per_group=True),
    "activation_bits": Legal(choices=BITS, per_group=True),
    "calibration": Legal(choices=("mse", "quantile", "clip", "max")),
    "quantize": Legal(choices=("inputs", "deploy")),
    "distill_weight": Legal(0.0, 1e4),
    "feature_weight": Legal(0.0, 1e4, per_group=True),
    "feature_match": Legal(choices=("channels", "map")),
    "perceptual_network": Legal(choices=("efficientnet_lite0", "squeezenet", "vgg16")),
    "perceptual_weight": Legal(0.0, 1e4),
    "style_weight": Legal(0.0, 1e8),
    "adversarial_weight": Legal(0.0, 1e4),
    "adversarial_loss": Legal(choices=("lsgan", "hinge", "log")),
    "critic_feature_weight": Legal(0.0, 1e4),
    "discriminator_real": Legal(choices=("target", "teacher")),
    "discriminator_width": Legal(4, 512, integer=True),
    "steps": Legal(0, 10_000_000, integer=True),
    "slim_fraction": Legal(0.0, 1.0),
    "batch_size": Legal(1, 4096, integer=True),
    "learning_rate": Legal(0.0, 1.0),
    "scale_learning_rate": Legal(0.0, 10.0),
    "scale_momentum": Legal(0.0, 0.99),
    "range_learning_rate": Legal(0.0, 1.0),
    "discriminator_learning_rate": Legal(0.0, 1.0),
    "weight_decay": Legal(0.0, 1.0),
    "precision": Legal(choices=("auto", "bf16", "float32")),
}
"""Every setting by name, with what it may be."""

TRAINING = (
    "distill_weight", "feature_weight", "perceptual_network", "perceptual_weight", "style_weight",
    "adversarial_weight", "adversarial_loss", "critic_feature_weight", "discriminator_real", "discriminator_width",
    "learning_rate", "scale_learning_rate", "scale_momentum", "range_learning_rate", "discriminator_learning_rate",
    "weight_decay", "precision",
)  # fmt: skip
"""Those that say how a student is trained, and nothing of what it is."""


@dataclass(frozen=True, kw_only=True)
class SlimmingSettings:
    """All settings of one run of GAN Slimming (Wang et al., ECCV 2020). Defaults suit short trials."""

    prune: Literal["all", "inner"] = "all"
    """``inner``: the paper, the residual stream keeps its width. ``all``: every coupled group may shrink."""
    schedule: Literal["at_once", "proximal"] = "at_once"
    """``proximal``: the paper, scales are learned and thresholded during the first ``slim_fraction`` of the
    steps. ``at_once``: cut on the teacher's own importance, then train what is left."""
    importance: Literal["taylor", "rank", "raw"] = "taylor"
    """What a scale means when training starts. ``taylor``: the rank, inside its group of channels, of what the
    channel's loss would change in the teacher's pictures, times what its group is worth for its multiply-adds.
    ``rank``: the rank of |scale| * ||next weights||. ``raw``: whatever the teacher has."""
    sparsity_weight: float | None = None
    """The paper's rho, as a shrink budget: what the proximal steps take off every scale in total,
    rho * sum of the scales' learning rates. One budget prunes alike at any number of steps."""
    target_gflops_ratio: float | None = None
    """Share of the teacher's multiply-adds at which the student is to land; steers rho."""
    sparsity_multiplier: float | Mapping[str, float] = 1.0
    """Per group: factor on the sparsity of its layers; 0 spares them."""
    width_floor: int = 4
    """No group of channels becomes narrower than this (a residual block may vanish as a whole)."""
    round_to: int = 1
    """Widths are rounded up to a multiple of this: 8 suits the vector units of phones."""
    revive: bool = False
    """Whether a pruned channel may come back during a proximal phase."""
    repair: bool = True
    """Refit the kept convolutions to the teacher's by least squares after the cut."""
    repair_pictures: int = 32
    """Pictures used by the repair and by the calibration of activations."""
    weight_bits: int | Mapping[str, int] = 8
    """Per group. One number leaves stem and head at 8 (or at 32 where it is 32); only a mapping narrows them."""
    activation_bits: int | Mapping[str, int] = 8
    """Per group, like ``weight_bits``; bits of the inputs of convolutions."""
    calibration: Literal["mse", "quantile", "clip", "max"] = "mse"
    """How a stream's range is found: least squared error, the 99.95 % quantile, 0.7 of the largest value, or the
    largest value. Training then refines it, unless ``range_learning_rate`` is 0."""
    quantize: Literal["inputs", "deploy"] = "inputs"
    """What of a convolution is rounded besides its weight. ``inputs``: what it reads. ``deploy``: what it hands on
    too, to 8 bits with a range for each channel, as the exported file does: what was trained is what runs."""
    distill_weight: float = 10.0
    """Weight of the mean absolute difference to the teacher's picture."""
    feature_weight: float | Mapping[str, float] = 5.0
    """Per group: weight of the normalised squared difference to the teacher's intermediate features."""
    feature_match: Literal["channels", "map"] = "channels"
    """How the student's features meet the teacher's: each kept channel its own, or all of the teacher's through a
    learned 1x1 convolution."""
    perceptual_network: Literal["efficientnet_lite0", "squeezenet", "vgg16"] = "efficientnet_lite0"
    """Whose features the two perceptual terms compare; only EfficientNet-lite0 (extra ``offline``) needs no
    download."""
    perceptual_weight: float = 0.0
    """Weight of the perceptual content term; networks differ in scale (the reference code: 20, with VGG16)."""
    style_weight: float = 0.0
    """Weight of the perceptual style term, squared differences of Gram matrices. The reference code's 2e6 is for
    VGG16; EfficientNet-lite0's features are larger: 20 to 50 there weigh about as much."""
    adversarial_weight: float = 1.0
    """Weight of the adversarial term."""
    adversarial_loss: Literal["lsgan", "hinge", "log"] = "lsgan"
    """``lsgan``: the reference code's. ``log``: the paper's. ``hinge``: Lim and Ye, 2017."""
    critic_feature_weight: float = 0.0
    """Weight of the difference to the teacher's picture in the discriminator's features."""
    discriminator_real: Literal["target", "teacher"] = "teacher"
    """What the discriminator calls real: target-domain pictures (the paper) or the teacher's (its code)."""
    discriminator_width: int = 32
    """Channels of the discriminator's first layer."""
    steps: int = 100
    """Training steps in all; 0 measures the repaired student."""
    slim_fraction: float = 0.6
    """Share of the steps that a ``proximal`` schedule spends before the cut."""
    batch_size: int = 2
    """Pictures a step."""
    learning_rate: float = 1e-4
    """Adam's, of the weights, at the start of a cosine."""
    scale_learning_rate: float = 0.005
    """SGD's, of the prunable scales, at the start of a cosine."""
    scale_momentum: float = 0.0
    """SGD's momentum of the scales (the reference code has 0.5)."""
    range_learning_rate: float = 1e-3
    """Adam's, of the quantizers' ranges, relative to the range."""
    discriminator_learning_rate: float = 2e-4
    """Adam's, of the discriminator."""
    weight_decay: float = 0.0
    """Adam's, of the weights (the reference code has 1e-3)."""
    precision: Literal["auto", "bf16", "float32"] = "auto"
    """Arithmetic of the convolutions in training; losses, parameters and measures are float32. ``auto``: bf16 where the
    processor or GPU multiplies in it and it is no slower, else float32; decided once a study, when it is prepared."""

    @property
    def matches_features(self) -> bool:
        """Whether the features of any group are held to the teacher's."""
        weight = self.feature_weight
        return any(weight.values() if isinstance(weight, Mapping) else (weight,))

    def __post_init__(self) -> None:
        problems = []
        for field in dataclasses.fields(self):
            legal, value = LEGAL[field.name], getattr(self, field.name)
            if legal.per_group and isinstance(value, Mapping):
                for group, entry in value.items():
                    wrong = None if group in GROUPS else f"is not a group; groups are {', '.join(GROUPS)}"
                    wrong = wrong or legal.problem(entry)
                    if wrong:
                        problems.append(f"{field.name}.{group} {wrong}")
            elif wrong := legal.problem(value):
                problems.append(f"{field.name} {wrong}")
        if problems:
            raise ConfigError(problems)

    def per_group(self, name: str, group: str) -> float:
        """Value of the setting ``name`` for the layers of ``group``; the default where a mapping is silent."""
        value = getattr(self, name)
        if not isinstance(value, Mapping):
            return float(value)
        return float(value.get(group, type(self).__dataclass_fields__[name].default))

    def bits(self, name: Literal["weight_bits", "activation_bits"], group: str) -> int:
        """Bits of the layers of ``group``: stem and head keep 8 unless a mapping names them (or all is 32)."""
        value = getattr(self, name)
        if isinstance(value, Mapping):
            return int(value.get(group, 8))
        return max(int(value), 8) if group in ("stem", "head") else int(value)


def settings_from_point(point: Point, defaults: Mapping[str, Any] | None = None) -> SlimmingSettings:
    """Merge a point over a study's defaults.

    A plain ``name`` replaces the default; ``name.group`` entries replace the value of that group and leave the
    value of ``name`` (of the point, else the default) to the other groups.

    Raises:
        ConfigError: a name is unknown or a value illegal; one line for each.
    """
    merged: dict[str, Any] = dict(defaults or {})
    grouped: dict[str, dict[str, Any]] = {}
    problems = [f"unknown setting {name!r}" for name in point if name.partition(".")[0] not in LEGAL]
    if problems:
        raise ConfigError(problems)
    for name, value in point.items():
        base, _, group = name.partition(".")
        if group:
            grouped.setdefault(base, {})[group] = value
        else:
            merged[base] = value
    probe = SlimmingSettings()
    for base, entries in grouped.items():
        whole = merged.get(base, getattr(probe, base))
        if isinstance(whole, Mapping):
            rest = dict(whole)
        elif base in ("weight_bits", "activation_bits"):
            plain = SlimmingSettings(**{base: whole})
            rest = {g: plain.bits(base, g) for g in GROUPS}  # type: ignore[arg-type]
        else:
            rest = dict.fromkeys(GROUPS, whole)
        merged[base] = {**rest, **entries}
    return SlimmingSettings(**merged)
