"""Files for clusters: what their own tools take, as far as that can be checked without them."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import ray
import yaml

from gs_search.cli import main
from gs_search.study.config import load_study
from gs_search.study.yaml_file import read_yaml

STUDIES = Path(__file__).parents[3] / "studies"


@pytest.fixture(scope="module", params=["cpu", "cuda"])
def files(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("study")
    raw: dict[str, Any] = dict(read_yaml(STUDIES / "quickstart.yaml", what="study file").value)
    raw |= {"study": "a_study-1", "device": request.param, "workers": 16}
    raw |= {"space": str(STUDIES.parent / "search_spaces" / "quickstart.yaml")}
    raw["resources"] = {"custom": {"zone": 1}} | ({"gpu": 0.25} if request.param == "cuda" else {})
    (folder / "study.yaml").write_text(yaml.safe_dump(raw), encoding="utf-8")
    assert main(["init", "--cluster", str(folder / "study.yaml"), "--out", str(folder)]) == 0
    return folder / "a_study-1-cluster"


def test_ray_takes_its_cluster(files: Path) -> None:
    cluster = yaml.safe_load((files / "ray-cluster.yaml").read_text(encoding="utf-8"))
    schema = json.loads((Path(ray.__file__).parent / "autoscaler" / "ray-schema.json").read_text(encoding="utf-8"))
    jsonschema.validate(cluster, schema)
    worker = cluster["available_node_types"]["worker"]
    gpu = "GPU" in worker["resources"]
    # 16 trials: four a GPU, or eight a node of eight cores.
    assert worker["max_workers"] == cluster["max_workers"] == (4 if gpu else 2)
    assert worker["resources"] == ({"GPU": 1, "CPU": 4, "zone": 1.0} if gpu else {"CPU": 8, "zone": 1.0})
    assert cluster["available_node_types"][cluster["head_node_type"]]["resources"]["CPU"] == 0


def test_a_rayjob_carries_the_study(files: Path, tmp_path: Path) -> None:
    carried, job = yaml.safe_load_all((files / "rayjob.yaml").read_text(encoding="utf-8"))
    for name, text in carried["data"].items():
        (tmp_path / name).write_text(text, encoding="utf-8")
    assert load_study(tmp_path / "study.yaml").study == "a_study-1"
    spec = job["spec"]["rayClusterSpec"]
    assert (job["apiVersion"], job["kind"], spec["authOptions"]) == ("ray.io/v1", "RayJob", {"mode": "token"})
    (group,) = spec["workerGroupSpecs"]
    pods = [spec["headGroupSpec"]["template"]["spec"], group["template"]["spec"]]
    for pod in pods:
        (container,) = pod["containers"]
        assert {mount["name"] for mount in container["volumeMounts"]} == {volume["name"] for volume in pod["volumes"]}
    # The password of the database is in no worker's environment.
    assert "env" in pods[0]["containers"][0] and "env" not in pods[1]["containers"][0]
    assert json.loads(group["rayStartParams"]["resources"].strip("'")) == {"zone": 1.0}


def test_slurms_script_is_a_script(files: Path) -> None:
    text = (files / "slurm.sh").read_text(encoding="utf-8")
    subprocess.run(["bash", "-n", str(files / "slurm.sh")], check=True)
    assert ("#SBATCH --gpus-per-task=1" in text) == ("--num-cpus=4" in text)
    assert "{{" not in text and "None" not in text


def test_nothing_is_overwritten(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    line = ["init", "--cluster", str(files.parent / "study.yaml"), "--out", str(files.parent)]
    (files / "slurm.sh").write_text("mine", encoding="utf-8")
    assert main(line) == 2
    assert "slurm.sh: exists" in capsys.readouterr().err
    assert (files / "slurm.sh").read_text(encoding="utf-8") == "mine"
    assert main([*line, "--force"]) == 0
