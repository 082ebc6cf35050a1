"""Policies of the source, read from its syntax trees: who may import what, and what nobody may do."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1] / "gs_search"
MODULES = sorted(ROOT.rglob("*.py"))

ORDER = (
    "errors", "system", "data", "measure", "networks", "web", "remote", "study", "results", "slimming", "search",
    "trial", "export", "monitor", "engine", "phone", "forecast", "retrain", "terminal", "report", "dashboard", "cli",
)  # fmt: skip
"""Packages, lowest first; each imports only from those before it, inside functions and for types too."""

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


def own_imports(root: Path) -> dict[str, set[str]]:
    """Module to the modules of the same package that it imports anywhere, by dotted names below ``root``."""
    names = {}
    for path in root.rglob("*.py"):
        pieces = path.relative_to(root).with_suffix("").parts
        names[path] = ".".join(pieces[:-1] if pieces[-1] == "__init__" else pieces)
    known = set(names.values())
    found: dict[str, set[str]] = {}
    for path, name in names.items():
        inside = (entry for entry in imports(path, anywhere=True) if entry.startswith(root.name + "."))
        wanted = (entry.partition(".")[2] for entry in inside)
        # ``a.b.c`` is the module c, or the name c of the module b.
        targets = {entry if entry in known else entry.rpartition(".")[0] for entry in wanted}
        found[name] = {target for target in targets if target and target != name}
    return found


def upward(arrows: Mapping[str, set[str]], order: tuple[str, ...]) -> list[str]:
    """Imports that do not point down, as ``module -> module``."""
    rank = {name: index for index, name in enumerate(order)}
    return [
        f"{source} -> {target}"
        for source, targets in sorted(arrows.items())
        for target in sorted(targets)
        if source and rank[target.partition(".")[0]] > rank[source.partition(".")[0]]
    ]


def circle(arrows: Mapping[str, set[str]]) -> list[str]:
    """A circle of modules, or nothing. A package's ``__init__`` is left out where it gathers its own modules."""
    done: set[str] = set()

    def follow(name: str, way: list[str]) -> list[str]:
        if name in way:
            return [*way[way.index(name) :], name]
        if name in done:
            return []
        for target in sorted(arrows.get(name, ())):
            if found := follow(target, [*way, name]):
                return found
        done.add(name)
        return []

    return next((found for name in sorted(arrows) if (found := follow(name, []))), [])


def test_arrows_point_down() -> None:
    arrows = own_imports(ROOT)
    assert upward({name: targets for name, targets in arrows.items() if name != "__main__"}, ORDER) == []


def test_there_is_no_circle_of_modules() -> None:
    assert circle(own_imports(ROOT)) == []


def test_a_circle_and_an_arrow_up_are_found(tmp_path: Path) -> None:
    """Also where the import stands inside a function, or only for types."""
    root = tmp_path / "house"
    for name, text in {
        "__init__.py": "",
        "low/__init__.py": "",
        "low/a.py": "def f():\n    from house.high import b\n",
        "high/__init__.py": "",
        "high/b.py": "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from house.high.c import C\n",
        "high/c.py": "import house.high.b\nclass C: pass\n",
    }.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    arrows = own_imports(root)
    assert upward(arrows, ("low", "high")) == ["low.a -> high.b"]
    assert upward(arrows, ("high", "low")) == []
    assert circle(arrows) == ["high.b", "high.c", "high.b"]
    (root / "high/c.py").write_text("class C: pass\n")
    assert circle(own_imports(root)) == []


def test_every_package_is_placed() -> None:
    """A new package has its place in the order, and nothing stands loose beside them."""
    assert {part(path) for path in MODULES} == {*ORDER, "__init__", "__main__"}


def third_party(path: Path, *, anywhere: bool = True) -> set[str]:
    return {name.split(".")[0] for name in imports(path, anywhere=anywhere)}


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_engines_stay_in_their_place(path: Path) -> None:
    names = third_party(path)
    if part(path) != "engine" and path != ROOT / "retrain" / "distributed.py":
        assert "ray" not in names
    if part(path) != "remote":
        assert "pyarrow" not in names
    if part(path) not in ("search", "engine", "monitor", "report", "dashboard"):
        assert "optuna" not in names
    if part(path) in ("results", "terminal", "cli"):
        assert "torch" not in names
    if part(path) in ("study", "cli"):  # ``study.preflight`` asks torch for a GPU where a study wants one
        assert not third_party(path, anywhere=False) & HEAVY
    if part(path) in ("slimming", "measure", "networks", "data", "trial"):
        assert not names & {"ray", "optuna", "pyarrow"}


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_nothing_that_could_run_code_of_a_file(path: Path) -> None:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if not isinstance(node, ast.Call):
            continue
        called, keywords = ast.unparse(node.func), {word.arg: word.value for word in node.keywords}
        where = f"{path.name}:{node.lineno}: {called}"
        forbidden = {"eval", "exec", "compile", "__import__", "os.system", "os.popen"}
        if path == ROOT / "system" / "user_code.py":  # the one place that runs code: what a study names as the user's
            forbidden -= {"compile"}
        assert called not in forbidden, where
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
    assert path.stem not in ("utils", "util", "helpers", "common", "misc", "base")
    for node in ast.walk(tree):
        if isinstance(node, ast.ExceptHandler):
            assert node.type is not None, f"{path.name}:{node.lineno}: bare except"


LIGHT = ("errors", "system.lock", "system.signals", "study.config", "study.space_file", "cli", "results.run_folder")
"""Modules that decide without computing: quick to import, so that ``check`` and ``--help`` are quick."""


@pytest.mark.parametrize("module", LIGHT)
def test_light_modules_pull_in_nothing_heavy(module: str) -> None:
    """What is imported in the end, through whatever lies between."""
    code = f"import sys, gs_search.{module}; print(' '.join(name for name in sys.modules if '.' not in name))"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not set(loaded) & HEAVY


def test_computing_needs_neither_engine_nor_schema() -> None:
    """One process imports part after part; a trial knows the study file, the others do not."""
    code = """
import importlib, sys
for part in ("networks", "data", "measure", "slimming", "trial.run"):
    importlib.import_module("gs_search." + part)
    loaded = {name.partition(".")[0] for name in sys.modules}
    print(part, *sorted(loaded & {"ray", "optuna", "pyarrow", "pydantic"}))
"""
    lines = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert lines.splitlines()[:4] == ["networks", "data", "measure", "slimming"]
    assert lines.splitlines()[4] in ("trial.run", "trial.run pydantic")
