"""What a teacher paints of a few photos, for the eye, and what looks wrong in it by numbers.

A convention that does not fit (order of the channels, range of the values) seldom fails: the network paints, but paints
worse. What numbers show of it is said as a warning, or, where hardly anything is left of a picture, as an error.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from gs_search.data import PictureSet
from gs_search.data.images import grid, to_uint8, write_png
from gs_search.errors import BadInput

if TYPE_CHECKING:
    from gs_search.study.config import StudyConfig

__all__ = ["TeacherSamples", "colour_warning", "first_pictures", "range_warnings", "teacher_samples"]

SHOWN = 6
"""Pictures that are painted to be looked at, and judged by their range."""

COMPARED, COMPARED_PX = 48, 128
"""Pictures on which two orders of the channels are compared, and the side to which larger ones are averaged down."""

MARGIN = 0.05
"""How far a value may lie outside of [-1, 1] and be no matter: many a network has no tanh at its end."""

OUTSIDE, MOST_OUTSIDE = 0.05, 0.25
"""Shares of the values outside of the range that are warned of, and that are refused."""

FLAT, FLATTEST = 0.08, 0.01
"""Standard deviations of a picture's values, of 1, below which it hardly varies, and shows nothing."""

DARK, MIDDLE = -0.5, -0.1
"""Photos reach below the one; where no painted value reaches below the other, the range is that of [0, 1]."""

ALIKE = 0.2
"""Correlation of brightness with the input's below which a picture does not resemble it."""

SURE = 2.8
"""Standard deviations by which the pictures whose colours are nearer to the photos' with red and blue exchanged must be
more than half of all. (CartoonGAN in the wrong order, four sets of 48 photos: 4.4 standard errors and more; two
fast-style networks in the right one: 2.1 at most.)"""


@dataclass(frozen=True)
class TeacherSamples:
    """A few pictures and what the teacher makes of them.

    Attributes:
        inputs: N x 3 x H x W bytes.
        painted: what it paints, floats, meant to be in [-1, 1].
        exchanged: the same with red and blue exchanged before and after the network; None where colours look right.
        warnings: what looks wrong, one line each.
    """

    inputs: Tensor
    painted: Tensor
    exchanged: Tensor | None
    warnings: tuple[str, ...]

    def write(self, path: Path) -> None:
        """Write a PNG: a row of inputs, one of what is painted; where colours look swapped, one of the other order."""
        rows = [self.inputs, to_uint8(self.painted)]
        path.parent.mkdir(parents=True, exist_ok=True)
        write_png(path, grid(rows if self.exchanged is None else [*rows, to_uint8(self.exchanged)]))


def teacher_samples(config: StudyConfig, generator: nn.Module, pictures: PictureSet) -> TeacherSamples:
    """Have the teacher paint a few pictures of the study, and judge what comes out.

    Raises:
        BadInput: see ``range_warnings``.
    """
    inputs = first_pictures(pictures)
    painted = _painted(generator, inputs)
    found = range_warnings(config, inputs, painted)
    wrong = colour_warning(config, generator, first_pictures(pictures, COMPARED))
    exchanged = None if wrong is None else _painted(generator, inputs, exchange=True)
    return TeacherSamples(inputs, painted, exchanged, tuple(found if wrong is None else [*found, wrong]))


def first_pictures(pictures: PictureSet, count: int = SHOWN) -> Tensor:
    """Up to ``count`` pictures of a set, N x 3 x H x W bytes."""
    return torch.stack([pictures.picture(index) for index in range(min(count, len(pictures)))])


def range_warnings(config: StudyConfig, inputs: Tensor, painted: Tensor | nn.Module) -> list[str]:
    """What looks wrong in the range of what is painted, one line each.

    Args:
        inputs: N x 3 x H x W bytes.
        painted: N x 3 x H x W, meant to be in [-1, 1]; or the generator that is to paint.

    Raises:
        BadInput: nothing to learn from is left, because the range that the study gives is not the network's.
    """
    if isinstance(painted, nn.Module):
        painted = _painted(painted, inputs)
    teacher = config.teacher
    own, found = teacher.kind == "module", []
    low, high = (teacher.output_range or teacher.range) if own else (-1.0, 1.0)
    key = "teacher.output_range" if teacher.output_range is not None else "teacher.range"
    said = f"{key}, [{low:g}, {high:g}]" if own else "the range [-1, 1]"
    raw = (painted + 1) * ((high - low) / 2) + low
    reaches = f"the network returns values from {float(raw.min()):.3g} to {float(raw.max()):.3g}"
    right = "set teacher.output_range to what it returns for black and white"
    outside = float((painted.abs() > 1 + MARGIN).float().mean())
    spread = float(painted.clamp(-1, 1).flatten(1).std(dim=1).mean())
    if outside > OUTSIDE:
        line = f"{outside:.0%} of the painted values lie outside of {said}: {reaches}"
        if own and outside > MOST_OUTSIDE:
            raise BadInput(f"{line}; {right}")
        found.append(line)
    elif spread < FLAT:
        line = f"the painted pictures hardly vary within {said} (standard deviation {spread:.2g} of 1): {reaches}"
        if own and spread < FLATTEST:
            raise BadInput(f"{line}; {right}")
        found.append(line)
    elif _lowest(inputs.float() / 127.5 - 1.0) < DARK and _lowest(painted) > MIDDLE:
        found.append(f"nothing darker than a middle grey is painted within {said}: {reaches}; is it [0, 1]?")
    alike = _correlation(inputs.float().mean(dim=1), painted.mean(dim=1))
    if alike < ALIKE:
        hint = "; does teacher.range, of its inputs, fit?" if own else ""
        found.append(f"what is painted does not resemble the inputs (correlation of brightness {alike:.2f}){hint}")
    return found


def colour_warning(config: StudyConfig, generator: nn.Module, pictures: Tensor) -> str | None:
    """Say that colours look swapped, or None where they do not.

    Args:
        pictures: N x 3 x H x W bytes.
    """
    teacher = config.teacher
    if teacher.channels == "grey" or len(pictures) < 2:
        return None
    pictures = _small(pictures, teacher.multiple or 4)
    painted, exchanged = _painted(generator, pictures), _painted(generator, pictures, exchange=True)
    here, other, turned = (_colour_errors(pictures, found) for found in (painted, exchanged, painted.flip(1)))
    if float(turned.mean()) < float(other.mean()) and _is_nearer(turned, here):
        return (
            f"red and blue change places between photo and picture: exchanged back, {_count(turned, here)} pictures "
            "have colours nearer to their photo's; the network takes one order and returns the other"
        )
    if not _is_nearer(other, here):
        return None
    hint = "is it a network for BGR?"
    if teacher.kind == "module":
        hint = f"try teacher.channels: {'rgb' if teacher.channels == 'bgr' else 'bgr'}"
    return (
        f"colours look swapped: with red and blue exchanged before and after the network, {_count(other, here)} "
        f"pictures have colours nearer to their photo's; {hint}"
    )


@torch.no_grad()
def _painted(generator: nn.Module, pictures: Tensor, *, exchange: bool = False) -> Tensor:
    """What the generator makes of N x 3 x H x W bytes."""
    device = next((p.device for p in generator.parameters()), torch.device("cpu"))
    floats = pictures.float() / 127.5 - 1.0
    floats = floats.flip(1) if exchange else floats
    painted = torch.cat([generator(picture[None].to(device)).float().cpu() for picture in floats])
    return painted.flip(1) if exchange else painted


def _small(pictures: Tensor, multiple: int) -> Tensor:
    """Large pictures averaged down by a whole number, where the generator takes the smaller ones."""
    factor = pictures.shape[-1] // COMPARED_PX
    if factor < 2 or pictures.shape[-1] % (factor * multiple):
        return pictures
    return nn.functional.avg_pool2d(pictures.float(), factor).round().to(torch.uint8)


def _colour_errors(pictures: Tensor, painted: Tensor) -> Tensor:
    """Mean square between the colours, brightness aside, of each photo and its picture; N."""
    shown, meant = (values - values.mean(dim=1, keepdim=True) for values in (painted, pictures.float() / 127.5 - 1.0))
    return (shown - meant).square().mean(dim=(1, 2, 3))


def _is_nearer(other: Tensor, here: Tensor) -> bool:
    """Whether that is so for more of the pictures than chance explains."""
    count = len(here)
    return float((other < here).sum()) - count / 2 >= SURE * math.sqrt(count) / 2


def _count(other: Tensor, here: Tensor) -> str:
    return f"{int((other < here).sum())} of {len(here)}"


def _lowest(values: Tensor) -> float:
    """The value that 0.5 % lie below."""
    flat = values.flatten()
    return float(flat.kthvalue(max(1, round(0.005 * len(flat)))).values)


def _correlation(one: Tensor, other: Tensor) -> float:
    a, b = (values.double().flatten() - values.double().mean() for values in (one, other))
    return float((a * b).sum() / (a.norm() * b.norm()).clamp_min(1e-12))
