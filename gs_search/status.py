"""How far a study is, also while it runs: reads the database and the trials' folders, changes neither."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from gs_search.runfolder import RunFolder

if TYPE_CHECKING:
    from rich.console import RenderableType

    from gs_search.search.database import StudyDatabase

__all__ = ["render_status", "study_status"]

SCHEMA = 1


def study_status(folder: RunFolder) -> dict[str, Any]:
    """Gather the state of a study.

    ``finished`` counts towards ``total``; a trial that was interrupted and waits for another try does not.
    ``hypervolume`` is the share, 0..1, of the box from zero to the reference point that the front dominates;
    ``seconds_left`` is an estimate from the median trial. Both are None while nothing can be said. ``stopped`` counts
    trials by the rung (training steps) at which they were left, ``seconds_saved`` estimates what that was worth, and
    ``agreement`` is the rank correlation of each rung's distance to the teacher with the final FID. ``infeasible``
    counts complete trials that miss a constraint, ``never_started`` those that would have for certain (they count as
    finished), ``taken_over`` those of earlier studies (which do not).

    Raises:
        BadInput: the database, or a file of the folder, is damaged.
    """
    # Imported here: Optuna takes half a second, and the layout of its database is its own business.
    from gs_search.search.database import open_database
    from gs_search.search.rungs import agreement, savings
    from gs_search.search.standing import Baselines, standing
    from gs_search.search.storage import NoStudyYet

    config = folder.config()
    url = os.environ.get("GS_SEARCH_STORAGE")
    holder = folder.holder()
    document: dict[str, Any] = {
        "schema": SCHEMA,
        "study": config.study,
        "folder": str(folder.path),
        "running": holder is not None,
        "holder": holder,
        "total": config.trials,
        "workers": None,
        "finished": 0,
        "states": dict.fromkeys(("COMPLETE", "PRUNED", "FAIL", "RUNNING", "WAITING"), 0),
        "causes": {},
        "infeasible": 0,
        "never_started": 0,
        "taken_over": 0,
        "front": [],
        "hypervolume": None,
        "seconds_a_trial": None,
        "seconds_left": None,
        "stopping": config.stopping.rule,
        "stopped": {},
        "seconds_saved": 0.0,
        "agreement": {},
        "live": [],
    }
    try:
        database = open_database(folder, config, url=url, read_only=True)
    except NoStudyYet:
        return document
    run = database.study.user_attrs.get("run", {})
    total, workers = int(run.get("total", config.trials)), int(run.get("workers", 1))
    where = standing(database, Baselines.read(folder), total, workers)
    trials = database.trials()
    states = Counter(trial.state.name for trial in trials)
    records = [record for t in trials if (record := database.read_result(t.number)) is not None]
    saved = savings(records)
    causes = Counter(str(t.user_attrs.get("cause", "unknown")) for t in trials if t.state.name == "FAIL")
    document.update(
        total=total,
        workers=workers,
        finished=where.done,
        states={name: states.get(name, 0) for name in document["states"]},
        causes=dict(causes.most_common()),
        stopped={str(step): count for step, count in saved["stopped"].items()},
        seconds_saved=round(saved["seconds"], 1),
        agreement={str(s): {"spearman": round(r, 3), "trials": n} for s, (r, n) in agreement(records).items()},
        infeasible=len(where.infeasible),
        never_started=sum(t.user_attrs.get("cause") == "infeasible" for t in trials),
        taken_over=database.taken_over(),
        front=list(where.front),
        hypervolume=where.hypervolume,
        seconds_a_trial=database.usual_seconds(),
        seconds_left=where.seconds_left if holder is not None else None,
        live=[_live(database, t.number, t.params) for t in trials if t.state.name == "RUNNING"],
    )
    return document


def _live(database: StudyDatabase, number: int, point: Mapping[str, Any]) -> dict[str, Any]:
    """Describe a running trial: what it tries, and how far it says it is."""
    try:
        progress = json.loads((database.folder.trial(number) / "progress.json").read_text("utf-8"))
    except (OSError, ValueError):  # not begun, or ending just now
        progress = {}
    return {"number": number, "point": dict(point), **progress}


def render_status(document: Mapping[str, Any]) -> RenderableType:
    """Draw the document for a terminal."""
    from rich.console import Group
    from rich.text import Text

    from gs_search.search.progress import duration

    holder = document["holder"]
    state = f"running (process {holder['pid']} on {holder['host']})" if holder else "not running"
    lines = [Text.assemble((document["study"], "bold"), f": {state}")]
    states = ", ".join(f"{count} {name}" for name, count in document["states"].items() if count)
    lines.append(Text(f"{document['finished']} of {document['total']} trials finished ({states or 'none yet'})"))
    if document["causes"]:
        lines.append(Text("failures: " + ", ".join(f"{n} {cause}" for cause, n in document["causes"].items())))
    if document["taken_over"]:
        lines.append(Text(f"{document['taken_over']} taken over from an earlier study, in addition"))
    if document["infeasible"] or document["never_started"]:
        never = f"; {document['never_started']} never started, being too large" if document["never_started"] else ""
        lines.append(Text(f"{document['infeasible']} students miss a constraint{never}", style="yellow"))
    if document["front"]:
        volume = document["hypervolume"]
        worth = "" if volume is None else f", hypervolume {volume:.4f}"
        lines.append(Text(f"{len(document['front'])} on the front{worth}", style="green"))
    if document["seconds_a_trial"] is not None:
        left = document["seconds_left"]
        rest = "" if left is None else f", about {duration(left)} left"
        lines.append(Text(f"a trial takes {duration(document['seconds_a_trial'])}{rest}"))
    if document["stopped"]:
        where = ", ".join(f"{count} at {step} steps" for step, count in document["stopped"].items())
        lines.append(Text(f"stopped early: {where}; about {duration(document['seconds_saved'])} saved"))
    for step, found in document["agreement"].items():
        told = (
            f"distance at {step} steps and final FID: rank correlation {found['spearman']:.2f} over {found['trials']}"
        )
        lines.append(Text(told, style="dim"))
    for trial in document["live"]:
        lines.append(Text(_live_line(trial, bool(document["running"]))))
    return Group(*lines)


def _live_line(trial: Mapping[str, Any], running: bool) -> str:
    if not running:
        return f"  trial {trial['number']}: cut off; the next run repeats it"
    line = f"  trial {trial['number']}: "
    if "steps" not in trial:
        return line + "starting"
    line += f"step {trial.get('step', 0)} of {trial['steps']}"
    closeness = trial.get("psnr_to_teacher")
    return line + (f", {closeness:.1f} dB to the teacher" if isinstance(closeness, (int, float)) else "")
