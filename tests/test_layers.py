"""Policies of the source, read from its syntax trees: who may import what, and what nobody may do."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1] / "gs_search"
MODULES = sorted(ROOT.rglob("*.py"))

# What a module may import of this package, by its first part; every arrow points down. Parts at the top,
# which may import anything, are in ``TOP``.
MAY_IMPORT = {
    "__init__": set(),
    "errors": set(),
    "settings": {"errors"},
    "yamlfile": {"errors"},
    "lock": {"errors"},
    "cache": {"errors"},
    "remote": {"cache", "errors", "lock"},
    "interruption": set(),
    "templates": set(),
    "front": {"errors"},
    "noise": {"front"},
    "repeats": {"noise", "runfolder"},
    "constraints": set(),
    "database_url": {"errors", "config"},
    "space": {"errors", "settings", "yamlfile"},
    "spacefile": {"errors", "settings", "yamlfile", "space"},
    "config": {"errors", "settings", "yamlfile", "space", "spacefile", "studyfile", "constraints"},
    "studyfile": {"errors", "settings", "yamlfile", "space", "spacefile", "config", "database_url"},
    "runfolder": {"errors", "config", "lock", "remote", "__init__"},
    "front_table": {"errors", "front", "runfolder", "constraints", "noise", "repeats"},
    "front_files": {"errors", "front_table"},
    "pick_words": set(),
    "pick_table": {"front_table"},
    "surroundings": {"front", "front_table", "noise", "pick_words", "repeats", "runfolder"},
    "pick": {"__init__", "constraints", "errors", "front", "front_table", "pick_words", "runfolder", "surroundings"},
    "workers": {"errors"},
    "serving": {"errors"},
    "data": {"errors"},
    "networks": {"errors"},
    "slimming": {"errors", "settings", "networks", "data", "measure", "system"},
    "system": set(),
    "measure": {"errors", "data"},
}
TOP = {
    "__main__", "cli", "cluster", "dashboard", "export", "front_picture", "front_table", "groundwork", "info",
    "newstudy", "phone", "preflight", "reevaluate", "report", "retrain", "search", "status", "status_view", "trial",
}  # fmt: skip
DECISIONS = {
    "errors",
    "settings",
    "database_url",
    "yamlfile",
    "lock",
    "interruption",
    "space",
    "spacefile",
    "config",
    "studyfile",
    "constraints",
}
"""Modules that decide without computing: quick to import, so that ``check`` and ``--help`` are quick."""
HEAVY = {"torch", "torchvision", "ray", "optuna", "scipy", "numpy", "plotly", "pandas", "fvcore", "pyarrow"}


def part(path: Path) -> str:
    """First name of a module below the package: ``data`` for data/images.py."""
    return path.relative_to(ROOT).parts[0].removesuffix(".py")


def imports(path: Path, *, anywhere: bool) -> Iterator[str]:
    """Names of imported modules; those inside functions and TYPE_CHECKING blocks only if ``anywhere``."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    nodes = ast.walk(tree) if anywhere else iter(tree.body)
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            yield from ([f"{node.module}.{alias.name}" for alias in node.names] if node.module else [])


def own(path: Path) -> set[str]:
    """Parts of this package that a module imports, anywhere in it."""
    found = set()
    for name in imports(path, anywhere=True):
        pieces = name.split(".")
        if pieces[0] == "gs_search":
            inner = pieces[1] if len(pieces) > 1 else "__init__"
            found.add(inner if (ROOT / inner).exists() or (ROOT / f"{inner}.py").exists() else "__init__")
    return found - {part(path)}


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_arrows_point_down(path: Path) -> None:
    allowed = MAY_IMPORT.get(part(path))
    if allowed is not None:
        assert own(path) <= allowed


def third_party(path: Path, *, anywhere: bool = True) -> set[str]:
    return {name.split(".")[0] for name in imports(path, anywhere=anywhere)}


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_engines_stay_in_their_place(path: Path) -> None:
    names = third_party(path)
    if part(path) not in ("search", "retrain", "cluster"):
        assert "ray" not in names
    if part(path) != "remote":
        assert "pyarrow" not in names
    if part(path) not in ("search", "report", "dashboard", "status"):
        assert "optuna" not in names
    if part(path) in DECISIONS:
        assert not names & HEAVY
    if part(path) in ("front", "front_table", "noise", "pick", "repeats", "runfolder", "cli"):
        assert "torch" not in names
    if part(path) in ("slimming", "measure", "networks", "data", "trial"):
        assert not names & {"ray", "optuna", "pyarrow"}
    if part(path) == "cli":
        assert not third_party(path, anywhere=False) & HEAVY


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_nothing_that_could_run_code_of_a_file(path: Path) -> None:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if not isinstance(node, ast.Call):
            continue
        called, keywords = ast.unparse(node.func), {word.arg: word.value for word in node.keywords}
        where = f"{path.name}:{node.lineno}: {called}"
        assert called not in ("eval", "exec", "compile", "__import__", "os.system", "os.popen"), where
        assert called not in ("yaml.load", "yaml.unsafe_load", "yaml.full_load", "torch.hub.load"), where
        assert not called.startswith(("pickle.load", "dill.", "joblib.load", "marshal.", "shelve.")), where
        if called == "torch.load":
            assert ast.unparse(keywords["weights_only"]) == "True", where
        if called in ("np.load", "numpy.load"):
            assert "allow_pickle" not in keywords or ast.unparse(keywords["allow_pickle"]) == "False", where
        if called.startswith("subprocess."):
            assert "shell" not in keywords, where


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_habits(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    tree = ast.parse(text)
    assert ast.get_docstring(tree), "says what it owns"
    assert len(tree.body) == 1 or "from __future__ import annotations" in text
    assert text.count("\n") <= 400, "one noun"
    assert path.stem not in ("utils", "util", "helpers", "common", "misc", "base")
    for node in ast.walk(tree):
        if isinstance(node, ast.ExceptHandler):
            assert node.type is not None, f"{path.name}:{node.lineno}: bare except"


def test_every_part_is_placed() -> None:
    """A new part of the package has its place in the layers, or is one of those at the top."""
    assert {part(path) for path in MODULES} <= MAY_IMPORT.keys() | TOP


@pytest.mark.parametrize("module", [*sorted(DECISIONS), "cli", "front", "runfolder"])
def test_light_modules_pull_in_nothing_heavy(module: str) -> None:
    """What is imported in the end, through whatever lies between."""
    code = f"import sys, gs_search.{module}; print(' '.join(name for name in sys.modules if '.' not in name))"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    allowed = {"numpy"} if module == "front" else set()
    assert not set(loaded) & HEAVY - allowed


def test_computing_needs_neither_engine_nor_schema() -> None:
    """One process imports part after part; a trial knows the study file, the others do not."""
    code = """
import importlib, sys
for part in ("networks", "data", "measure", "slimming", "trial"):
    importlib.import_module("gs_search." + part)
    loaded = {name.partition(".")[0] for name in sys.modules}
    print(part, *sorted(loaded & {"ray", "optuna", "pyarrow", "pydantic"}))
"""
    lines = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert lines.splitlines()[:4] == ["networks", "data", "measure", "slimming"]
    assert lines.splitlines()[4] in ("trial", "trial pydantic")
