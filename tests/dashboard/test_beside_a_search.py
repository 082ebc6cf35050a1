"""A dashboard beside a real search: it shows every trial, refuses every write, and the search takes no notice.

``python -m pytest -m chaos tests/dashboard`` runs it.
"""

from __future__ import annotations

import json
import sys
import time
from http.client import HTTPConnection
from pathlib import Path
from urllib.parse import urlsplit

import pytest

# The stand-ins are found there by worker processes too.
sys.path.insert(0, str(Path(__file__).parents[1] / "driving"))

from drivers import Driver  # noqa: E402
from engine_studies import SPACE, write_study  # noqa: E402

from gs_search.dashboard.app import DashboardApp  # noqa: E402
from gs_search.results.run_folder import RunFolder  # noqa: E402
from tests.dashboard.filled_run import served  # noqa: E402

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(300)]

TRIALS = 60


def test_watching_a_search(tmp_path: Path) -> None:
    parameters = SPACE | {"distill_weight": 150.0}  # milliseconds that a stand-in takes
    study = write_study(tmp_path / "study", parameters, trials=TRIALS)
    driver = Driver(study, tmp_path / "run")
    try:
        driver.wait_until(lambda: (tmp_path / "run" / "resolved.yaml").is_file())
        app = DashboardApp(RunFolder(tmp_path / "run"))
        counts, refused = [], 0
        with served(app) as address:

            def ask(method: str, path: str, host: str = urlsplit(address).netloc) -> tuple[int, bytes]:
                connection = HTTPConnection(urlsplit(address).netloc, timeout=60)
                connection.request(method, path, headers={"Host": host})
                answer = connection.getresponse()
                found = answer.status, answer.read()
                connection.close()
                return found

            def look() -> int:
                status, body = ask("GET", "/api/studies/1")
                if status == 404:
                    return 0
                assert status == 200, body
                shown = json.loads(body)["trials"]
                assert all(trial["note"]["body"] for trial in shown)
                return sum(trial["state"] == "Complete" for trial in shown)

            while driver.process.poll() is None:
                counts.append(look())
                for method in ("POST", "PUT", "DELETE"):
                    assert ask(method, "/api/studies/1")[0] == 403
                    assert ask(method, "/api/studies/1/note")[0] == 403
                assert ask("GET", "/api/studies/1", host="evil.example")[0] == 403
                assert ask("GET", "/dashboard")[0] == 200
                refused += 7
                time.sleep(0.2)
            time.sleep(2.1)  # the dashboard keeps trials for two seconds
            counts.append(look())
        app.close()
    finally:
        driver.process.kill()
    summary = json.loads(driver.process.communicate()[0])
    assert driver.process.returncode == 0 and summary["states"]["COMPLETE"] == summary["finished"] == TRIALS
    assert counts == sorted(counts) and counts[-1] == TRIALS
    assert len(set(counts)) > 5, "it was not watched while it ran"
    assert refused >= 70
