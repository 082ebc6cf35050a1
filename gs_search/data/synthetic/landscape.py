"""Landscapes of the drawn data set: sky, sun, clouds, mountains, hills, trees, meadow.

Both domains draw from the same distribution of landscapes, so that a translation has no reason to touch them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from PIL import Image

from gs_search.data.synthetic.brush import Canvas, Colour, Points, mix, shade
from gs_search.data.synthetic.rng import Dice

__all__ = ["Landscape", "paint_foreground", "paint_landscape"]


@dataclass(frozen=True, kw_only=True)
class _Mood:
    """Colours of a time of day; ``ground`` runs from the horizon to the viewer."""

    sky: tuple[Colour, Colour]
    sun: Colour
    cloud: Colour
    far: Colour
    hill: Colour
    ground: tuple[Colour, Colour]
    leaf: tuple[Colour, ...]
    blossom: tuple[Colour, ...]
    brightness: float


_WHITE: Colour = (252, 250, 246)
_MOODS = (
    _Mood(  # noon
        sky=((74, 146, 212), (198, 228, 243)),
        sun=(255, 248, 214),
        cloud=(250, 252, 254),
        far=(140, 170, 200),
        hill=(116, 164, 104),
        ground=((146, 188, 86), (84, 138, 52)),
        leaf=((58, 112, 58), (74, 130, 62), (44, 96, 66)),
        blossom=(_WHITE, (244, 208, 72), (226, 96, 88)),
        brightness=1.0,
    ),
    _Mood(  # morning
        sky=((116, 172, 214), (253, 226, 186)),
        sun=(255, 240, 196),
        cloud=(255, 244, 232),
        far=(166, 176, 204),
        hill=(138, 172, 116),
        ground=((172, 194, 96), (98, 142, 62)),
        leaf=((78, 124, 70), (98, 140, 66), (64, 108, 76)),
        blossom=(_WHITE, (240, 170, 190), (246, 214, 92)),
        brightness=1.0,
    ),
    _Mood(  # sunset
        sky=((72, 86, 150), (252, 172, 108)),
        sun=(255, 222, 138),
        cloud=(250, 190, 160),
        far=(124, 104, 146),
        hill=(112, 112, 98),
        ground=((170, 148, 78), (86, 96, 48)),
        leaf=((62, 78, 60), (86, 84, 50), (54, 66, 66)),
        blossom=((250, 216, 140), (236, 132, 110), _WHITE),
        brightness=0.94,
    ),
    _Mood(  # autumn
        sky=((122, 176, 212), (244, 234, 208)),
        sun=(255, 246, 216),
        cloud=(252, 250, 246),
        far=(160, 172, 188),
        hill=(188, 164, 92),
        ground=((216, 188, 104), (158, 130, 60)),
        leaf=((206, 122, 48), (190, 84, 44), (222, 164, 62), (122, 126, 58)),
        blossom=((250, 226, 150), _WHITE, (200, 96, 60)),
        brightness=1.0,
    ),
    _Mood(  # dusk
        sky=((60, 74, 132), (228, 168, 170)),
        sun=(255, 214, 190),
        cloud=(214, 166, 186),
        far=(112, 108, 156),
        hill=(88, 114, 110),
        ground=((116, 142, 92), (62, 96, 64)),
        leaf=((48, 78, 72), (58, 92, 72), (44, 66, 78)),
        blossom=((240, 210, 230), _WHITE, (180, 160, 230)),
        brightness=0.9,
    ),
)


@dataclass(frozen=True)
class Landscape:
    """What the painter of animals must know about the land it stands on."""

    horizon: float
    """Height of the horizon in picture units from the top."""
    sun_x: float
    """Where the sun stands, 0 left to 1 right."""
    grass: Colour
    blossom: tuple[Colour, ...]
    brightness: float
    """Factor on the colours of what stands in this light."""
    tint: Colour
    """Colour of the light itself."""


@lru_cache(maxsize=1)
def _glow() -> Image.Image:
    """A soft round spot, 64 x 64."""
    axis = (np.arange(64) - 31.5) / 32
    radius = np.hypot(*np.meshgrid(axis, axis))
    return Image.fromarray((np.clip(1 - radius, 0, 1) ** 2 * 190).astype(np.uint8))


def paint_landscape(dice: Dice, image_px: int, oversampling: int) -> tuple[Canvas, Landscape]:
    """Return a canvas full of landscape, and the light and the ground in it."""
    mood = dice.choice(_MOODS)
    horizon = dice.uniform(0.46, 0.60)
    sun_x, sun_y = dice.uniform(0.08, 0.92), dice.uniform(0.10, 0.36)
    canvas = Canvas(image_px, oversampling, _sky_and_ground(image_px * oversampling, mood, horizon))
    _paint_sun(canvas, mood, sun_x, sun_y)
    for _ in range(int(dice.uniform(1, 5))):
        _paint_cloud(canvas, mood, dice, horizon)
    if dice.chance(0.55):
        _paint_mountains(canvas, mood, dice, horizon, lit_left=sun_x < 0.5)
    _paint_hills(canvas, mood, dice, horizon)
    _paint_meadow(canvas, mood, dice, horizon)
    return canvas, Landscape(horizon, sun_x, mood.ground[1], mood.blossom, mood.brightness, mood.sun)


def paint_foreground(canvas: Canvas, land: Landscape, dice: Dice, feet: float) -> None:
    """Grass and flowers in front of an animal whose hooves stand at height ``feet``."""
    for factor in (0.78, 0.92, 1.16):
        rows = feet - 0.01 + (1.01 - feet) * dice.units(3)
        canvas.polygons(_tufts(dice, rows, np.ones(3)), shade(land.grass, factor))
    blossom = dice.choice(land.blossom)
    for _ in range(int(dice.uniform(0, 14))):
        x, y = dice.unit(), dice.uniform(feet + 0.02, 1.0)
        radius = 0.004 + 0.008 * (y - land.horizon)
        canvas.ellipse(x, y, radius, radius * 0.8, blossom)


def _sky_and_ground(side: int, mood: _Mood, horizon: float) -> Points:
    """Colours of all rows, side x 3."""
    y = ((np.arange(side) + 0.5) / side)[:, None]
    (top, low), (back, front) = (np.array(pair, float) for pair in (mood.sky, mood.ground))
    sky = top + (low - top) * np.minimum(y / horizon, 1) ** 1.3
    ground = back + (front - back) * np.maximum((y - horizon) / (1 - horizon), 0) ** 0.8
    return np.where(y < horizon, sky, ground)


def _paint_sun(canvas: Canvas, mood: _Mood, x: float, y: float) -> None:
    size = int(0.72 * canvas.side)
    corner = (int(x * canvas.side) - size // 2, int(y * canvas.side) - size // 2)
    canvas.image.paste(mood.sun, corner, _glow().resize((size, size), Image.Resampling.BILINEAR))
    canvas.ellipse(x, y, 0.055, 0.055, mix(mood.sun, _WHITE, 0.5))


def _paint_cloud(canvas: Canvas, mood: _Mood, dice: Dice, horizon: float) -> None:
    x, y, size = dice.uniform(-0.05, 1.05), dice.uniform(0.05, horizon - 0.16), dice.uniform(0.05, 0.11)
    radii = (0.35 + 0.25 * dice.units(5)) * (0.94, 1.22, 1.5, 1.22, 0.94) * size
    puffs = [(x + size * (1.1 * i - 2.2), float(radius)) for i, radius in enumerate(radii)]
    under = mix(mood.cloud, mood.sky[0], 0.22)
    for colour, lift, alpha in ((under, 0.0, 0.75), (mood.cloud, 0.16 * size, 0.95)):
        for px, radius in puffs:
            canvas.ellipse(px, y - lift - 0.5 * radius, radius * 1.35, radius * 0.9, colour, alpha)


def _paint_mountains(canvas: Canvas, mood: _Mood, dice: Dice, horizon: float, *, lit_left: bool) -> None:
    base = horizon + 0.04
    rock = mix(mood.far, mood.sky[1], 0.25)
    snowy = dice.chance(0.6)
    for centre in sorted(dice.units(4) * 1.2 - 0.1, key=lambda c: abs(c - 0.5), reverse=True):
        height, width = dice.uniform(0.10, 0.24), dice.uniform(0.18, 0.32)
        peak = np.array([centre, base - height])
        left, right = np.array([centre - width, base]), np.array([centre + width, base])
        fold = np.array([centre + dice.uniform(-0.2, 0.2) * width, base])
        bright, dim = mix(rock, mood.sun, 0.16), shade(rock, 0.86)
        canvas.polygon(np.stack([left, peak, fold]), bright if lit_left else dim)
        canvas.polygon(np.stack([fold, peak, right]), dim if lit_left else bright)
        if snowy:
            line = [peak, peak + 0.30 * (right - peak), peak + 0.20 * (0.4 * right + 0.6 * fold - peak)]
            line += [peak + 0.34 * (fold - peak), peak + 0.22 * (0.6 * left + 0.4 * fold - peak)]
            line += [peak + 0.32 * (left - peak)]
            canvas.polygon(np.stack(line), mix(_WHITE, mood.sky[1], 0.2))


_RIDGE_X = np.linspace(-0.02, 1.02, 25)


def _ridge(dice: Dice, level: float, relief: float) -> Points:
    """A smooth line of hills across the picture, 25 x 2."""
    rate, phase = dice.uniform(3, 6), dice.uniform(0, 2 * math.pi)
    waves = np.sin(_RIDGE_X * rate + phase) + 0.5 * np.sin(_RIDGE_X * (2.1 * rate) + 5 * phase)
    ridge = np.empty((len(_RIDGE_X), 2))
    ridge[:, 0], ridge[:, 1] = _RIDGE_X, level - relief * waves
    return ridge


def _under(ridge: Points) -> Points:
    return np.concatenate([ridge, [[1.02, 1.02], [-0.02, 1.02]]])


def _paint_hills(canvas: Canvas, mood: _Mood, dice: Dice, horizon: float) -> None:
    for share, level, relief in ((0.35, horizon - 0.035, 0.030), (0.85, horizon + 0.005, 0.020)):
        colour = mix(mood.far, mood.hill, share)
        ridge = _ridge(dice, level, relief)
        canvas.polygon(_under(ridge), colour)
        for _ in range(int(dice.uniform(1, 4 + 3 * share))):
            x, y = ridge[int(dice.uniform(1, 24))]
            leaf = mix(mood.far, dice.choice(mood.leaf), 0.25 + 0.7 * share)
            _paint_tree(canvas, dice, x, y + 0.012, dice.uniform(0.05, 0.09) * (0.4 + share), leaf)


def _paint_meadow(canvas: Canvas, mood: _Mood, dice: Dice, horizon: float) -> None:
    back, front = mood.ground
    ridge = _ridge(dice, horizon + 0.05, 0.010)
    canvas.polygon(_under(ridge), back)
    for step in range(1, 5):
        level = horizon + 0.05 + (0.95 - horizon) * (step / 5) ** 1.15
        canvas.polygon(_under(_ridge(dice, level, 0.010)), mix(back, front, step / 4))
    for factor, y in ((0.86, 0.15), (1.12, 0.3), (0.86, 0.5), (1.12, 0.75)):
        rows = horizon + 0.05 + (0.9 - horizon) * (y + 0.2 * dice.units(3))
        colour = shade(mix(back, front, y), factor)
        canvas.polygons(_tufts(dice, rows, (rows - horizon) * 1.6), colour)


def _tufts(dice: Dice, y: Points, size: Points) -> Points:
    """Tufts of grass rooted at heights ``y``, each a zigzag polygon of five blades: k x 11 x 2."""
    count, blades = len(y), 5
    pitch = 0.016 * size[:, None]
    points = np.empty((count, 2 * blades + 1, 2))
    points[:, :, 0] = 1.05 * dice.units(count, 1) - 0.05 + 0.5 * pitch * np.arange(2 * blades + 1)
    points[:, 1::2, 0] += pitch * (dice.units(count, blades) * 1.4 - 0.7)
    points[:, :, 1] = y[:, None]
    points[:, 1::2, 1] -= size[:, None] * (0.015 + 0.030 * dice.units(count, blades))
    return points


def _paint_tree(canvas: Canvas, dice: Dice, x: float, y: float, height: float, leaf: Colour) -> None:
    trunk = shade(mix(leaf, (92, 64, 46), 0.7), 0.9)
    canvas.ellipse(x, y, height * 0.35, height * 0.05, shade(leaf, 0.6), 0.4)
    stem = np.array([(-0.05, 0.0), (-0.035, -0.5), (0.035, -0.5), (0.05, 0.0)]) * height + (x, y)
    canvas.polygon(stem, trunk)
    kind = dice.unit()
    if kind < 0.35:  # conifer
        for tier in range(3):
            top, low, half = -1.15 + 0.27 * tier, -0.62 + 0.24 * tier, 0.17 + 0.075 * tier
            skirt = np.array([(-half, low), (0, top), (half, low)]) * height + (x, y)
            canvas.polygon(skirt, shade(leaf, 0.82 + 0.09 * (2 - tier)))
    elif kind < 0.8:  # round crown
        for dx, dy, width, light in ((0, -0.62, 0.36, 0.86), (-0.16, -0.7, 0.24, 1), (0.12, -0.8, 0.2, 1.12)):
            radius = width * height
            canvas.ellipse(x + dx * height, y + dy * height, radius, 0.92 * radius, shade(leaf, light))
    else:  # poplar
        canvas.ellipse(x, y - 0.72 * height, 0.16 * height, 0.58 * height, shade(leaf, 0.9))
        canvas.ellipse(x - 0.04 * height, y - 0.80 * height, 0.09 * height, 0.42 * height, shade(leaf, 1.1))
