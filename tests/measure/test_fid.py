from __future__ import annotations

import inspect
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from packaging.specifiers import SpecifierSet
from PIL import Image
from pytorch_fid.fid_score import calculate_frechet_distance

from gs_search.errors import BadInput
from gs_search.measure import fid
from gs_search.measure.features import inception_features
from gs_search.measure.fid import Reference, cached_reference, frechet_distance
from gs_search.measure.inception import Inception


def features(count: int, width: int, seed: int, shift: float = 0.0) -> np.ndarray:
    """Skewed and correlated, as Inception's are."""
    random = np.random.default_rng(seed)
    return (random.gamma(0.5, 1.0, (count, width)) @ random.normal(1, 0.3, (width, width)) / width + shift).astype(
        np.float32
    )


def matrix_root_distance(a: np.ndarray, b: np.ndarray) -> float:
    """pytorch-fid's formula with scipy's matrix square root."""
    a, b = a.astype(np.float64), b.astype(np.float64)
    return float(calculate_frechet_distance(a.mean(0), np.cov(a, rowvar=False), b.mean(0), np.cov(b, rowvar=False)))


# Fewer than, as many as, and more pictures than features, on both sides.
@pytest.mark.filterwarnings("ignore:The `disp` argument is deprecated:DeprecationWarning")
@pytest.mark.parametrize("n", [12, 40, 300])
@pytest.mark.parametrize("m", [9, 40, 200])
def test_distance_equals_the_matrix_root(n: int, m: int) -> None:
    a, b = features(n, 40, 1), features(m, 40, 2, shift=0.3)
    ours = frechet_distance(a, Reference.from_features(b))
    # Roots of singular products are good to about the root of machine precision.
    assert ours == pytest.approx(matrix_root_distance(a, b), rel=2e-5, abs=2e-5)


def test_distance_of_diagonal_gaussians_has_a_closed_form() -> None:
    """Uncorrelated columns of known means m and deviations s: the sum of their squared differences."""
    signs = np.array([[1, 1, 1], [1, -1, -1], [-1, 1, -1], [-1, -1, 1]], float) * np.sqrt(3 / 4)
    a = signs * [1, 2, 3] + [0, 0, 1]
    b = signs * [2, 2, 1] + [0, 4, 0]
    assert frechet_distance(a, Reference.from_features(b)) == pytest.approx((1 + 0 + 4) + (0 + 16 + 1), abs=1e-6)


@settings(max_examples=25, deadline=None)
@given(st.integers(2, 12), st.integers(2, 12), st.integers(0, 2**31))
def test_distance_is_symmetric_and_zero_to_itself(n: int, m: int, seed: int) -> None:
    a, b = features(n, 7, seed), features(m, 7, seed + 1)
    forth = frechet_distance(a, Reference.from_features(b))
    back = frechet_distance(b, Reference.from_features(a))
    assert forth == pytest.approx(back, rel=1e-6, abs=1e-6) and forth >= 0
    assert frechet_distance(a, Reference.from_features(a)) == pytest.approx(0, abs=1e-6)


def test_reference_survives_a_file(tmp_path: Path) -> None:
    reference = Reference.from_features(features(30, 12, 3))
    path = tmp_path / "deeper" / "reference.npz"
    reference.save(path)
    loaded = Reference.load(path)
    assert (loaded.count, loaded.trace) == (30, reference.trace)
    student = features(8, 12, 4)
    assert frechet_distance(student, loaded) == frechet_distance(student, reference)
    np.testing.assert_array_equal(loaded.features, reference.features)
    np.testing.assert_allclose(loaded.root.T @ loaded.root, np.cov(features(30, 12, 3), rowvar=False), atol=1e-6)
    assert [p.name for p in path.parent.iterdir()] == ["reference.npz"]


@pytest.mark.parametrize("damage", ["missing", "empty", "torn", "pickle", "shape", "key", "array"])
def test_a_file_that_is_no_reference_is_named(damage: str, tmp_path: Path) -> None:
    path = tmp_path / "reference.npz"
    reference = Reference.from_features(features(5, 4, 0))
    arrays = {"schema": 1, "mean": reference.mean, "root": reference.root, "features": reference.features}
    if damage == "empty":
        path.touch()
    elif damage == "torn":
        reference.save(path)
        path.write_bytes(path.read_bytes()[:-200])
    elif damage == "pickle":
        np.savez(path, **(arrays | {"mean": np.array([{}, {}], dtype=object)}))
    elif damage == "shape":
        np.savez(path, **(arrays | {"root": reference.root[:-1]}))
    elif damage == "key":
        np.savez(path, schema=1, mu=reference.mean)
    elif damage == "array":
        with path.open("wb") as file:
            np.save(file, reference.mean)
    with pytest.raises(BadInput, match="reference.npz") as caught:
        Reference.load(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("bad", [np.ones((1, 4)), np.ones(4), np.full((3, 4), np.nan), np.full((3, 4), np.inf)])
def test_features_that_have_no_distance_are_refused(bad: np.ndarray) -> None:
    with pytest.raises(BadInput, match="Frechet distance needs"):
        Reference.from_features(bad)


def test_cached_reference_is_computed_once_for_its_content(
    inception: Inception, blobs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pictures = blobs(3)
    first = cached_reference(pictures, tmp_path, model=inception)
    (file,) = tmp_path.iterdir()
    with monkeypatch.context() as patch:
        patch.setattr(fid, "inception_features", lambda *a, **k: pytest.fail("computed again"))
        np.testing.assert_array_equal(cached_reference(pictures, tmp_path, model=inception).root, first.root)
    file.write_bytes(b"torn")
    np.testing.assert_array_equal(cached_reference(pictures, tmp_path, model=inception).root, first.root)
    cached_reference(255 - pictures, tmp_path, model=inception)
    assert len(list(tmp_path.iterdir())) == 2


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_fid_equals_the_pytorch_fid_command_on_the_same_files(inception: Inception, blobs, tmp_path: Path) -> None:
    sets = {"student": blobs(24, seed=1), "reference": 255 - blobs(24, seed=2)}
    for name, pictures in sets.items():
        (tmp_path / name).mkdir()
        for i, picture in enumerate(pictures):
            Image.fromarray(picture.permute(1, 2, 0).numpy()).save(tmp_path / name / f"{i:03}.png")
    command = [sys.executable, "-m", "pytorch_fid", *(str(tmp_path / name) for name in sets)]
    done = subprocess.run(
        [*command, "--device", "cpu", "--num-workers", "0"], capture_output=True, text=True, check=True
    )
    match = re.search(r"FID: +([\d.]+)", done.stdout)
    assert match, done.stdout
    reference = Reference.from_features(inception_features(sets["reference"], model=inception))
    ours = frechet_distance(inception_features(sets["student"], model=inception), reference)
    assert ours == pytest.approx(float(match[1]), abs=0.01)


def test_root_of_many_pictures_needs_no_more_rows_than_features() -> None:
    assert Reference.from_features(features(100, 6, 0)).root.shape == (6, 6)
    assert Reference.from_features(features(5, 6, 0)).root.shape == (5, 6)


def test_pip_may_choose_no_scipy_with_which_the_command_fails() -> None:
    """Its ``sqrtm(disp=False)`` is a TypeError from SciPy 1.18 on."""
    assert "disp=False" in inspect.getsource(calculate_frechet_distance), "pytorch-fid has changed: lift the bound"
    pyproject = Path(__file__).parents[2] / "pyproject.toml"
    (bounds,) = re.findall(r'^ *"scipy(\S+)"', pyproject.read_text(), re.MULTILINE)
    assert SpecifierSet(bounds).contains("1.17.1") and not SpecifierSet(bounds).contains("1.18.0")
