"""Points that a person wants tried: checked against the space, and put into the queue of a study."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from gs_search.errors import BadInput
from gs_search.search.feasibility import Feasibility
from gs_search.search.optuna_adapter import fixed_params
from gs_search.search.study_database import StudyDatabase, open_database
from gs_search.study.database_url import database_url
from gs_search.study.settings import Value

if TYPE_CHECKING:
    from gs_search.results.run_folder import RunFolder
    from gs_search.study.space import Parameter, SearchSpace

__all__ = ["enqueue", "parse_point"]


def parse_point(text: str, space: SearchSpace) -> dict[str, Value]:
    """Read a point, or a part of one, of ``space`` from JSON; constants are left out.

    Raises:
        BadInput: it is no object, or a value is none of the space's.
    """
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise BadInput(f"--point: no JSON ({error}); write it as '{{\"target_gflops_ratio\": 0.3}}'") from None
    if not isinstance(content, dict):
        raise BadInput("--point: must be a JSON object, as in '{\"target_gflops_ratio\": 0.3}'")
    if problems := space.check_values(content):
        raise BadInput(f"--point: {'; '.join(problems)}")
    point = {p.name: _as_proposed(p, content[p.name]) for p in space.active(content) if p.name in content}
    if not point:
        raise BadInput(f"--point: names no parameter; there are {', '.join(p.name for p in space.parameters)}")
    return point


def _as_proposed(parameter: Parameter, value: Any) -> Value:
    """The value as the sampler would propose it: JSON does not tell 8 from 8.0."""
    if parameter.kind == "choice":
        same = (c for c in parameter.choices if c == value and isinstance(c, bool) == isinstance(value, bool))
        return next(same)
    return int(value) if parameter.kind == "int" else float(value)


def enqueue(folder: RunFolder, texts: Sequence[str]) -> dict[str, Any]:
    """Queue points for the next free workers, whether or not a run is going on.

    What a point leaves open is proposed by the sampler. A point that a trial has had, or that waits already, is
    not queued again.

    Returns:
        ``queued`` and ``known``: lists of points; a known one has the ``number`` of its trial.

    Raises:
        BadInput: a point is none of the study's space, or the database is a file that only a run elsewhere may change;
            nothing is queued then.
    """
    config = folder.config()
    space = Feasibility(folder, config).space()  # a point that may not start would only be answered so
    points = [parse_point(text, space) for text in texts]
    url = database_url(config.storage)
    if url is None and folder.mirror is not None and (holder := folder.holder()):
        raise BadInput(
            f"{folder}: process {holder['pid']} on {holder['host']} runs this study, and has its database; points "
            "reach it through a database server (GS_SEARCH_STORAGE) only, or once it has ended"
        )
    database = open_database(folder, config, url=url)
    queued, known = [], []
    for point in points:
        number = _known(database, point)
        if number is not None:
            known.append({"number": number, "point": point})
            continue
        database.enqueue(point)
        queued.append({"point": point})
    return {
        "schema": 1,
        "study": config.study,
        "queued": queued,
        "known": known,
        "finished": database.counted(),
        "total": int(database.study.user_attrs.get("run", {}).get("total", config.trials)),
    }


def _known(database: StudyDatabase, point: dict[str, Value]) -> int | None:
    """Number of the trial that has this point, or is to have it; None where there is none."""
    space = database.config.space
    if not space.check_point({**space.constants, **point}):  # complete, so it has a key
        number = database.records.get(space.key({**space.constants, **point}))
        if number is not None:
            return number
    waiting = (t for t in database.trials() if t.state.name == "WAITING")
    return next((t.number for t in waiting if fixed_params(t) == point), None)
