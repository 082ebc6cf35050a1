"""onnxruntime-web, which runs the files in a browser: fetched once from its npm package into a cache, then local.

The version and the SHA-512 of its package are pinned here, so that it does not matter which registry hands it over.
"""

from __future__ import annotations

import base64
import hashlib
import io
import json
import os
import shutil
import subprocess
import tarfile
import tempfile
import urllib.request
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from urllib.error import HTTPError
from urllib.parse import urlsplit

from gs_search.errors import BadInput, GsSearchError
from gs_search.system.files import cache_folder

__all__ = ["FILES", "INTEGRITY", "PACKAGE", "VERSION", "Runtime", "cache_folder", "fetch_runtime", "find_runtime"]

PACKAGE, VERSION = "onnxruntime-web", "1.30.0"

INTEGRITY = "sha512-q0y+JrrtukXSzsBWEMccVfqX25LRmosXHF+CaRJmg8pZClzcV7svNc4rKY3jL02Vb7QmRMDs1SigqR4CXAfKYQ=="
"""Of the package, as npm writes it: in its registry, in lock files."""

PUBLIC_REGISTRY = "https://registry.npmjs.org/"

FILES = (
    "ort.wasm.min.mjs", "ort-wasm-simd-threaded.mjs", "ort-wasm-simd-threaded.wasm",
    "ort.webgpu.min.mjs", "ort-wasm-simd-threaded.asyncify.mjs", "ort-wasm-simd-threaded.asyncify.wasm",
)  # fmt: skip
"""What the page loads of it: three files for processors, three for WebGPU; 41 MB of 200."""

MANIFEST = "manifest.json"
MOST_BYTES = 200_000_000
"""No package is larger; a server that never ends is not waited for."""
TIMEOUT_S = 60
COMMAND = "gs-search phone --fetch-runtime"


@dataclass(frozen=True)
class Runtime:
    """The files of onnxruntime-web in the cache.

    Attributes:
        version: of the package.
        folder: has ``FILES``.
    """

    version: str
    folder: Path


def find_runtime() -> Runtime:
    """The runtime in the cache, every byte of it as it was fetched.

    Raises:
        BadInput: it is not there, or damaged; the message has the command that fetches it.
    """
    folder = _place()
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        hashes = {name: manifest["sha256"][name] for name in FILES}
    except FileNotFoundError:
        raise BadInput(
            f"{folder}: {PACKAGE} {VERSION}, which runs files in a browser, is not there yet; `{COMMAND}` fetches it, "
            "once (33 MB from npm's registry)"
        ) from None
    except (OSError, ValueError, TypeError, KeyError):
        raise BadInput(f"{folder}: damaged; `{COMMAND}` fetches {PACKAGE} again") from None
    for name, digest in hashes.items():
        if _sha256(folder / name) != digest:
            raise BadInput(f"{folder / name}: damaged or missing; `{COMMAND}` fetches {PACKAGE} again")
    return Runtime(VERSION, folder)


def fetch_runtime(log: Callable[[str], None] = lambda line: None) -> Runtime:
    """Fetch the package from the registry that npm is set to, unless it is there; keep ``FILES`` of it.

    Raises:
        GsSearchError: it cannot be had, or what came is not the pinned package; the cache is as it was.
    """
    with suppress(BadInput):
        return find_runtime()
    base = registry()
    log(f"fetching {PACKAGE} {VERSION}")
    described = _read(f"{base}{PACKAGE}/{VERSION}", most=1_000_000)
    try:
        place = str(json.loads(described)["dist"]["tarball"])
    except (ValueError, TypeError, KeyError):
        raise GsSearchError(
            f"npm's registry does not describe {PACKAGE} {VERSION}; is it a registry of npm's?"
        ) from None
    if place.startswith(PUBLIC_REGISTRY):
        place = base + place[len(PUBLIC_REGISTRY) :]  # as npm does: mirrors hand on the public one's description
    install(_read(place, most=MOST_BYTES))
    return find_runtime()


def install(package: bytes) -> None:
    """Check a package file and take ``FILES`` out of it into the cache, all or none.

    Raises:
        GsSearchError: it is not the pinned package.
    """
    found = "sha512-" + base64.b64encode(hashlib.sha512(package).digest()).decode("ascii")
    if found != INTEGRITY:
        raise GsSearchError(
            f"what came is not {PACKAGE} {VERSION}: its SHA-512 differs from the pinned one ({len(package):,} bytes); "
            "nothing was kept"
        )
    final = _place()
    try:
        final.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".draft-", dir=final.parent) as draft:
            content = Path(draft) / "content"
            content.mkdir()
            with tarfile.open(fileobj=io.BytesIO(package), mode="r:gz") as archive:
                for name in FILES:
                    stored = archive.extractfile(f"package/dist/{name}")
                    if stored is None:
                        raise KeyError(name)
                    (content / name).write_bytes(stored.read())
            hashes = {name: _sha256(content / name) for name in FILES}
            manifest = {"package": PACKAGE, "version": VERSION, "integrity": INTEGRITY, "sha256": hashes}
            (content / MANIFEST).write_text(json.dumps(manifest, indent=1) + "\n", encoding="utf-8")
            shutil.rmtree(final, ignore_errors=True)
            content.replace(final)
    except (KeyError, tarfile.TarError) as error:
        raise GsSearchError(f"{PACKAGE} {VERSION}: the package lacks what it should have ({error})") from None
    except OSError as error:
        raise GsSearchError(f"{final}: cannot be written ({error.strerror or error}); set GS_SEARCH_CACHE") from None


def registry() -> str:
    """The address of the registry that npm is set to, with a slash at its end; the public one without npm."""
    for name in ("NPM_CONFIG_REGISTRY", "npm_config_registry"):
        if told := os.environ.get(name):
            return _address(told)
    if npm := shutil.which("npm"):
        command = [npm, "config", "get", "registry"]
        with suppress(OSError, subprocess.SubprocessError):
            done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S, check=True)
            if urlsplit(done.stdout.strip()).scheme in ("http", "https"):
                return _address(done.stdout)
    return PUBLIC_REGISTRY


def _address(told: str) -> str:
    return told.strip().rstrip("/") + "/"


def _read(address: str, *, most: int) -> bytes:
    """Read an address of the web."""
    if urlsplit(address).scheme not in ("http", "https"):
        raise GsSearchError(f"npm's registry names {address[:80]!r}, which is no address of the web")
    host = urlsplit(address).hostname  # without a password that may stand before it
    try:
        with urllib.request.urlopen(address, timeout=TIMEOUT_S) as answer:
            content = bytes(answer.read(most + 1))
    except (OSError, ValueError, HTTPException) as error:
        reason = " ".join(str(error if isinstance(error, HTTPError) else getattr(error, "reason", error)).split())
        if isinstance(error, HTTPError):
            error.close()
        raise GsSearchError(
            f"{PACKAGE} cannot be fetched from {host} ({reason[:160]}); `npm config get registry` tells the registry, "
            "NPM_CONFIG_REGISTRY names another one"
        ) from None
    if len(content) > most:
        raise GsSearchError(f"{host} sends more than {PACKAGE} can be; nothing was kept")
    return content


def _place() -> Path:
    return cache_folder() / f"{PACKAGE}-{VERSION}"


def _sha256(path: Path) -> str | None:
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError:
        return None
