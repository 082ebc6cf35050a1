"""Search-space files: every mistake, on its line, with the nearest legal key."""

from __future__ import annotations

from pathlib import Path

import pytest

from gs_search.study.settings import GROUPS, LEGAL
from gs_search.study.space_file import FileErrors, legal_of, load_space, setting_names


def problems(folder: Path, text: str) -> list[str]:
    path = folder / "space.yaml"
    path.write_text(text)
    with pytest.raises(FileErrors) as caught:
        load_space(path)
    return [line.removeprefix(f"{path}:") for line in caught.value.problems]


def test_shipped_spaces_are_sound(repository: Path) -> None:
    files = sorted((repository / "search_spaces").glob("*.yaml"))
    assert len(files) >= 2
    for path in files:
        space = load_space(path)
        assert space.start_points and space.source == path
        assert all(space.check_point(point) == [] for point in space.start_points)


def test_the_readmes_example_is_sound(repository: Path, tmp_path: Path) -> None:
    text = (repository / "search_spaces" / "README.md").read_text()
    path = tmp_path / "space.yaml"
    path.write_text(text.partition("```yaml\n")[2].partition("```")[0])
    space = load_space(path)
    assert len(space.parameters) == 5 and space.constants == {"steps": 80}


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ("stepps: 3", "2: parameters.stepps: unknown setting; did you mean steps?"),
        (
            "weight_bits.boddy: 4",
            "2: parameters.weight_bits.boddy: unknown setting; did you mean weight_bits.body?",
        ),
        ("steps.body: 4", "2: parameters.steps.body: unknown setting"),
        ("steps: 1.5", "2: parameters.steps: must be a whole number, not 1.5"),
        ("steps:", "2: parameters.steps: must have a value, not nothing"),
        (
            "steps: [1, 2]",
            "2: parameters.steps: must be one value or a range; write {type: choice, choices: [1, 2]}",
        ),
        ("steps: {low: 1, high: 2}", "2: parameters.steps.type: is missing; type: float, int or choice"),
        (
            "steps: {type: itn, low: 1, high: 2}",
            "2: parameters.steps.type: must be float, int or choice, not 'itn'; did you mean int?",
        ),
        ("steps: {type: int, low: 1, hihg: 2}", "2: parameters.steps.high: is missing"),
        (
            "steps: {type: int, low: 1, hihg: 2}",
            "2: parameters.steps.hihg: unknown key for type int; did you mean high?",
        ),
        ("steps: {type: int, low: 5, high: 2}", "2: parameters.steps.low: 5 is not below high, 2; swap them"),
        ("steps: {type: int, low: 5, high: 5}", "2: parameters.steps.low: 5 is not below high, 5"),
        (
            "steps: {type: int, low: -5, high: 5}",
            "2: parameters.steps.low: must lie between 0 and 1e+07, not -5",
        ),
        ("steps: {type: int, low: 1, high: .inf}", "2: parameters.steps.high: must be finite, not inf"),
        ("steps: {type: int, low: 1, high: '9'}", "2: parameters.steps.high: must be a number, not '9'"),
        (
            "steps: {type: int, low: 0, high: 9, log: true}",
            "2: parameters.steps.low: must be above 0 where log",
        ),
        ("steps: {type: int, low: 1, high: 9, log: yes}", "2: parameters.steps.log: must be true or false"),
        (
            "steps: {type: int, low: 1, high: 9, step: 0}",
            "2: parameters.steps.step: must lie above 0 and within 8",
        ),
        (
            "steps: {type: int, low: 1, high: 9, step: 1.5}",
            "2: parameters.steps.step: must be a whole number",
        ),
        (
            "steps: {type: int, low: 1, high: 9, step: 2, log: true}",
            "2: parameters.steps.step: cannot be combined",
        ),
        ("steps: {type: float, low: 1, high: 9}", "2: parameters.steps.type: must be int"),
        (
            "weight_bits: {type: int, low: 2, high: 8}",
            "2: parameters.weight_bits.type: must be choice: legal values",
        ),
        (
            "weight_bits: {type: choice}",
            "2: parameters.weight_bits.choices: must be a list of at least one value",
        ),
        (
            "weight_bits: {type: choice, choices: []}",
            "2: parameters.weight_bits.choices: must be a list of at least",
        ),
        (
            "weight_bits: {type: choice, choices: [8, 9]}",
            "2: parameters.weight_bits.choices[1]: must be one of 2, 3, 4, 5, 6, 7, 8, 32, not 9",
        ),
        (
            "weight_bits: {type: choice, choices: [8, 8.0]}",
            "2: parameters.weight_bits.choices[1]: 8.0 is given twice",
        ),
        (
            "weight_bits: {type: choice, choices: [8, ~]}",
            "2: parameters.weight_bits.choices[1]: must have a value",
        ),
        (
            "steps: {type: int, low: 1, high: 9, when: 3}",
            "2: parameters.steps.when: must map a parameter above",
        ),
        (
            "steps: {type: int, low: 1, high: 9, when: {revive: true}}",
            "2: parameters.steps.when.revive: is no parameter of type choice above this one",
        ),
    ],
)
def test_mistakes_in_entries(tmp_path: Path, entry: str, message: str) -> None:
    found = problems(tmp_path, f"parameters:\n  {entry}\n")
    assert any(line.startswith(message) for line in found), found


def test_a_condition_must_be_able_to_hold(tmp_path: Path) -> None:
    text = """\
parameters:
  schedule: {type: choice, choices: [at_once, proximal]}
  slim_fraction:
    type: float
    low: 0.3
    high: 0.8
    when: {schedule: proximall}
"""
    assert problems(tmp_path, text) == [
        "7: parameters.slim_fraction.when.schedule: must be one of at_once, proximal, not 'proximall'"
    ]


STEPS = "parameters: {steps: {type: int, low: 1, high: 9}}\n"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("parameters: {}\n", "1: parameters: must hold at least one setting"),
        ("paramters: {steps: 3}\n", "1: paramters: unknown key; did you mean parameters?"),
        ("parameters: {steps: 3}\n", "1: parameters: holds constants only"),
        (
            STEPS + "start_points: 3\n",
            "2: start_points: must be a list",
        ),
        (
            STEPS + "start_points: [3]\n",
            "2: start_points[0]: must map",
        ),
        (
            STEPS + "start_points:\n  - {steps: 2}\n  - {steps: 10}\n",
            "4: start_points[1].steps: must lie between 1 and 9, not 10",
        ),
        (
            STEPS + "start_points:\n  - {steps: 2}\n  - {steps: 2}\n",
            "4: start_points[1]: is the same point as start_points[0]",
        ),
    ],
)
def test_mistakes_around_entries(tmp_path: Path, text: str, message: str) -> None:
    found = problems(tmp_path, text)
    assert any(line.startswith(message) for line in found), found


def test_a_broken_parameter_is_reported_once(tmp_path: Path) -> None:
    """Start points and conditions that lean on it are not blamed for it."""
    text = """\
parameters:
  schedule: {type: choice, choices: [at_once, proximl]}
  slim_fraction: {type: float, low: 0.3, high: 0.8, when: {schedule: proximal}}
start_points:
  - {schedule: proximal, slim_fraction: 0.5}
"""
    assert len(problems(tmp_path, text)) == 1


def test_names() -> None:
    assert legal_of("steps") is LEGAL["steps"] and legal_of("weight_bits.body") is LEGAL["weight_bits"]
    assert legal_of("steps.body") is legal_of("weight_bits.tail") is legal_of("") is None
    grouped = sum(legal.per_group for legal in LEGAL.values())
    assert len(setting_names()) == len(set(setting_names())) == len(LEGAL) + grouped * len(GROUPS)
