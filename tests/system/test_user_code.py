"""Code of the user's: which files it needs, how it is named, copied and imported, and what is said of bad ones."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from gs_search.errors import BadInput
from gs_search.system.user_code import copied_code, find_code, function_name


def write(folder: Path, **files: str) -> Path:
    """Files by name, without ``.py``; ``/`` stands in names as it is (so they are given as ``**{"nets/act": ...}``)."""
    for name, text in files.items():
        path = folder / f"{name}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder


SCRIPT = """
import json, utils
from blocks import Block as Renamed
def build():
    from late import LATE  # when it is called
    return [utils.NAME, Renamed, LATE, json.dumps(1)]
"""


def test_files_beside_a_script_are_its_own_and_nothing_else_is(tmp_path: Path) -> None:
    parts = {"blocks": "from helpers.deep import Block", "late": "LATE = 'late'", "stranger": "1 / 0"}
    write(tmp_path, net=SCRIPT, utils="NAME = 'mine'", **{"helpers/deep": "Block = 'block'"}, **parts)
    code = find_code("./net.py:build", tmp_path)
    assert code.files == ("blocks.py", "helpers/deep.py", "late.py", "net.py", "utils.py") and not code.installed
    before = {name for name in sys.modules if not name.startswith("_gs_search_")}
    assert code.load()() == ["mine", "block", "late", "1"]
    assert {name for name in sys.modules if not name.startswith("_gs_search_")} == before
    assert not list(tmp_path.rglob("__pycache__")), "bytecode was left in the user's folder"


def test_two_modules_of_one_name_do_not_meet(tmp_path: Path) -> None:
    for name in ("one", "two"):
        write(tmp_path / name, net="import utils\ndef build(): return utils.NAME", utils=f"NAME = {name!r}")
    codes = [find_code("net.py:build", tmp_path / name) for name in ("one", "two")]
    assert [code.load()() for code in codes] == ["one", "two"]


PACKAGE = {
    "nets/__init__": "",
    "nets/net": "from . import act\nfrom .sub.block import B\nimport nets.sub.other\nimport nets.act as short\n"
    "from nets.sub import *\nclass Net:\n    found = act.A, B, nets.sub.other.O, short.A, STAR\n",
    "nets/act": "A = 'a'",
    "nets/sub/__init__": "STAR = 'star'",
    "nets/sub/block": "from ..act import A\nB = A + 'b'",
    "nets/sub/other": "O = 'o'",
}


@pytest.mark.parametrize("named", ["nets.net:Net.found.__len__", "./nets/net.py:Net.found.__len__"])
def test_a_package_is_found_by_module_and_by_file(tmp_path: Path, named: str) -> None:
    code = find_code(named, write(tmp_path, **PACKAGE))
    assert code.module == "nets.net" and len(code.files) == 6
    assert code.load()() == 5 and "nets" not in sys.modules
    assert find_code("nets.net:Net", tmp_path).load().found == ("a", "ab", "o", "a", "star")


def test_relative_imports_do_without_a_package_file(tmp_path: Path) -> None:
    write(tmp_path, **{"nets/net": "from .act import A\ndef build(): return A", "nets/act": "A = 3"})
    for named in ("nets/net.py:build", "nets.net:build"):
        code = find_code(named, tmp_path)
        assert (code.module, code.files, code.load()()) == ("nets.net", ("nets/act.py", "nets/net.py"), 3)


def test_a_copy_is_the_same_code_and_stands_alone(tmp_path: Path) -> None:
    origin = write(tmp_path / "origin", **PACKAGE)
    code = find_code("nets.net:Net", origin)
    written = code.copy_to(tmp_path / "copy")
    assert len(written) == 7 and code.copy_to(tmp_path / "copy") == []
    for path in origin.rglob("*.py"):
        path.unlink()
    copy = copied_code(tmp_path / "copy")
    assert copy.sha256 == code.sha256 and copy.load().found == ("a", "ab", "o", "a", "star")  # type: ignore[attr-defined]
    again = find_code(f"copy/{copy.named}", tmp_path)
    assert (again.root, again.module, again.sha256) == (copy.root, copy.module, copy.sha256)
    (tmp_path / "copy" / "nets" / "act.py").write_text("A = 'changed'")
    assert copied_code(tmp_path / "copy").sha256 != code.sha256
    (tmp_path / "copy" / "nets" / "net.py").unlink()
    with pytest.raises(BadInput, match=r"the copied source of nets\.net is gone"):
        copied_code(tmp_path / "copy")


def test_installed_packages_and_this_one_are_imported_as_they_are(tmp_path: Path) -> None:
    code = find_code("yaml.error:Mark", tmp_path)
    assert code.installed and code.load() is __import__("yaml").error.Mark
    assert [path.name for path in code.copy_to(tmp_path / "copy")] == ["function.json"]
    assert copied_code(tmp_path / "copy").sha256 == code.sha256
    from gs_search.networks import CartoonGenerator

    assert find_code("gs_search.networks.cartoongan:CartoonGenerator", tmp_path).load() is CartoonGenerator


def test_nothing_is_run_to_find_it(tmp_path: Path) -> None:
    """And torch is not needed for it, so that checking a study's keys stays quick."""
    write(tmp_path, net="raise SystemExit('it was run')\nimport torch\ndef build(): pass")
    text = (
        "import sys; from pathlib import Path; from gs_search.system.user_code import find_code; "
        "print(find_code('net.py:build', Path(sys.argv[1])).name, 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", text, str(tmp_path)], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["net:build", "False"]


@pytest.mark.parametrize(
    ("named", "said"),
    [
        ("net.py", "'net.py' names no function: write package.module:function, or ./my_net.py:function"),
        ("gone.py:build", "no such file: .*gone.py"),
        ("gone.nets:build", "no module gone.nets in .*, nor where Python looks; name its file"),
        ("nets-2:build", "'nets-2' is neither a module .* nor a file"),
        ("torn.py:build", r"torn\.py:2: no valid Python: "),
        ("usestorn.py:build", r"torn\.py:2: no valid Python: "),
    ],
)
def test_what_cannot_be_found(tmp_path: Path, named: str, said: str) -> None:
    write(tmp_path, net="", torn="x = 1\ndef (", usestorn="import torn")
    with pytest.raises(BadInput, match=said):
        find_code(named, tmp_path)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("def built(): pass", "net: has no build; did you mean built?"),
        ("from os import path\ndef make(): pass\nclass Net: pass", "net: has no build; it has make, Net$"),
        ("build = 3", "net:build: is a int, not a function or class"),
        ("\nimport nowhere_to_be_found", "net.py:2: No module named 'nowhere_to_be_found'; install it"),
        ("import json\n\n1 / 0", "net.py:3: raised ZeroDivisionError: division by zero when it was imported"),
        ("raise SystemExit(3)", "net.py:1: raised SystemExit: 3"),
    ],
)
def test_what_cannot_be_loaded(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(BadInput, match=said):
        find_code("net.py:build", write(tmp_path, net=text)).load()


def test_a_function_is_called_the_same_wherever_it_lies() -> None:
    names = ["./nets/unet.py:build", "unet.py:build", "nets.unet:build", "../unet.py:build", "unet/__init__.py:build"]
    assert {function_name(name) for name in names} == {"unet:build"}
