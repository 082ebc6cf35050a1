"""What is checked before a study makes its first file: pictures, checkpoint, device.

``config`` has read the study file by then. What the study names is opened here, which takes an import of
torch, but only where it names something: checking a study on drawn data stays quick.
"""

from __future__ import annotations

from gs_search.config import StudyConfig
from gs_search.errors import BadInput, ConfigError

__all__ = ["check_inputs"]


def check_inputs(config: StudyConfig, *, here: bool = True) -> None:
    """Open every picture's header, the checkpoint and the device that the study names.

    Args:
        here: trials run on this machine.

    Raises:
        ConfigError: with one line for each thing that cannot be used.
    """
    problems: list[str] = []
    if config.data.kind != "drawn":
        from gs_search.data import check_data

        problems += check_data(config.data, config.image_px)
    if config.teacher.kind == "checkpoint":
        from gs_search.networks import load_generator

        assert config.teacher.path is not None
        try:
            # All of it: a header does not tell a wrong shape, NaN weights or a pickle that wants to run code.
            _, found = load_generator(config.teacher.path, config.teacher.architecture)
            if config.image_px % found.picture_multiple:
                problems.append(
                    f"image_px: {config.image_px} does not suit the {found.name} generator of {config.teacher.path}; "
                    f"take a multiple of {found.picture_multiple}"
                )
        except BadInput as error:
            problems += str(error).splitlines()
    if config.device == "cuda" and here:
        import torch

        if not torch.cuda.is_available():
            problems.append("device: cuda is asked for, but no CUDA device is visible; use device: auto")
    if problems:
        raise ConfigError(problems)
