"""The Frechet distance between two sets of features (Heusel et al., NeurIPS 2017), without a matrix root.

With centred features A (n x d) and B (m x d), each divided by the root of its count less one, the covariances
are A'A and B'B, and the trace of the root of their product is the sum of the singular values of A B', which
is n x m. That is pytorch-fid's number to 1e-6 of it, about a thousand times faster than its root of a d x d
matrix.
"""

from __future__ import annotations

import hashlib
import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from torch import Tensor

from gs_search.errors import BadInput
from gs_search.measure.features import inception_features
from gs_search.measure.inception import Inception, load_inception
from gs_search.system.files import draft_of

__all__ = ["Reference", "cached_reference", "frechet_distance"]

SCHEMA = 1

# What numpy raises for a file that is torn, pickled, or another kind of array.
UNREADABLE = (OSError, KeyError, ValueError, TypeError, AttributeError, EOFError, zipfile.BadZipFile)


@dataclass(frozen=True, eq=False)
class Reference:
    """What FID and KID need of a set of real pictures: m pictures, d features, r = min(m, d)."""

    mean: np.ndarray
    """float64, d."""
    root: np.ndarray
    """float64, r x d: ``root.T @ root`` is the unbiased covariance."""
    features: np.ndarray
    """float32, m x d, for KID."""

    @property
    def count(self) -> int:
        """Number of pictures."""
        return len(self.features)

    @property
    def trace(self) -> float:
        """Trace of the covariance."""
        return float(np.vdot(self.root, self.root))

    @classmethod
    def from_features(cls, features: np.ndarray) -> Reference:
        """Summarise m x d features; raises BadInput for fewer than two, or values that are not finite."""
        mean, root = _moments(features)
        return cls(mean, root, np.ascontiguousarray(features, np.float32))

    def save(self, path: Path) -> None:
        """Write an ``.npz`` at ``path``, whole or not at all."""
        with draft_of(path) as draft, draft.open("wb") as file:
            np.savez(file, schema=SCHEMA, mean=self.mean, root=self.root, features=self.features)

    @classmethod
    def load(cls, path: Path) -> Reference:
        """Read what ``save`` wrote; nothing in the file is executed. Raises BadInput for any other file."""
        try:
            with path.open("rb") as stream, np.load(stream, allow_pickle=False) as file:
                schema, reference = int(file["schema"]), cls(file["mean"], file["root"], file["features"])
        except UNREADABLE as error:
            raise BadInput(f"{path}: not readable as reference statistics ({error}): delete it") from error
        d, m = reference.mean.size, reference.count
        shapes = (reference.mean.shape, reference.root.shape, reference.features.shape)
        if schema != SCHEMA or shapes != ((d,), (min(m, d), d), (m, d)):
            raise BadInput(f"{path}: reference statistics of schema {schema} with shapes {shapes}: delete it")
        return reference


def frechet_distance(features: np.ndarray, reference: Reference) -> float:
    """Return the squared Frechet distance of n x d features to the reference: FID where they are Inception's.

    It is biased by the number of pictures: compare only distances of equal n and of one reference.

    Raises:
        BadInput: fewer than two pictures, or values that are not finite.
    """
    mean, root = _moments(features)
    between = np.linalg.svd(root @ reference.root.T, compute_uv=False).sum()
    difference = mean - reference.mean
    # Rounding may give -1e-13 for a set against itself.
    return max(0.0, float(difference @ difference + np.vdot(root, root) + reference.trace - 2 * between))


def cached_reference(images: Tensor, folder: Path, *, model: Inception | None = None) -> Reference:
    """Return the float32 reference of uint8 N x 3 x H x W images, from ``folder`` if it was made before.

    The file is named by the content of the images and of the network's weights, so that a stale one is never
    used; a damaged one is made anew.
    """
    model = load_inception() if model is None else model
    digest = hashlib.sha256(f"{model.weights_sha256} {tuple(images.shape)} {images.dtype}".encode())
    digest.update(images.contiguous().cpu().numpy().data)
    path = folder / f"reference-{digest.hexdigest()[:16]}.npz"
    if path.is_file():
        try:
            return Reference.load(path)
        except BadInput:
            pass
    reference = Reference.from_features(inception_features(images, model=model))
    reference.save(path)
    return reference


def _moments(features: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean (d) and a root of the unbiased covariance (min(n, d) x d), float64."""
    if features.ndim != 2 or len(features) < 2:
        raise BadInput(f"a Frechet distance needs at least two pictures, but got features {features.shape}")
    x = np.asarray(features, np.float64)
    if not np.isfinite(x).all():
        raise BadInput("a Frechet distance needs finite features, but some are NaN or infinite")
    n, d = x.shape
    mean = x.mean(axis=0)
    x = (x - mean) / np.sqrt(n - 1)
    if n <= d:
        return mean, x
    values, vectors = np.linalg.eigh(x.T @ x)
    return mean, np.sqrt(values.clip(min=0))[:, None] * vectors.T
