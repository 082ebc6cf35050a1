"""Horses and zebras of the drawn data set: the coat, mane and tail painted over one skeleton."""

from __future__ import annotations

from typing import Literal

import numpy as np
from PIL import Image, ImageChops, ImageDraw, ImageFilter

from gs_search.data.synthetic.brush import Canvas, Colour, Points, closed_curve, mix, open_curve, ribbon, shade
from gs_search.data.synthetic.landscape import Landscape
from gs_search.data.synthetic.rng import Dice
from gs_search.data.synthetic.skeleton import FAR_FORE, FAR_HIND, NEAR_FORE, NEAR_HIND, Body, pose
from gs_search.data.synthetic.stripes import Stripes

__all__ = ["Species", "paint_equine"]

Species = Literal["horse", "zebra"]

# Coat, mane and legs of horses.
_COATS: tuple[tuple[Colour, Colour, Colour], ...] = (
    ((146, 82, 42), (38, 28, 26), (52, 36, 32)),  # bay
    ((168, 92, 48), (176, 100, 54), (150, 80, 42)),  # chestnut
    ((104, 62, 40), (40, 28, 26), (60, 40, 32)),  # dark bay
    ((62, 50, 48), (30, 26, 28), (46, 38, 38)),  # black
    ((206, 160, 92), (244, 230, 198), (196, 150, 88)),  # palomino
    ((186, 142, 96), (60, 44, 38), (82, 60, 48)),  # buckskin
)


_ZEBRA: tuple[Colour, Colour, Colour] = ((244, 240, 230), (34, 30, 32), (232, 226, 214))
_BLACK: Colour = (36, 32, 36)
_HOOF: Colour = (44, 36, 34)
_SOCK: Colour = (236, 228, 216)


def paint_equine(
    canvas: Canvas, dice: Dice, species: Species, land: Landscape, x: float, feet: float, size: float
) -> None:
    """Paint one animal in picture units: middle at ``x``, lowest hoof at ``feet``, withers ``size`` above."""
    body = Body(pose(dice), x, feet, size, facing=1 if dice.chance(0.5) else -1)
    zebra = species == "zebra"
    coat, mane, leg = _ZEBRA if zebra else dice.choice(_COATS)
    sock = None if zebra or dice.chance(0.6) else _SOCK
    light = land.brightness * (1.0 if zebra else dice.uniform(0.88, 1.12))
    coat, mane, leg, black = (mix(shade(c, light), land.tint, 0.06) for c in (coat, mane, leg, _BLACK))
    stripes = Stripes(canvas, dice, body) if zebra else None

    shadow = shade(land.grass, 0.45)
    canvas.ellipse(body.shadow_x(), feet - 0.01 * size, 0.62 * size, 0.062 * size, shadow, 0.55)
    for index in (FAR_FORE, FAR_HIND):
        canvas.polygon(body.leg(index), shade(leg, 0.64))
        if stripes is not None:
            canvas.polygons(stripes.rings(index), black)
        elif sock is not None and index == FAR_FORE:
            canvas.polygon(body.leg(index, 16), shade(sock, 0.75))
    canvas.polygons(body.hooves[FAR_FORE:], _HOOF)
    _paint_tail(canvas, dice, body, coat, mane, striped=zebra)
    mask = _silhouette(canvas, body, upright_mane=zebra)
    _paint_coat(canvas, mask, coat, size, lit_left=land.sun_x < 0.5)
    if stripes is None:
        _paint_legs(canvas, body, leg, sock)
    else:
        stripes.paint(mask, black)
    canvas.polygons(body.hooves[:FAR_FORE], _HOOF)
    _paint_head(canvas, dice, body, coat, species, light)
    if not zebra:
        _paint_mane(canvas, dice, body, mane)


def _silhouette(canvas: Canvas, body: Body, *, upright_mane: bool) -> Image.Image:
    """Mask of trunk, neck, head and near legs; a zebra's mane belongs to it."""
    mask = Image.new("L", canvas.image.size)
    draw = ImageDraw.Draw(mask)
    parts = [body.trunk, np.concatenate([body.crest, body.throat[::-1]]), body.head]
    parts += [body.leg(NEAR_FORE), body.leg(NEAR_HIND)]
    if upright_mane:
        parts.append(np.concatenate([body.crest[4:], body.beside_neck(0.075)[0][:4:-1]]))
    for part in parts:
        draw.polygon(canvas.pixels(part[None])[0], 255)
    return mask


def _paint_coat(canvas: Canvas, mask: Image.Image, coat: Colour, size: float, *, lit_left: bool) -> None:
    """Fill the silhouette: darker towards its lower edge, lighter on the side of the sun."""
    box = mask.getbbox()
    if box is None:
        return
    inner = mask.crop(box)
    canvas.image.paste(shade(coat, 0.68), box, inner)
    # A blur of the same share of the picture at any number of pixels.
    small = inner.reduce(max(2, canvas.side // 24))
    soft = small.filter(ImageFilter.BoxBlur(1)).resize(inner.size, Image.Resampling.BILINEAR)
    up = round(0.05 * size * canvas.side)
    side = up // 2 if lit_left else -up // 2
    canvas.image.paste(coat, box, ImageChops.multiply(_moved(soft, side, up), inner))
    glint = ImageChops.multiply(_moved(soft, side, 3 * up), inner).point(_DIMMED)
    canvas.image.paste(shade(coat, 1.28), box, glint)


_DIMMED = [round(0.45 * value) for value in range(256)]


def _moved(image: Image.Image, left: int, up: int) -> Image.Image:
    """The image moved left and up, black where nothing came from."""
    return image.crop((left, up, left + image.width, up + image.height))


def _paint_legs(canvas: Canvas, body: Body, leg: Colour, sock: Colour | None) -> None:
    """Dark lower legs and white socks of the near legs, over the coat."""
    for index in (NEAR_FORE, NEAR_HIND):
        for start, alpha in ((7, 0.2), (8, 0.25), (9, 0.35), (10, 0.5), (11, 0.7)):
            canvas.polygon(body.leg(index, start), leg, alpha)
    if sock is not None:
        canvas.polygon(body.leg(NEAR_HIND, 16), sock)


def _width(*controls: float) -> Points:
    return open_curve(np.array(controls)[:, None])[:, 0]


_TAIL, _TAIL_SHEEN = _width(0.030, 0.060, 0.075, 0.004), _width(0.004, 0.018, 0.020, 0.002)
_DOCK, _TASSEL = _width(0.032, 0.026, 0.020, 0.016), _width(0.0, 0.020, 0.035, 0.0)


def _paint_tail(canvas: Canvas, dice: Dice, body: Body, coat: Colour, mane: Colour, *, striped: bool) -> None:
    sway = dice.uniform(-0.02, 0.10) + (0.10 if body.pose.gallops else 0.0)
    bends = np.array([(0.0, 0.0), (-0.10, 0.0), (-0.12, -0.28), (-0.07, -0.60)])
    swings = np.array([(0.0, 0.0), (-0.5, 0.2), (-1.2, 0.4), (-1.9, 0.5)])
    spine = open_curve(bends + sway * swings + (0.03, 0.90))

    def hair(width: Points, colour: Colour, start: int, stop: int) -> None:
        left, right = ribbon(spine[start:stop], width[start:stop])
        canvas.polygon(body.place(np.concatenate([left, right[::-1]])), colour)

    if striped:
        hair(_DOCK, coat, 0, 13)
        for start in (3, 6, 9):
            hair(_DOCK, mane, start, start + 2)
        hair(_TASSEL, mane, 10, 16)
    else:
        hair(_TAIL, mane, 0, 16)
        hair(_TAIL_SHEEN, shade(mane, 1.3), 3, 15)


# Parts of the head in head units: two ears, muzzle, blaze, forelock.
_EARS = [
    closed_curve(np.array([(-0.045, 0.04), (-0.065 + x, 0.13), (-0.02 + x, 0.205), (0.015, 0.07)]), 3)
    for x in (0.05, -0.01)
]
_MUZZLE = closed_curve(
    np.array([(0.345, 0.05), (0.395, 0.031), (0.416, -0.01), (0.396, -0.046), (0.335, -0.055), (0.315, 0)]), 4
)
_BLAZE = np.array([(0.06, 0.08), (0.14, 0.076), (0.3, 0.052), (0.3, 0.03), (0.14, 0.05), (0.06, 0.06)])
_FORELOCK = closed_curve(
    np.array([(-0.05, 0.07), (0.0, 0.11), (0.07, 0.1), (0.13, 0.072), (0.06, 0.055), (-0.02, 0.04)]), 3
)
_EYE = np.array([(0.130, 0.022), (0.137, 0.029), (0.378, 0.004)])


def _paint_head(canvas: Canvas, dice: Dice, body: Body, coat: Colour, species: Species, light: float) -> None:
    """Ears, muzzle, eye, nostril, and a horse's blaze."""
    dark = shade((46, 38, 40), light)
    for ear, tone in zip(_EARS, (0.7, 1.0), strict=True):
        canvas.polygon(body.on_head(ear), shade(coat, tone))
    canvas.polygon(body.on_head(_MUZZLE), dark, 0.95 if species == "zebra" else 0.45)
    if species == "horse" and dice.chance(0.45):
        canvas.polygon(body.on_head(_BLAZE), shade((244, 238, 228), light))
    spots = ((0.021, (24, 18, 20)), (0.006, (235, 235, 235)), (0.011, shade(dark, 0.5)))
    for (x, y), (radius, colour) in zip(body.on_head(_EYE).tolist(), spots, strict=True):
        canvas.ellipse(x, y, radius * body.size, radius * body.size, colour)


_LOCKS = np.array([0.64, 0.40] * 4 + [0.64])


def _paint_mane(canvas: Canvas, dice: Dice, body: Body, mane: Colour) -> None:
    """Hair along the crest, falling over the near side in locks, and a forelock."""
    crest, throat = body.beside_neck(0.018)
    inner = crest + 0.45 * (throat - crest)
    lengths = open_curve((_LOCKS + 0.16 * (dice.units(9) - 0.5))[:, None], 2)
    depth = np.interp(np.linspace(0, 16, len(crest)), np.arange(17), lengths[:, 0])[:, None]
    locks = crest + (inner - crest) * depth
    canvas.polygon(np.concatenate([crest[1:], locks[:0:-1]]), mane)
    sheen, root = crest + (inner - crest) * (0.7 * depth), crest + (inner - crest) * 0.16
    canvas.polygon(np.concatenate([root[2:-1], sheen[2:-1][::-1]]), shade(mane, 1.25), 0.5)
    canvas.polygon(body.on_head(_FORELOCK), mane)
