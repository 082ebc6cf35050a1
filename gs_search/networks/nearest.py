"""What a network that is not known looks like: the nearest layout, and where it differs first."""

from __future__ import annotations

import difflib
import re
from pathlib import Path

from gs_search.networks.architectures import ARCHITECTURES
from gs_search.networks.file_reading import Groups
from gs_search.networks.layouts import LAYOUTS
from gs_search.networks.recognised import Tensors, describe_shape

__all__ = ["OWN", "describe_unknown"]

OWN = "a network of your own: teacher.kind module (README, Your own generator)"

COMPUTED = re.compile(r"\.(weight_(orig|g|v|u)|parametrizations\.weight\.\w+)$")
"""Names that PyTorch's reparametrizations give to what a weight is computed from."""

SHOWN = 3
"""Names of a file that a message shows."""


def describe_unknown(path: Path, groups: Groups) -> str:
    """Say what comes nearest, and where it differs first."""
    keys, tensors = max(groups.items(), key=lambda item: sum(t.dim() == 4 for t in item[1].values()))
    where = str(path) + (f", {'.'.join(keys)}" if keys else "")
    convs = {name: tensor for name, tensor in tensors.items() if tensor.dim() == 4}
    some = ", ".join(f"{name} ({describe_shape(tensor)})" for name, tensor in list(tensors.items())[:SHOWN])
    known = f"known: {', '.join(ARCHITECTURES)}"
    if not convs:
        return f"{where}: not a generator known here, it has no convolutions (its tensors are {some}); {known}"
    last = list(convs.values())[-1]
    if last.shape[0] == 1 and next(iter(convs.values())).shape[-1] == 4:
        return f"{where}: holds a discriminator (PatchGAN), not a generator; {known}"
    computed = [name for name in tensors if COMPUTED.search(name)]
    if computed:
        return (
            f"{where}: weights that are computed from others ({computed[0]}), by spectral_norm or weight_norm; take "
            "that off with remove_spectral_norm, remove_weight_norm or remove_parametrizations, and save anew"
        )
    examples = {layout.architecture: layout.example() for layout in LAYOUTS}
    scores = {name: _likeness(tensors, example) for name, example in examples.items()}
    nearest = max(scores, key=lambda name: scores[name])
    example = examples[nearest]
    strange = [name for name in tensors if name not in example][:SHOWN]
    lacking = [name for name in example if name not in tensors][:SHOWN]
    theirs = ", ".join(f"{name} ({describe_shape(tensors[name])})" for name in strange)
    ours = ", ".join(f"{name} ({describe_shape(example[name])})" for name in lacking)
    return (
        f"{where}: not a generator known here; nearest is {nearest}, which has {ours or 'the same names'} where "
        f"the file has {theirs or some}; {known}; {OWN}"
    )


def _likeness(tensors: Tensors, example: Tensors) -> float:
    """How alike two networks are: in names, and in the order of kernels and widths; 0 to 2."""
    names = len(set(tensors) & set(example)) / len(example)
    matcher = difflib.SequenceMatcher(None, _convolutions(tensors), _convolutions(example), autojunk=False)
    return names + matcher.ratio()


def _convolutions(tensors: Tensors) -> list[tuple[float, ...]]:
    """Kernels and widths of all convolutions, relative to the first one's."""
    convs = [tensor.shape for tensor in tensors.values() if tensor.dim() == 4]
    return [(shape[-1], *(round(side / convs[0][0], 2) for side in shape[:2])) for shape in convs]
