"""Reading plain YAML: what is accepted, what is refused, and on which line."""

from __future__ import annotations

import json
import math
import re
import time
from pathlib import Path

import pytest
import yaml
from hypothesis import assume, given
from hypothesis import strategies as st

from gs_search.study.yaml_file import FileErrors, nearest, quote, read_yaml


def write(folder: Path, text: str | bytes) -> Path:
    path = folder / "file.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def problems(folder: Path, text: str | bytes) -> list[str]:
    with pytest.raises(FileErrors) as caught:
        read_yaml(write(folder, text), what="study file")
    return [line.removeprefix(str(folder / "file.yaml") + ":") for line in caught.value.problems]


def test_scalars_follow_yaml_1_2(tmp_path: Path) -> None:
    text = """\
int: -12
exponent: 1e-4
float: .5
plain: 10.
big: 123456789012345678901234567890
octal: 017
clock: 12:30
word: on
quoted: "1e-4"
yes: no
truth: true
nothing:
tilde: ~
infinite: -.inf
date: 2026-11-23
"""
    value = read_yaml(write(tmp_path, text)).value
    assert value == {
        "int": -12, "exponent": 1e-4, "float": 0.5, "plain": 10.0, "big": "123456789012345678901234567890",
        "octal": "017", "clock": "12:30", "word": "on", "quoted": "1e-4", "yes": "no", "truth": True,
        "nothing": None, "tilde": None, "infinite": -math.inf, "date": "2026-11-23",
    }  # fmt: skip
    assert type(value["int"]) is int and type(value["plain"]) is float


def test_lines_of_keys_and_items(tmp_path: Path) -> None:
    document = read_yaml(write(tmp_path, "\ufeff# comment\na:\n  b: 1\n  c:\n    - x\n    - {d: 2}\n"))
    assert document.value == {"a": {"b": 1, "c": ["x", {"d": 2}]}}
    assert document.lines == {
        ("a",): 2, ("a", "b"): 3, ("a", "c"): 4, ("a", "c", 0): 5, ("a", "c", 1): 6, ("a", "c", 1, "d"): 6,
    }  # fmt: skip
    assert str(document.problem(("a", "c", 1, "d"), "is odd", "try 3")).endswith(":6: a.c[1].d: is odd; try 3")
    assert str(document.problem(("a", "zz"), "is missing")).endswith(":2: a.zz: is missing")


@pytest.mark.parametrize(
    ("text", "line", "message"),
    [
        ("", 1, "is empty"),
        ("# nothing but a comment\n", 1, "is empty"),
        ("- a\n- b\n", 1, "does not hold `key: value` lines"),
        ("just words\n", 1, "does not hold `key: value` lines"),
        ("a: 1\nb:\n\tc: 2\n", 3, "a tab is used for indentation"),
        ("a: 1\nb: 2\na: 3\n", 3, "a: is given twice (first on line 1)"),
        ("a: &x [1]\nb: *x\n", 2, "b: alias *x is not allowed"),
        ("a: !!python/object/apply:os.system [id]\n", 1, "a: tag tag:yaml.org,2002:python/object/apply:"),
        ("a: {b: 1\nc: 2\n", 2, "is not YAML"),
        ("a: 'open\n", 2, "is not YAML"),
        ("a: 1\n---\nb: 2\n", 2, "a second document starts here"),
        ("? [1, 2]\n: 3\n", 1, "a key must be a word"),
        ("<<: {a: 1}\n", 1, "a key must be a word"),
        ("a: " + "[" * 100 + "]" * 100, 1, "is not YAML: nested more than 16 levels deep"),
        ("a: " + "{b: " * 5000, 1, "is not YAML: nested more than 16 levels deep"),
        (b"a: \xff\xfe\n", 1, "is not UTF-8 text"),
        (b"a: 1\nb: \x00\n", 1, "is not YAML"),
        ('a: "\\ud800"\n', 1, "a: holds a character that is no text"),
        ('"a\\0": 1\n', 1, "a key must be a word"),
        ("a" * 300_000, 0, "is larger than 256 KB"),
    ],
)
def test_refusals(tmp_path: Path, text: str | bytes, line: int, message: str) -> None:
    found = problems(tmp_path, text)
    assert found[0].startswith(f"{line}: {message}" if line else f" {message}"), found
    assert all("\n" not in problem for problem in found)


def test_all_mistakes_at_once(tmp_path: Path) -> None:
    assert len(problems(tmp_path, "a: 1\na: 2\nb: !x 1\nc: &y 1\nd: *y\n")) == 3


def test_billion_laughs_cost_nothing(tmp_path: Path) -> None:
    layers = "\n".join(f"l{i}: &l{i} [{', '.join([f'*l{i - 1}'] * 9)}]" for i in range(1, 12))
    start = time.process_time()
    assert "alias *l0 is not allowed" in problems(tmp_path, f"l0: &l0 [lol]\n{layers}\n")[0]
    assert time.process_time() - start < 1


def test_ten_megabytes_are_not_read(tmp_path: Path) -> None:
    start = time.process_time()
    assert "larger than 256 KB" in problems(tmp_path, b"a: [" + b"1, " * 3_500_000 + b"]")[0]
    assert time.process_time() - start < 1


def test_missing_file_and_folder(tmp_path: Path) -> None:
    with pytest.raises(FileErrors, match="gone.yaml: no such study file$"):
        read_yaml(tmp_path / "gone.yaml", what="study file")
    with pytest.raises(FileErrors, match="is a folder, not a study file$"):
        read_yaml(tmp_path, what="study file")


def test_nearest() -> None:
    assert nearest("trails", ["trials", "seed"]) == "did you mean trials?"
    assert nearest("Weight-Bits", ["weight_bits", "steps"]) == "did you mean weight_bits?"
    assert nearest("zzz", ["trials", "seed"]) == "legal here: trials, seed"
    assert nearest("zzz", map(str, range(100))) is None


def test_quote_is_short_and_one_line() -> None:
    assert quote("a\nb") == r"'a\nb'"
    assert len(quote("x" * 500)) == 60
    assert (quote(None), quote(True), quote({}), quote([])) == ("nothing", "true", "a mapping", "a list")


plain = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**17), 10**17)
    | st.floats(allow_nan=False)
    | st.text(st.characters(codec="utf-8", exclude_categories=["C", "Z"]), max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.from_regex(r"[a-z_]{1,6}", fullmatch=True), inner, max_size=3)
    ),
    max_leaves=8,
)


@given(st.dictionaries(st.from_regex(r"[a-z_.]{1,8}", fullmatch=True), plain, min_size=1))
def test_reads_what_json_writes(tmp_path_factory: pytest.TempPathFactory, value: dict[str, object]) -> None:
    """JSON quotes all text, so nothing depends on how plain words are read."""
    folder = tmp_path_factory.getbasetemp()
    text = json.dumps(value, indent=1, ensure_ascii=False)
    assume(not re.search('"[^"]*Infinity', text))  # a text that says so; only numbers are to be turned into YAML's
    text = text.replace("Infinity", ".inf")
    assert read_yaml(write(folder, text)).value == value


@given(st.binary(max_size=200) | st.text(max_size=100).map(str.encode))
def test_no_other_exception(tmp_path_factory: pytest.TempPathFactory, raw: bytes) -> None:
    try:
        document = read_yaml(write(tmp_path_factory.getbasetemp(), raw))
    except FileErrors as error:
        assert error.problems and all(str(line) for line in error.problems)
    else:
        assert isinstance(document.value, dict) and isinstance(yaml.safe_load(raw), dict)
