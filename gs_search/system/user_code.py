"""Python code of the user's: which files a function needs, their hash, a copy of them, and how they are imported.

A function is named as Python does, ``package.module:function``, or by its file, ``./my_net.py:function``. Imports of
files beside it are found by reading the source, without running it; they are what is hashed and copied. Code is
imported under a name of its own, so that a ``utils.py`` of the user's meets no other: the statements that import files
of the user's are rewritten as they are compiled, nothing else is. Installed packages are imported as they are, and are
not copied.
"""

from __future__ import annotations

import ast
import difflib
import functools
import hashlib
import importlib
import importlib.machinery
import importlib.util
import json
import os
import re
import shutil
import sys
import sysconfig
import traceback
import types
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gs_search.errors import BadInput, one_line

__all__ = ["MANIFEST", "UserCode", "copied_code", "find_code", "function_name"]

MANIFEST = "function.json"
"""What lies beside the copied files and says which function is meant."""

SHAPE = re.compile(r"(?P<place>.+):(?P<function>[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*)")

OWN = "gs_search"

SHOWN = 6
"""Names that a message lists."""


@dataclass(frozen=True)
class UserCode:
    """A function, and the files that it is made of.

    Attributes:
        root: folder in which imports of the user's own files are found.
        module: dotted name of the function's module below ``root``.
        function: its name in the module, perhaps dotted.
        files: of the module and of what it imports of the user's own, relative to ``root``, sorted.
        installed: whether it belongs to an installed package, which is imported as it is.
    """

    root: Path
    module: str
    function: str
    files: tuple[str, ...]
    installed: bool

    @property
    def name(self) -> str:
        """``package.module:function``."""
        return f"{self.module}:{self.function}"

    @property
    def named(self) -> str:
        """``package/module.py:function``, relative to ``root``."""
        path = _file_of(self.root, self.module)
        assert path is not None, "found when this was made"
        return f"{path.relative_to(self.root).as_posix()}:{self.function}"

    @functools.cached_property
    def sha256(self) -> str:
        """Of the names and contents of all files."""
        digest = hashlib.sha256()
        for file in self.files:
            content = (self.root / file).read_bytes()
            digest.update(f"{file}\0{len(content)}\0".encode() + content)
        return digest.hexdigest()

    def copy_to(self, folder: Path) -> list[Path]:
        """Copy the files, and note what ``copied_code`` needs; returns what was written, nothing where it is there."""
        if (folder / MANIFEST).is_file() and copied_code(folder).sha256 == self.sha256:
            return []
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        written = []
        for file in () if self.installed else self.files:
            path = folder / file
            path.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(self.root / file, path)
            written.append(path)
        said = {"module": self.module, "function": self.function, "installed": self.installed}
        (folder / MANIFEST).write_text(json.dumps(said) + "\n", encoding="utf-8")
        return [*written, folder / MANIFEST]

    def load(self) -> Callable[..., Any]:
        """Import the function.

        Raises:
            BadInput: its module cannot be imported, or has no such function.
        """
        try:
            module = importlib.import_module(self.module if self.installed else f"{_package(self)}.{self.module}")
        except ImportError as error:
            missing = getattr(error, "name", None) or ""
            hint = "; install it" if isinstance(error, ModuleNotFoundError) and "_gs_search_" not in missing else ""
            raise BadInput(f"{self.where(error)}: {_brief(error)}{hint}") from error
        except (Exception, SystemExit) as error:  # whatever somebody's code raises
            raise BadInput(f"{self.where(error)}: raised {_brief(error)} when it was imported") from error
        found: Any = module
        for part in self.function.split("."):
            if not hasattr(found, part):
                own = [name for name, value in vars(found).items() if callable(value)]
                names = [name for name in own if getattr(vars(found)[name], "__module__", "") == module.__name__]
                near = difflib.get_close_matches(part, names, 1)
                what = f"did you mean {near[0]}?" if near else f"it has {', '.join(names[:SHOWN]) or 'no functions'}"
                raise BadInput(f"{self.module}: has no {self.function}; {what}")
            found = getattr(found, part)
        if not callable(found):
            raise BadInput(f"{self.name}: is a {type(found).__name__}, not a function or class")
        return found

    def where(self, error: BaseException) -> str:
        """The innermost line of the user's own files that an error passed, as ``my_net.py:12``; else the module."""
        if isinstance(error, SyntaxError) and error.filename:
            return f"{_short(Path(error.filename), self.root)}:{error.lineno}"
        own = {str(self.root / file) for file in self.files}
        for frame in reversed(traceback.extract_tb(error.__traceback__)):
            if frame.filename in own:
                return f"{_short(Path(frame.filename), self.root)}:{frame.lineno}"
        return self.module


def function_name(named: str) -> str:
    """Name a function without the folders that it lies in: ``my_net:build`` for ``./nets/my_net.py:build``.

    Raises:
        BadInput: it is no name of a function.
    """
    place, function = _split(named)
    path = Path(place)
    if not _is_path(place):
        module = place.rpartition(".")[2]
    else:
        module = path.parent.name if path.name == "__init__.py" else path.stem
    return f"{module}:{function}"


def find_code(named: str, folder: Path) -> UserCode:
    """Find a function and the files that it is made of, without running any.

    Args:
        named: ``package.module:function``, looked for in ``folder``, in the working folder and where Python looks; or
            ``my_net.py:function``, a path relative to ``folder``.

    Raises:
        BadInput: there is no such file or module, or one of the files is no Python.
    """
    place, function = _split(named)
    if _is_path(place):
        path = (folder / os.path.expandvars(Path(place).expanduser())).resolve()
        if not path.is_file():
            raise BadInput(f"no such file: {_short(path, Path.cwd())}")
        for place_of_copy in path.parents:  # as ``copy_to`` left it
            if (place_of_copy / MANIFEST).is_file():
                copied = copied_code(place_of_copy)
                if (copied.root / copied.named) == path.with_name(f"{path.name}:{function}"):
                    return copied
        root, module = _root_of(path)
        return _with_files(root, module, function, path, installed=_is_installed(path))
    if not re.fullmatch(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*", place):
        raise BadInput(f"{place!r} is neither a module (package.module) nor a file (my_net.py)")
    top = place.partition(".")[0]
    folders = [] if top == OWN else [folder.resolve(), Path.cwd().resolve()]
    if (elsewhere := _python_finds(top)) is not None:
        folders.append(elsewhere)
    for root in dict.fromkeys(folders):
        if (file := _file_of(root, place)) is not None:
            return _with_files(root, place, function, file, installed=_is_installed(file) or top == OWN)
    looked = ", ".join(_short(root, Path.cwd()) for root in dict.fromkeys(folders[:2]))
    raise BadInput(f"no module {place} in {looked}, nor where Python looks; name its file (./my_net.py:{function})")


def copied_code(folder: Path) -> UserCode:
    """The code that ``copy_to`` has left in a folder.

    Raises:
        BadInput: something is missing or damaged.
    """
    try:
        said = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        module, function, installed = said["module"], said["function"], bool(said["installed"])
    except (OSError, ValueError, TypeError, LookupError):
        raise BadInput(f"{folder}: the copied source of the generator is gone or damaged; restore it") from None
    if installed:
        return find_code(f"{module}:{function}", folder)
    if (path := _file_of(folder, module)) is None:
        raise BadInput(f"{folder}: the copied source of {module} is gone; restore it")
    return _with_files(folder.resolve(), module, function, path.resolve(), installed=False)


def _split(named: str) -> tuple[str, str]:
    found = SHAPE.fullmatch(named)
    if found is None:
        raise BadInput(f"{named!r} names no function: write package.module:function, or ./my_net.py:function")
    return found["place"], found["function"]


def _is_path(place: str) -> bool:
    return place.endswith(".py") or "/" in place


def _short(path: Path, folder: Path) -> str:
    relative = os.path.relpath(path, folder)
    return str(path) if relative.startswith("..") else relative


def _brief(error: BaseException) -> str:
    if isinstance(error, SyntaxError):
        return f"no valid Python: {error.msg}"
    return re.sub(r"_gs_search_\w+\.", "", one_line(error)).removeprefix("ModuleNotFoundError: ")


def _is_installed(path: Path) -> bool:
    if {"site-packages", "dist-packages"} & set(path.parts):
        return True
    return path.is_relative_to(Path(sysconfig.get_path("stdlib")).resolve())


def _python_finds(top: str) -> Path | None:
    """The folder in which Python would find a package or module of this name; it is not imported."""
    try:
        spec = importlib.util.find_spec(top)
    except (ImportError, ValueError):
        return None
    if spec is None:
        return None
    if spec.submodule_search_locations:
        return Path(next(iter(spec.submodule_search_locations))).resolve().parent
    return Path(spec.origin).resolve().parent if spec.origin and os.sep in spec.origin else None


def _file_of(root: Path, dotted: str) -> Path | None:
    place = root.joinpath(*dotted.split("."))
    return next((path for path in (place / "__init__.py", place.with_name(f"{place.name}.py")) if path.is_file()), None)


def _root_of(path: Path) -> tuple[Path, str]:
    """Folder and dotted name of a file that was named by its path: above its package, and above its ``from ..x``."""
    levels = [node.level for node in ast.walk(_parsed(path)) if isinstance(node, ast.ImportFrom)]
    parts, root = [path.stem], path.parent
    while (root / "__init__.py").is_file() or len(parts) <= max(levels, default=0):
        parts.insert(0, root.name)
        root = root.parent
    return root, ".".join(parts)


def _parsed(path: Path) -> ast.Module:
    try:
        return ast.parse(path.read_bytes(), filename=str(path))
    except (SyntaxError, ValueError) as error:
        line = f":{error.lineno}" if isinstance(error, SyntaxError) else ""
        said = error.msg if isinstance(error, SyntaxError) else error
        raise BadInput(f"{_short(path, Path.cwd())}{line}: no valid Python: {said}") from None
    except OSError as error:
        raise BadInput(f"{_short(path, Path.cwd())}: cannot be read: {error.strerror or error}") from None


def _with_files(root: Path, module: str, function: str, path: Path, *, installed: bool) -> UserCode:
    """Gather what the file imports of the user's own, and what that imports."""
    names = _Names(root, module)
    found: set[Path] = set()
    waiting = [path, *names.packages(module)]
    while waiting:
        file = waiting.pop()
        if file in found:
            continue
        found.add(file)
        dotted, package = names.of(file)
        for node in ast.walk(_parsed(file)):
            for target in names.imported(node, dotted, package=package):
                waiting += names.files(target)
    files = tuple(sorted(file.relative_to(root).as_posix() for file in found))
    return UserCode(root, module, function, files, installed)


class _Names:
    """Which imports mean files of the user's own.

    Args:
        root: see ``UserCode``.
        module: of the function; files beside it are found too, as when it is run as a script.
    """

    def __init__(self, root: Path, module: str) -> None:
        self.root = root
        self.beside = module.rpartition(".")[0]

    def of(self, file: Path) -> tuple[str, bool]:
        """Dotted name of a file, and whether it is a package's."""
        parts = list(file.relative_to(self.root).with_suffix("").parts)
        package = parts[-1] == "__init__"
        return ".".join(parts[:-1] if package else parts), package

    def files(self, dotted: str) -> Iterator[Path]:
        """The module's file, and those of the packages that it is in."""
        if (path := _file_of(self.root, dotted)) is not None:
            yield path
        yield from self.packages(dotted)

    def packages(self, dotted: str) -> Iterator[Path]:
        while dotted := dotted.rpartition(".")[0]:
            path = self.root.joinpath(*dotted.split("."), "__init__.py")
            if path.is_file():
                yield path

    def own(self, dotted: str) -> str | None:
        """The name below ``root`` of what an absolute import names, or None where it is not the user's own."""
        top = dotted.partition(".")[0]
        if top == OWN:
            return None
        for prefix in dict.fromkeys(("", f"{self.beside}." if self.beside else "")):
            if _file_of(self.root, prefix + top) is not None:
                return prefix + dotted
            inside = self.root.joinpath(*(prefix + top).split("."))
            if inside.is_dir() and _is_nobodys(top) and _holds(self.root, prefix + dotted):
                return prefix + dotted
        return None

    def imported(self, node: ast.AST, dotted: str, *, package: bool) -> Iterator[str]:
        """Names below ``root`` that a statement of the module ``dotted`` may import."""
        if isinstance(node, ast.Import):
            yield from (own for alias in node.names if (own := self.own(alias.name)) is not None)
        elif isinstance(node, ast.ImportFrom):
            base = self.base(node, dotted, package=package)
            if base:
                yield base
                yield from (f"{base}.{alias.name}".strip(".") for alias in node.names if alias.name != "*")

    def base(self, node: ast.ImportFrom, dotted: str, *, package: bool) -> str | None:
        """The name below ``root`` of what stands after ``from``."""
        if not node.level:
            first = f"{node.module}.{node.names[0].name}"
            found = self.own(node.module or "") or self.own(first)
            return found.removesuffix(f".{node.names[0].name}") if found and found.endswith(first) else found
        parts = dotted.split(".")
        kept = parts[: len(parts) - node.level + package]
        return ".".join([*kept, *([node.module] if node.module else [])])


def _holds(root: Path, dotted: str) -> bool:
    """Whether the name, or a part of it, is a file: a folder without ``__init__.py`` is a package by what is in it."""
    parts = dotted.split(".")
    return any(_file_of(root, ".".join(parts[:count])) is not None for count in range(2, len(parts) + 1))


@functools.cache
def _is_nobodys(top: str) -> bool:
    """Whether Python itself finds no regular package of this name, which would go before a mere folder."""
    if top in sys.builtin_module_names:
        return False
    try:
        spec = importlib.util.find_spec(top)
    except (ImportError, ValueError):
        return True
    return spec is None or spec.origin is None


class _Rewrite(ast.NodeTransformer):
    """Imports of the user's own files, from the package under which they are loaded."""

    def __init__(self, names: _Names, prefix: str) -> None:
        self._names, self._prefix = names, prefix

    def visit_Import(self, node: ast.Import) -> ast.AST:
        aliases = []
        for alias in node.names:
            own = self._names.own(alias.name)
            if own is None:
                aliases.append(alias)
                continue
            top = own.removesuffix(alias.name) + alias.name.partition(".")[0]
            if alias.asname is None and own != top:  # binds the first name, and imports the last
                aliases.append(ast.alias(f"{self._prefix}.{own}"))
            as_name = alias.asname or alias.name.partition(".")[0]
            aliases.append(ast.alias(f"{self._prefix}.{own if alias.asname else top}", as_name))
        return ast.copy_location(ast.Import(aliases), node)

    def visit_ImportFrom(self, node: ast.ImportFrom) -> ast.AST:
        base = None if node.level else self._names.base(node, "", package=False)
        if base is None:
            return node
        return ast.copy_location(ast.ImportFrom(f"{self._prefix}.{base}", node.names, 0), node)


class _Loader(importlib.machinery.SourceFileLoader):
    """Compiles with the imports rewritten, and leaves no bytecode beside the user's files."""

    def __init__(self, fullname: str, path: str, rewrite: _Rewrite) -> None:
        super().__init__(fullname, path)
        self._rewrite = rewrite

    def get_code(self, fullname: str) -> types.CodeType:
        path = self.get_filename(fullname)
        tree = ast.fix_missing_locations(self._rewrite.visit(ast.parse(self.get_data(path), filename=path)))
        code: types.CodeType = compile(tree, path, "exec", dont_inherit=True)
        return code


class _Finder:
    """Finds modules of one user's code below the package that holds it."""

    def __init__(self, prefix: str, names: _Names) -> None:
        self._prefix, self._names = prefix, names
        self._rewrite = _Rewrite(names, prefix)

    def find_spec(self, fullname: str, path: Sequence[str] | None, target: Any = None) -> Any:
        if not fullname.startswith(f"{self._prefix}."):
            return None
        dotted = fullname.removeprefix(f"{self._prefix}.")
        file = _file_of(self._names.root, dotted)
        if file is None:
            folder = self._names.root.joinpath(*dotted.split("."))
            if not folder.is_dir():
                return None
            spec = importlib.machinery.ModuleSpec(fullname, None, is_package=True)
            spec.submodule_search_locations = [str(folder)]
            return spec
        inside = [str(file.parent)] if file.name == "__init__.py" else None
        loader = _Loader(fullname, str(file), self._rewrite)
        return importlib.util.spec_from_file_location(fullname, file, loader=loader, submodule_search_locations=inside)


def _package(code: UserCode) -> str:
    """The name of the package below which the code is loaded, made where this process has none for it."""
    place = hashlib.sha256(f"{code.root}\0{code.module}\0{code.sha256}".encode()).hexdigest()
    name = f"_gs_search_{place[:16]}"
    if name not in sys.modules:
        package = types.ModuleType(name)
        package.__path__ = []
        sys.modules[name] = package
        sys.meta_path.insert(0, _Finder(name, _Names(code.root, code.module)))
    return name
