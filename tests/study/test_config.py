"""Study files: defaults, every mistake at once, and the copy that workers read."""

from __future__ import annotations

import copy
import json
import pickle
import random
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from gs_search.errors import BadInput, ConfigError
from gs_search.results.run_folder import RunFolder
from gs_search.study.config import (
    ConstraintsConfig,
    DataConfig,
    MeasureConfig,
    ResourcesConfig,
    RetrainConfig,
    StoppingConfig,
    StudyConfig,
    TeacherConfig,
    load_resolved,
    load_study,
)
from gs_search.study.settings import SlimmingSettings
from tests.conftest import SPACE, STUDY

Write = Callable[..., Path]


def problems(path: Path) -> list[str]:
    """Problems without the folder in front."""
    with pytest.raises(ConfigError) as caught:
        load_study(path)
    return [line.replace(f"{path.parent}/", "") for line in caught.value.problems]


def changed(study: str, old: str, new: str) -> str:
    assert old in study
    return study.replace(old, new)


def test_defaults(write_study: Write) -> None:
    path = write_study()
    config = load_study(path)
    assert (config.study, config.seed, config.trials, config.image_px) == ("small", 7, 3, 32)
    assert (config.hours, config.workers, config.device, config.sampler) == (None, "auto", "auto", "surrogate")
    assert config.source == path.resolve()
    assert config.data == DataConfig(kind="drawn", train=16, val=8, test=4)
    assert (config.data.reference, config.data.views) == (150, None)
    assert config.teacher == TeacherConfig(kind="shipped", width=16, blocks=3, steps=500)
    assert config.measure == MeasureConfig(fid_images=8, latency_repeats=5)
    assert config.settings["batch_size"] == 2
    assert SlimmingSettings(**config.settings) == SlimmingSettings(batch_size=2, repair_pictures=8)
    assert [parameter.name for parameter in config.space.parameters] == [
        "target_gflops_ratio",
        "weight_bits.body",
    ]


def test_shipped_studies(repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "teacher.pth").write_bytes(b"")
    (tmp_path / "photos").mkdir()
    monkeypatch.setenv("GS_SEARCH_CHECKPOINT", str(tmp_path / "teacher.pth"))
    monkeypatch.setenv("GS_SEARCH_PHOTOS", "photos")
    monkeypatch.chdir(tmp_path)  # a variable's value is relative to here
    quickstart = load_study(repository / "studies" / "quickstart.yaml")
    assert (quickstart.study, quickstart.trials, quickstart.data.kind) == ("quickstart", 24, "drawn")
    cartoongan = load_study(repository / "studies" / "cartoongan.yaml")
    assert (cartoongan.trials, cartoongan.image_px) == (12, 128)
    assert cartoongan.data.path == (tmp_path / "photos").resolve()
    assert cartoongan.teacher.path == (tmp_path / "teacher.pth").resolve()


def test_readme_lists_every_key(repository: Path) -> None:
    table = (repository / "studies" / "README.md").read_text()
    models = {"data": DataConfig, "teacher": TeacherConfig, "measure": MeasureConfig}
    models |= {"constraints": ConstraintsConfig, "stopping": StoppingConfig, "retrain": RetrainConfig}
    models |= {"resources": ResourcesConfig}
    rows = [re.findall(r"`([^`]+)`", row.split("|")[1]) for row in table.splitlines() if row.startswith("| `")]
    listed = {name if i == 0 else f"{row[0].partition('.')[0]}.{name}" for row in rows for i, name in enumerate(row)}
    expected = {name for name in StudyConfig.model_fields if name not in (*models, "source")}
    expected |= {f"{section}.{name}" for section, model in models.items() for name in model.model_fields}
    assert expected <= listed
    assert {name for name in listed if not name.endswith(".yaml")} == expected


def test_a_showcase_of_mistakes(write_study: Write) -> None:
    path = write_study("""\
study: Bad Name
space: smal_space
trails: 24
seed: -1
hours: 0
image_px: 66
workers: lots
data:
  kind: photo
  pth: /x
  val: 50
teacher:
  kind: checkpoint
  path: ${NOPE}/x.pth
  width: 8
settings:
  weight_bits.body: 4
  stepps: 3
  weight_bits: {bodie: 3, up: 1}
  batch_size: on
measure: {fid_images: 60.5}
sampler: tpee
""")
    assert problems(path) == [
        "small.yaml:1: study: must be made of lower-case letters, digits, _ and -, at most 64, not 'Bad Name'",
        "small.yaml:2: space: no such search-space file: smal_space; did you mean small_space.yaml?",
        "small.yaml:3: trails: unknown key; did you mean trials?",
        "small.yaml:4: seed: must be at least 0, not -1",
        "small.yaml:5: hours: must be above 0, not 0",
        "small.yaml:6: image_px: must be a multiple of 4, not 66",
        "small.yaml:7: workers: must be auto or a whole number from 1 to 4096, not 'lots'",
        "small.yaml:9: data.kind: must be one of drawn, folders, photos, pairs, not 'photo'; did you mean photos?",
        "small.yaml:10: data.pth: unknown key; did you mean path?",
        "small.yaml:14: teacher.path: environment variable NOPE is not set; set it, as in: export NOPE=/path/to/it",
        "small.yaml:15: teacher.width: is not used by kind checkpoint; remove it",
        "small.yaml:17: settings.weight_bits.body: unknown setting; write weight_bits: {body: 4}",
        "small.yaml:18: settings.stepps: unknown setting; did you mean steps?",
        "small.yaml:19: settings.weight_bits.bodie: unknown group of layers; did you mean body?",
        "small.yaml:19: settings.weight_bits.up: must be one of 2, 3, 4, 5, 6, 7, 8, 32, not 1",
        "small.yaml:20: settings.batch_size: must be a number, not 'on'",
        "small.yaml:21: measure.fid_images: must be a whole number, not 60.5",
        "small.yaml:22: sampler: must be one of surrogate, tpe, nsga2, nsga3, gp, qmc, random, not 'tpee'; "
        "did you mean tpe?",
    ]


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("study: small\n", "", "small.yaml:1: study: is missing"),
        ("space: small_space.yaml\n", "", "small.yaml:1: space: is missing; name a file of search_spaces/"),
        ("small_space.yaml", "[1]", "small.yaml:2: space: must be a path, not a list"),
        (
            "data: {kind: drawn, train: 16, val: 8, test: 4}\n",
            "",
            "small.yaml:1: data: is missing; keys here: kind, path, side, train, val, test, reference, views",
        ),
        ("{kind: shipped}", "shipped", "small.yaml:7: teacher: must hold keys of its own, not 'shipped'"),
        ("kind: drawn, ", "", "small.yaml:6: data.kind: is missing; one of drawn, folders, photos"),
        ("kind: drawn", "kind: photos", "small.yaml:6: data.path: is missing; give a folder of pictures"),
        ("kind: drawn", "kind: photos", "small.yaml:7: teacher.kind: shipped is for drawn data"),
        ("kind: drawn", "kind: folders, path: nowhere", "small.yaml:6: data.path: no such folder: nowhere"),
        (
            "kind: drawn",
            "kind: folders, path: small.yaml",
            "small.yaml:6: data.path: small.yaml is a file, not a folder",
        ),
        ("kind: drawn", "kind: drawn, path: x", "small.yaml:6: data.path: is not used by kind drawn"),
        (
            "kind: shipped",
            "kind: checkpoint",
            "small.yaml:7: teacher.path: is missing; give a .pth, .pt or .safetensors file",
        ),
        (
            "kind: shipped",
            "kind: checkpoint, path: gone.pth",
            "small.yaml:7: teacher.path: no such file: gone.pth",
        ),
        (
            "kind: shipped",
            "kind: train, path: gone.pth",
            "small.yaml:7: teacher.path: is not used by kind train",
        ),
        ("kind: shipped", "kind: module", "small.yaml:7: teacher.factory: is missing; name the function that gives"),
        ("kind: shipped", "kind: module, factory: x", "small.yaml:7: teacher.factory: 'x' names no function: write"),
        ("kind: shipped", "kind: module, factory: 'x.py:f'", "small.yaml:7: teacher.factory: no such file: x.py"),
        (
            "kind: shipped",
            "kind: module, factory: 'gs_search.networks.unet:UnetGenerator', checkpoint: gone.pth",
            "small.yaml:7: teacher.checkpoint: no such file: gone.pth",
        ),
        (
            "kind: shipped",
            "kind: module, factory: 'gs_search.networks.unet:UnetGenerator', padding: zero",
            "small.yaml:7: teacher.padding: is not used by kind module; remove it, or set kind: checkpoint",
        ),
        (
            "kind: shipped",
            "kind: module, factory: 'gs_search.networks.unet:UnetGenerator', range: [255, 0]",
            "small.yaml:7: teacher.range: must be the values of black and white, as [-1, 1], [0, 1] or [0, 255], not",
        ),
        (
            "kind: shipped",
            "kind: checkpoint, path: small.yaml, range: [0, 1]",
            "small.yaml:7: teacher.range: is not used by kind checkpoint; remove it, or set kind: module",
        ),
        (
            "fid_images: 8",
            "fid_images: 9",
            "small.yaml:9: measure.fid_images: fid_images is 9, but data.val is only 8; raise val",
        ),
        (
            "batch_size: 2",
            "batch_size: 17",
            "small.yaml:8: settings.batch_size: batch_size is 17, but data.train is only 16; raise train",
        ),
        (
            "settings: {batch_size: 2, repair_pictures: 8}\n",
            "",
            "small.yaml:6: data.train: repair_pictures is 32, but data.train is only 16; raise train",
        ),
        ("trials: 3", "trials: 1_000", "small.yaml:4: trials: must be a whole number, not '1_000'"),
        ("trials: 3", "trials: 3.0", "small.yaml:4: trials: must be a whole number, not 3.0"),
        ("trials: 3", "trials: true", "small.yaml:4: trials: must be a whole number, not true"),
        ("trials: 3", "trials:", "small.yaml:4: trials: must be a whole number, not nothing"),
        ("trials: 3", "source: /x", "small.yaml:4: source: unknown key"),
        ("trials: 3", "hours: .nan", "small.yaml:4: hours: must be a number, not nan"),
        (
            "trials: 3",
            "workers: 0",
            "small.yaml:4: workers: must be auto or a whole number from 1 to 4096, not 0",
        ),
        (
            "settings: {batch_size: 2, repair_pictures: 8}",
            "settings: [1]",
            "small.yaml:8: settings: must map settings to values, not a list",
        ),
        (
            "batch_size: 2",
            "schedule: atonce",
            "small.yaml:8: settings.schedule: must be one of at_once, proximal, not 'atonce'",
        ),
    ],
)
def test_mistakes(write_study: Write, monkeypatch: pytest.MonkeyPatch, old: str, new: str, expected: str) -> None:
    path = write_study(changed(STUDY, old, new))
    monkeypatch.chdir(path.parent)
    assert any(line.startswith(expected) for line in problems(path)), problems(path)


def test_photos_have_no_target(write_study: Write, tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    study = changed(STUDY, "kind: drawn", "kind: photos, path: photos").replace("batch_size: 2", "steps: 1")
    space = changed(SPACE, "  steps: 2", "  discriminator_real: {type: choice, choices: [target, teacher]}")
    space = changed(space, "weight_bits.body: 8}", "weight_bits.body: 8, discriminator_real: teacher}")
    found = problems(write_study(study, space))
    message = "target needs pictures of the target, and kind photos has none; use teacher"
    assert f"small.yaml:2: space: discriminator_real: {message}" in found
    study = changed(study, "steps: 1", "discriminator_real: target")
    assert f"small.yaml:8: settings.discriminator_real: {message}" in problems(write_study(study))
    study = changed(study, "kind: shipped", "kind: train")
    assert any(line.startswith("small.yaml:7: teacher.kind: train needs") for line in problems(write_study(study)))


def test_mistakes_of_the_space_are_reported_with_the_studys(write_study: Write) -> None:
    found = problems(write_study(changed(STUDY, "seed: 7", "sede: 7"), changed(SPACE, "low: 0.1", "low: 2")))
    assert [line.split("/")[-1].split(" ")[0] for line in found] == ["small.yaml:3:", "small_space.yaml:2:"]


def test_space_by_bare_name(write_study: Write, tmp_path: Path) -> None:
    for name in ("beside", "nearby"):
        path = write_study(changed(STUDY, "small_space.yaml", name))
        place = tmp_path if name == "beside" else tmp_path.parent / "search_spaces"
        place.mkdir(exist_ok=True)
        (place / f"{name}.yaml").write_text(SPACE)
        assert load_study(path).space.source == (place / f"{name}.yaml").resolve()


def test_resolved_copy_is_the_same_study(write_study: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # 1e-5 is a legal name that YAML 1.1 would read back as a number, were it not quoted.
    study = changed(STUDY, "study: small", 'study: "1e-5"')
    study = changed(study, "kind: shipped", "kind: checkpoint, path: '${WEIGHTS}'")
    monkeypatch.setenv("WEIGHTS", str(tmp_path / "weights.pth"))
    (tmp_path / "weights.pth").write_bytes(b"x")
    config = load_study(write_study(study))
    folder = RunFolder(tmp_path / "run")
    folder.create(config)
    monkeypatch.delenv("WEIGHTS")
    for name in ("small.yaml", "small_space.yaml", "weights.pth"):
        (tmp_path / name).unlink()
    again = load_resolved(folder.resolved_yaml)
    assert again == config
    assert again.identity() == config.identity()
    assert pickle.loads(pickle.dumps(config)) == config
    assert json.loads(json.dumps(config.to_resolved())) == config.to_resolved()


@pytest.mark.parametrize(("flag", "choice"), [(False, "inputs"), (True, "deploy")])
def test_run_folders_of_before_quantize_go_on(write_study: Write, tmp_path: Path, flag: bool, choice: str) -> None:
    config = load_study(write_study())
    assert config.settings["quantize"] == "inputs"
    folder = RunFolder(tmp_path / "run")
    folder.create(config)
    text = folder.resolved_yaml.read_text()
    assert text.count("quantize: inputs") == 1
    folder.resolved_yaml.write_text(text.replace("quantize: inputs", f"quantize_outputs: {str(flag).lower()}"))
    again = load_resolved(folder.resolved_yaml)
    assert again.settings == {**config.settings, "quantize": choice}
    assert (again.identity() == config.identity()) is not flag


def test_identity_is_what_numbers_depend_on(write_study: Write) -> None:
    base = load_study(write_study()).identity()
    free = (
        "workers: 2\nhours: 1\ntimeout_minutes: 3\nstopping: {rule: off, margin_db: 2}\nretrain: {steps: 9}\n"
        "storage: postgresql://me@server/studies\nresources: {gpu: 0.5, custom: {spot: 1}}"
    )
    for old, new in [("trials: 3", "trials: 9"), ("seed: 7", f"seed: 7\n{free}")]:
        assert load_study(write_study(changed(STUDY, old, new))).identity() == base
    bound = [("seed: 7", "seed: 8"), ("batch_size: 2", "batch_size: 3"), ("val: 8", "val: 9")]
    for old, new in [*bound, ("seed: 7", "seed: 7\nstopping: {rungs: [1]}")]:
        assert load_study(write_study(changed(STUDY, old, new))).identity() != base
    other = load_study(write_study(STUDY, changed(SPACE, "high: 0.9", "high: 0.8"))).identity()
    assert {key for key in base if base[key] != other[key]} == {"space.parameters.target_gflops_ratio.high"}


@pytest.mark.parametrize("content", ["", "a: [", "study: 3", "study: {space: {}}", "\x00", "- 1"])
def test_damaged_resolved_copy(tmp_path: Path, content: str) -> None:
    path = tmp_path / "resolved.yaml"
    path.write_text(content)
    with pytest.raises(BadInput, match=r"resolved.yaml: damaged \(.+\); restore it") as caught:
        load_resolved(path)
    assert "\n" not in str(caught.value)
    with pytest.raises(BadInput, match="no such file"):
        load_resolved(tmp_path / "gone.yaml")


BAD_VALUES: list[Any] = [
    None,
    True,
    -1,
    10**17,
    1e300,
    float("nan"),
    float("inf"),
    "",
    "x",
    "no\nway",
    [],
    [1],
    {},
]


def mutations(seed: int, count: int) -> list[Any]:
    """Study files with one to three random wounds, as plain data."""
    generator = random.Random(seed)
    made = []
    for _ in range(count):
        study: Any = copy.deepcopy(yaml.safe_load(STUDY))
        for _ in range(generator.randint(1, 3)):
            place = generator.choice([study, *(part for part in study.values() if isinstance(part, dict))])
            key = generator.choice(list(place) or ["study"])
            wound = generator.choice(["value", "rename", "remove", "add"])
            if wound in ("rename", "remove"):
                value = place.pop(key, None)
            if wound == "rename":
                position = generator.randrange(len(key))
                place[key[:position] + generator.choice("xyz") + key[position + 1 :]] = value
            elif wound != "remove":
                place[key if wound == "value" else "extra"] = generator.choice(BAD_VALUES)
        made.append(study)
    return made


def test_200_mutated_studies(write_study: Write) -> None:
    """Each is either accepted, because the wound was none, or refused with file, line and key."""
    refused = 0
    for study in mutations(seed=5, count=200):
        path = write_study(yaml.safe_dump(study, sort_keys=False))
        try:
            load_study(path)
        except ConfigError as error:
            refused += 1
            for line in error.problems:
                assert re.match(r"\S+/small(_space)?\.yaml:\d+: [a-z_]\S*: \S", line), line
                assert "pydantic" not in line and len(line) < 400
    assert refused > 150
