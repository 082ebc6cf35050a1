"""The skeleton shared by horses and zebras: anatomy, gaits, and the curves round a posed body.

Anatomy is given in body units: the withers stand 1 above the ground, x runs forward from the buttock, y
upwards. A pose bends the skeleton; ``Body`` holds the outlines of the bent animal and carries them into a
picture.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from gs_search.data.synthetic.brush import Points, closed_curve, open_curve, ribbon
from gs_search.data.synthetic.rng import Dice

__all__ = ["Body", "Pose", "pose"]

NEAR_FORE, NEAR_HIND, FAR_FORE, FAR_HIND = range(4)
"""Numbers of the legs."""

# Outline of the trunk, from the withers backwards.
_TRUNK = closed_curve(
    np.array(
        [
            *((0.70, 1.000), (0.52, 0.940), (0.34, 0.960), (0.20, 0.982), (0.08, 0.930), (0.010, 0.83)),
            *((-0.015, 0.72), (0.03, 0.60), (0.14, 0.53), (0.27, 0.550), (0.46, 0.500), (0.66, 0.475)),
            *((0.80, 0.490), (0.93, 0.560), (0.995, 0.68), (0.97, 0.82), (0.86, 0.960)),
        ]
    )
)
# Outline of the head: along its axis from the poll, and towards the forehead.
_HEAD = closed_curve(
    np.array(
        [
            *((-0.02, 0.055), (0.09, 0.080), (0.22, 0.060), (0.33, 0.048), (0.395, 0.030), (0.415, -0.010)),
            *((0.395, -0.045), (0.34, -0.055), (0.24, -0.07), (0.14, -0.118), (0.04, -0.11), (-0.03, -0.05)),
        ]
    )
)
_NECK_HALF_WIDTH = open_curve(np.array([[0.225], [0.150], [0.112], [0.092]]))[:, 0]
_FORE_HALF_WIDTH = open_curve(np.array([[0.105], [0.070], [0.047], [0.031], [0.037], [0.034]]), 4)[:, 0]
_HIND_HALF_WIDTH = open_curve(np.array([[0.140], [0.125], [0.054], [0.034], [0.039], [0.035]]), 4)[:, 0]
_LEG_HALF_WIDTH = np.stack([_FORE_HALF_WIDTH, _HIND_HALF_WIDTH] * 2)
# Where legs begin, and the lengths of their bones; the far pair stands a little ahead.
_LEG_ROOT = np.array([[0.845, 0.66], [0.155, 0.78], [0.880, 0.66], [0.190, 0.78]])
_LEG_BONES = np.array([[0.19, 0.17, 0.14, 0.09, 0.055], [0.20, 0.30, 0.17, 0.09, 0.05]] * 2)
_HOOF = np.array([(-0.034, -0.012), (0.034, -0.012), (0.052, 0.040), (-0.036, 0.040)])


@dataclass(frozen=True)
class Pose:
    """Angles in degrees: legs from straight down, forward positive; neck and head from level, up positive."""

    neck: float
    head: float
    reach: float
    """Length of the neck."""
    pitch: float
    """Rotation of the trunk, forehand up positive."""
    legs: tuple[tuple[float, float], ...]
    """Swing and fold of near fore, near hind, far fore, far hind."""
    gallops: bool = False


def pose(dice: Dice) -> Pose:
    """Draw a pose: standing, grazing, walking or galloping."""
    gait = dice.unit()
    if gait < 0.30:
        legs = tuple((dice.uniform(-7, 7) + offset, 0.0) for offset in (3, -3, -3, 4))
        return Pose(dice.uniform(46, 62), dice.uniform(-52, -36), 0.62, 0.0, legs)
    if gait < 0.52:
        step = dice.uniform(8, 18)
        legs = ((step, 0.0), (-6.0, 0.0), (-step, 0.0), (8.0, 0.0))
        return Pose(dice.uniform(-42, -35), dice.uniform(-80, -68), 0.70, 0.0, legs)
    phase = dice.uniform(0, 2 * math.pi)
    if gait < 0.80:
        amplitude = dice.uniform(17, 30)
        legs = tuple(_stride(amplitude, phase + offset) for offset in (0, math.pi, math.pi, 0))
        return Pose(dice.uniform(36, 54), dice.uniform(-52, -36), 0.62, 0.0, legs)
    amplitude = dice.uniform(36, 46)
    legs = tuple(_stride(amplitude, phase + offset) for offset in (0, math.pi, 0.7, math.pi + 0.6))
    return Pose(dice.uniform(24, 40), dice.uniform(-34, -22), 0.62, dice.uniform(-3, 6), legs, gallops=True)


def _stride(amplitude: float, phase: float) -> tuple[float, float]:
    """Swing of a leg at ``phase``, and how far it is folded: only on its way forward."""
    return amplitude * math.sin(phase), 2.1 * amplitude * max(0.0, math.cos(phase))


def _bone_angles(swing: float, fold: float, *, hind: bool) -> tuple[float, ...]:
    """Degrees of the five bones of a leg, hip or shoulder first. A fold lifts the hoof behind the leg."""
    if hind:
        cannon = 3 + swing - 0.75 * fold
        return (16 + swing + 0.35 * fold, -30 + swing - 0.25 * fold, cannon, cannon, 26 + swing - fold)
    arm, cannon = swing + 0.4 * fold, swing - 0.75 * fold
    return (arm, arm, cannon, cannon, 22 + swing - 1.25 * fold)


def _turn(degrees: float) -> Points:
    """Matrix that turns row vectors counter-clockwise."""
    c, s = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    return np.array([[c, s], [-s, c]])


class Body:
    """One posed animal. ``neck`` and ``leg_spines`` are in body units, all else in picture units.

    Attributes:
        size: height of the withers above the lowest hoof.
        neck: line from the shoulder to the poll, 16 x 2.
        crest, throat: both sides of the neck, 16 x 2.
        trunk, head: closed outlines.
        leg_sides: both sides of the four legs, 2 x 4 x 21 x 2.
        hooves: 4 x 4 x 2.
    """

    def __init__(self, pose: Pose, x: float, feet: float, size: float, facing: int) -> None:
        self.pose, self.size = pose, size
        self._trunk_turn, self._head_turn = _turn(pose.pitch), _turn(pose.head)
        shoulder = np.array([0.80, 0.80])
        ahead, up = _turn(pose.neck)
        bow = np.array([[0.0], [0.012], [0.030], [0.0]]) * up
        self.neck = open_curve(shoulder + np.linspace(0, pose.reach, 4)[:, None] * ahead + bow)
        self._poll = self.neck[-1]

        degrees = [_bone_angles(*leg, hind=index % 2 == 1) for index, leg in enumerate(pose.legs)]
        angles = np.radians(np.array(degrees) + pose.pitch)
        bones = _LEG_BONES[..., None] * np.stack([np.sin(angles), -np.cos(angles)], axis=-1)
        joints = np.concatenate([np.zeros((4, 1, 2)), np.cumsum(bones, axis=1)], axis=1)
        spines = open_curve(joints + _LEG_ROOT[:, None], 4) @ self._trunk_turn
        along = bones[:, -1:] / _LEG_BONES[:, -1:, None] @ self._trunk_turn
        across = along[..., ::-1] * (-1.0, 1.0)
        hooves = spines[:, -1:] + _HOOF[:, :1] * across + _HOOF[:, 1:] * along

        self._scale = np.array([facing * size, -size])
        # The animal is centred between its rump (or hindmost hoof) and its muzzle (or foremost hoof).
        muzzle = float(((0.42, 0.0) @ self._head_turn + self._poll) @ self._trunk_turn[:, 0])
        back, front = min(-0.12, hooves[..., 0].min()), max(muzzle, hooves[..., 0].max())
        self._origin = np.array([x, feet]) - self._scale * ((back + front) / 2, hooves[..., 1].min())

        self.trunk, self.head = self.place(_TRUNK), self.on_head(_HEAD)
        self.crest, self.throat = self.beside_neck(0.0)
        self.leg_spines = spines
        self.leg_sides = np.stack(ribbon(spines, _LEG_HALF_WIDTH)) * self._scale + self._origin
        self.hooves = hooves * self._scale + self._origin

    def place(self, points: Points) -> Points:
        """Body units to picture units, with the trunk's pitch."""
        return points @ self._trunk_turn * self._scale + self._origin

    def on_head(self, points: Points) -> Points:
        """Head units (along the head from the poll, towards the forehead) to picture units."""
        return self.place(points @ self._head_turn + self._poll)

    def beside_neck(self, offset: float) -> tuple[Points, Points]:
        """Lines along the neck's two sides, ``offset`` outside them: crest side and throat side, 16 x 2."""
        left, right = ribbon(self.neck, _NECK_HALF_WIDTH + offset)
        return self.place(left), self.place(right)

    def leg(self, index: int, start: int = 0) -> Points:
        """Outline of a leg from sample ``start`` (0 hip or shoulder, 20 fetlock) down."""
        left, right = self.leg_sides[:, index, start:]
        return np.concatenate([left, right[::-1]])

    def shadow_x(self) -> float:
        """Middle of the trunk in picture units."""
        return float(self._origin[0] + 0.5 * self._scale[0])
