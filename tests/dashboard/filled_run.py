"""Run folders with a database, as a search leaves them; and a client of WSGI applications."""

from __future__ import annotations

import io
import json
import threading
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from wsgiref.util import setup_testing_defaults

import optuna
import yaml
from optuna.distributions import CategoricalDistribution, FloatDistribution
from optuna.trial import FrozenTrial, TrialState, create_trial

from gs_search.dashboard.gate import Gate
from gs_search.dashboard.server import _bind
from gs_search.runfolder import RunFolder
from gs_search.search.database import told_attributes, told_values
from gs_search.search.feasibility import Feasibility, constraint_attributes
from gs_search.search.storage import close_study, open_study
from tests.synthetic_run import write_run

SPACE = {
    "target_gflops_ratio": FloatDistribution(0.05, 0.9, log=True),
    "weight_bits.body": CategoricalDistribution((8, 6, 4)),
    "feature_weight": FloatDistribution(0.5, 30.0),
}
MAX_GFLOPS = 0.2
"""Constraint of the study: some of the synthetic students need more."""


def write_filled_run(path: Path, *, trials: int = 24) -> RunFolder:
    """Write a synthetic run with a constraint, and the database that belongs to it."""
    folder = write_run(path, trials=trials, image_px=32)
    resolved = yaml.safe_load(folder.resolved_yaml.read_text())
    resolved["study"]["constraints"]["max_gflops"] = MAX_GFLOPS
    folder.resolved_yaml.write_text(yaml.safe_dump(resolved))
    study = open_study("quickstart", folder.database)
    for record in folder.results():
        study.add_trial(frozen(record, folder))
    close_study(study)
    return folder


def frozen(record: Mapping[str, Any], folder: RunFolder) -> FrozenTrial:
    """The trial that a run would have made of a ``result.json``."""
    trial = create_trial(
        state=TrialState[record["state"]],
        values=told_values(record),
        params=record["point"],
        distributions=SPACE,
        user_attrs=told_attributes(record),
    )
    violated = Feasibility(folder, folder.config()).violations(record)
    trial.system_attrs |= constraint_attributes(violated)
    return trial


def opened(folder: RunFolder) -> optuna.Study:
    """The study as a run has it."""
    return open_study("quickstart", folder.database)


@dataclass(frozen=True)
class Answer:
    """What a WSGI application answered."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


def ask(app: Any, path: str, method: str = "GET", *, host: str = "127.0.0.1:8080", **more: Any) -> Answer:
    """Send a request.

    Args:
        more: ``body`` to be sent as JSON; all else are headers, ``origin="http://x"``.
    """
    place, _, query = path.partition("?")
    body = json.dumps(more.pop("body", None)).encode() if "body" in more else b""
    environ: dict[str, Any] = {"PATH_INFO": place, "QUERY_STRING": query, "REQUEST_METHOD": method, "HTTP_HOST": host}
    environ |= {f"HTTP_{name.upper()}": value for name, value in more.items() if value is not None}
    if body:
        environ |= {"CONTENT_TYPE": "application/json", "CONTENT_LENGTH": str(len(body))}
    setup_testing_defaults(environ)
    environ["wsgi.input"] = io.BytesIO(body)
    if host is None:
        del environ["HTTP_HOST"]
    told: list[Any] = []

    def start_response(status: str, headers: Iterable[tuple[str, str]], error: Any = None) -> Any:
        told[:] = [int(status.split()[0]), dict(headers)]
        return lambda data: None

    answer = app(environ, start_response)
    try:
        content = b"".join(answer)
    finally:
        if hasattr(answer, "close"):
            answer.close()
    return Answer(told[0], told[1], content)


@contextmanager
def served(app: Any) -> Iterator[str]:
    """Serve an application on this machine; yields its address, with a slash at the end."""
    server = _bind("127.0.0.1", 0)
    server.set_app(Gate(app, host="127.0.0.1", port=server.server_port))
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
