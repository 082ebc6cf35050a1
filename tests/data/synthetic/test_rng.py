from __future__ import annotations

import numpy as np

from gs_search.data.synthetic.rng import Dice


def test_the_stream_is_fixed_by_its_key() -> None:
    a, b = Dice(1, 2, 3), Dice(1, 2, 3)
    assert [a.unit() for _ in range(600)] == [b.unit() for _ in range(600)]
    assert Dice(1, 2, 3).unit() != Dice(1, 2, 4).unit() != Dice(2, 1, 3).unit()


def test_ranges() -> None:
    dice = Dice(0)
    values = [dice.uniform(-3, 5) for _ in range(2000)]
    assert -3 <= min(values) < -2.9 and 4.9 < max(values) < 5
    assert abs(np.mean(values) - 1) < 0.2
    assert {dice.choice("abc") for _ in range(100)} == set("abc")
    assert 350 < sum(dice.chance(0.2) for _ in range(2000)) < 450
    assert dice.units(4, 3).shape == (4, 3)
