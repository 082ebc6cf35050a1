"""Exported files by hand, a runtime by hand, and, for the browser, real ones."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from gs_search.errors import GsSearchError
from gs_search.phone import runtime
from gs_search.phone.app import PhoneApp
from gs_search.phone.models import Model
from gs_search.results.run_folder import RunFolder
from gs_search.web.gate import Gate
from tests.phone.opened import PX, UNSEEN, Files, Phone
from tests.synthetic_run import write_run
from tests.web.asking import serving


def export_by_hand(folder: RunFolder, trial: int, format: str = "onnx", *, when: int = 0, **more: Any) -> Path:
    """Leave a file and its JSON as ``gs-search export`` does; ``when`` orders them in time."""
    path = folder.exports / f"quickstart{'-float' if format == 'onnx-float' else ''}@fid{trial}.0.onnx"
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(b"not really one")
    document = {
        "schema": 1,
        "student": {"trial": trial, "kind": "trial"},
        "gflops": 0.0144,
        "picture_multiple": 8,
        "files": [{"format": format, "file": path.name, "fid": 100.0 + trial}],
    }
    path.with_name(f"{path.name}.json").write_text(json.dumps(document | more))
    os.utime(path, (1_700_000_000 + when, 1_700_000_000 + when))
    return path


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    """A run folder of three trials, in which nothing has been exported."""
    return write_run(tmp_path / "run", trials=3, failures=False)


@pytest.fixture
def stub_runtime(tmp_path: Path) -> runtime.Runtime:
    """Files of the right names."""
    place = tmp_path / "runtime"
    place.mkdir()
    for name in runtime.FILES:
        (place / name).write_bytes(f"content of {name}".encode())
    return runtime.Runtime("1.2.3", place)


@pytest.fixture
def app(folder: RunFolder, stub_runtime: runtime.Runtime) -> PhoneApp:
    """The page of a student and its teacher."""
    student = Model(export_by_hand(folder, 1), "trial 1", "whole numbers", 1, 101.0, 0.0144, 8)
    teacher = Model(folder.exports / "teacher.onnx", "teacher", "floats")
    teacher.file.write_bytes(b"the teacher")
    return PhoneApp(student, stub_runtime, study="a <study> & more", image_px=64, teacher=teacher)


@pytest.fixture(scope="session")
def files(tmp_path_factory: pytest.TempPathFactory) -> Files:
    onnx = pytest.importorskip("onnx", reason=f"the extra 'export' is not installed: {UNSEEN}")
    pytest.importorskip("onnxscript", reason=f"the extra 'export' is not installed: {UNSEEN}")
    from gs_search.export.build import float_model, integer_model
    from gs_search.export.onnx.float_graph import set_sides
    from tests.export.students import pictures, rounded_student

    student = rounded_student("cyclegan", weight_bits=4)
    place = tmp_path_factory.mktemp("exported")
    found = Files(*(place / f"{name}.onnx" for name in ("integer", "floats", "fixed")))
    onnx.save(integer_model(student, pictures(4), multiple=4, image_px=PX).model, found.integer)
    model = float_model(student, 4, PX)
    onnx.save(model, found.floats)
    set_sides(model, PX)
    onnx.save(model, found.fixed)
    return found


@pytest.fixture(scope="session")
def fetched() -> runtime.Runtime:
    try:
        return runtime.fetch_runtime()
    except GsSearchError as error:
        pytest.skip(f"{UNSEEN}: {error}")


@pytest.fixture
def open_phone(browser: Any, fetched: runtime.Runtime) -> Callable[..., Any]:
    @contextmanager
    def opened(student: Path, teacher: Path | None = None, host: str = "127.0.0.1", **more: Any) -> Iterator[Phone]:
        other = None if teacher is None else Model(teacher, "teacher", "floats", fid=61.4, gflops=0.4181)
        model = Model(student, "trial 7", "whole numbers", 7, 72.5, 0.0312, 4)
        app = PhoneApp(model, fetched, study="quickstart", image_px=PX, teacher=other)
        token = None if host == "127.0.0.1" else "a-token-of-this-test"
        context = browser.new_context(
            **{"viewport": {"width": 390, "height": 844}, "has_touch": True, "is_mobile": True} | more
        )
        with serving(lambda port: Gate(app, port=port, verb="phone", token=token), host) as address:
            try:
                yield Phone(context, address + (f"?token={token}" if token else ""))
            finally:
                context.close()

    return opened
