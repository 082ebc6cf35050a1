"""What of a study's pictures would stop it later, before anything is trained on them."""

from __future__ import annotations

from collections.abc import Sequence

from gs_search.data.files import FEWEST
from gs_search.data.opening import open_data
from gs_search.data.source import DataSettings
from gs_search.data.tally import Tally
from gs_search.errors import DataError

__all__ = ["check_data"]


def check_data(
    config: DataSettings, image_px: int, *, batch_sizes: Sequence[int] = ()
) -> tuple[list[str], tuple[Tally, ...]]:
    """Open the data and count what the splits have come to.

    Returns:
        What would stop a study later, one line each, and what became of the files.
    """
    try:
        data = open_data(config, image_px, seed=0)
    except DataError as error:
        return [str(error)], ()
    where = config.path or f"data of kind {config.kind}"
    problems = []
    judged = {"val": data.sources["val"], "reference": (data.targets or data.sources)["reference"]}
    for split, pictures in judged.items():
        if len(pictures) < FEWEST:
            few = f"{len(pictures)} pictures in split {split}, but KID needs {FEWEST}"
            problems.append(f"{where}: {few}; add pictures, or ask for fewer in other splits")
    train = len(data.sources["train"])
    if batch_sizes and train < max(batch_sizes):
        problems.append(
            f"{where}: {train} pictures in split train, but batch_size is {max(batch_sizes)}; add pictures, ask for "
            "fewer in other splits, or lower batch_size"
        )
    return problems, data.tallies
