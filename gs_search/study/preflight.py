"""What is checked before a study makes its first file: pictures, checkpoint, device.

``config`` has read the study file by then. What the study names is opened here, which takes an import of
torch, but only where it names something: checking a study on drawn data stays quick.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from gs_search.errors import BadInput, ConfigError
from gs_search.study.config import StudyConfig

if TYPE_CHECKING:
    from gs_search.data import Tally

__all__ = ["check_inputs", "teacher_notes"]

PAINTED = 4
"""Pictures on which two ways to read a checkpoint are compared."""


def check_inputs(config: StudyConfig, *, here: bool = True) -> tuple[Tally, ...]:
    """Look at the pictures, the checkpoint and the device that the study names.

    Args:
        here: trials run on this machine.

    Returns:
        What became of the files of each folder of pictures.

    Raises:
        ConfigError: with one line for each thing that cannot be used.
    """
    problems: list[str] = []
    tallies: tuple[Tally, ...] = ()
    if config.data.kind != "drawn":
        from gs_search.data import check_data

        problems, tallies = check_data(config.data, config.image_px, batch_sizes=_batch_sizes(config))
    if config.teacher.kind == "checkpoint":
        from gs_search.networks import load_generator

        assert config.teacher.path is not None
        try:
            # All of it: a header does not tell a wrong shape, NaN weights or a pickle that wants to run code.
            _, found = load_generator(config.teacher.path, **config.teacher.choice())
            if config.image_px % found.picture_multiple:
                problems.append(
                    f"image_px: {config.image_px} does not suit the {found.name} generator of {config.teacher.path}; "
                    f"take a multiple of {found.picture_multiple}"
                )
        except BadInput as error:
            problems += str(error).splitlines()
    elif config.teacher.kind == "module":
        try:
            _own_module(config)
        except BadInput as error:
            problems += str(error).splitlines()
    if config.device == "cuda" and here:
        import torch

        if not torch.cuda.is_available():
            problems.append("device: cuda is asked for, but no CUDA device is visible; use device: auto")
    if problems:
        raise ConfigError(problems)
    return tallies


def _batch_sizes(config: StudyConfig) -> list[int]:
    """All that the study may propose, or the two ends of them."""
    values = [config.space.constants.get("batch_size", config.settings["batch_size"])]
    for parameter in config.space.parameters:
        if parameter.name == "batch_size":
            values = [parameter.low, parameter.high, *(parameter.choices or ())]
    return [int(value) for value in values if isinstance(value, (int, float))]


def teacher_notes(config: StudyConfig) -> list[str]:
    """Say what was decided about the checkpoint that its file does not tell, and what the other choice would change.

    The inputs have passed ``check_inputs``.
    """
    if config.teacher.kind == "module":
        return [f"teacher: {note}" for note in _own_module(config)]
    if config.teacher.kind != "checkpoint":
        return []
    from gs_search.networks import Choice, recognise

    assert config.teacher.path is not None
    found = recognise(config.teacher.path, Choice(**config.teacher.choice()))
    notes = list(found.notes)
    if found.both_norms:
        between = _between_norms(config)
        notes.append(
            f"{between:.1f} dB between norm: batch and norm: instance on {PAINTED} pictures of this study; "
            f"{found.architecture.norm} is taken{'' if config.teacher.norm == 'auto' else ', as the study says'}"
        )
    return [f"teacher: {note}" for note in notes]


def _own_module(config: StudyConfig) -> list[str]:
    """Build a generator of the user's own, have it paint, and say what was decided; raises BadInput."""
    from gs_search.networks import load_module

    code = config.teacher.code(config.source.parent)
    assert code is not None, "config.py sees to it that a module has a factory"
    notes: list[str] = []
    load_module(code, image_px=config.image_px, notes=notes, **config.teacher.module())
    said = f"{code.name} is run, of a package that has to be installed on every machine"
    if not code.installed:
        more = f" and {len(code.files) - 4} more files" if len(code.files) > 4 else ""
        said = f"{code.name} is run; its source travels with the run: {', '.join(code.files[:4])}{more}"
    return [said, *notes]


def _between_norms(config: StudyConfig) -> float:
    """PSNR in decibels between what the teacher paints with running statistics, and with those of each picture."""
    import torch

    from gs_search.data import open_data
    from gs_search.measure.psnr import psnr
    from gs_search.networks import load_generator

    assert config.teacher.path is not None
    source = open_data(config.data, config.image_px, config.seed).source("val")
    pictures = [source.picture(index)[None] / 127.5 - 1.0 for index in range(min(PAINTED, len(source)))]
    painted = []
    for norm in ("batch", "instance"):
        generator, _ = load_generator(config.teacher.path, **{**config.teacher.choice(), "norm": norm})
        with torch.no_grad():
            painted.append(torch.cat([generator(picture) for picture in pictures]))
    return psnr(*painted)
