"""From a student to files for devices: written, proven, measured, and only then named.

Files are drafted in a hidden folder beside their place. What the proof refuses is deleted with it; what it lets
through gets its name, a model card and a JSON of all figures.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import onnx
from torch import Tensor, nn

from gs_search.errors import BadInput
from gs_search.export.build import IntegerModel, add_metadata, float_model, integer_model
from gs_search.export.coreml import package_bytes
from gs_search.export.device_files import DEVICE_FORMATS, DeviceFiles, import_runtimes
from gs_search.export.executorch.program import peak_memory_mb as program_memory_mb
from gs_search.export.figures import FORMATS, SUFFIXES, file_stem, problems_of
from gs_search.export.lowering import lower
from gs_search.export.measure import latencies, picture_figures
from gs_search.export.model_card import card
from gs_search.export.onnx.float_graph import import_onnx, set_sides
from gs_search.export.onnx.proof import check_floats, check_graph, check_layers
from gs_search.export.onnx.runtime import peak_memory_mb, run_pictures, session
from gs_search.export.progress import in_parallel, one_thread, progress
from gs_search.export.student import Chosen, notes
from gs_search.measure.flops import count_flops
from gs_search.measure.psnr import psnr
from gs_search.results.run_folder import RunFolder
from gs_search.slimming.layers import slimmable
from gs_search.system.files import draft_of, write_json, write_text
from gs_search.trial.assets import TrialAssets, paint
from gs_search.trial.teacher import saved_generator

__all__ = ["export_student", "teacher_file"]

SCHEMA = 1

CHECKED_PICTURES = 4
"""Validation pictures on which every layer is compared."""

COMPARED_PICTURES = 33
"""Validation pictures, about, on which whole networks are compared, all on the same ones.

(A CartoonGAN student: 31.34 dB on 34 pictures, its grids 31.36; on a hundred 31.45 and 31.47.)"""

ROUNDS = 15
"""Pictures behind a latency."""

MIN_PX = 16
"""Smallest pictures; in smaller ones mirrored margins are larger than the picture."""

EQUAL_DB = 200.0
"""Said of pictures that are equal."""

TEACHER = "teacher.onnx"

MEMORY = {".onnx": peak_memory_mb, ".pte": program_memory_mb}
"""What tells a file's memory, by its suffix; what is missing here cannot be run."""


def export_student(
    folder: RunFolder,
    chosen: Chosen,
    formats: Sequence[str] = ("onnx", "onnx-float"),
    *,
    image_px: int | None = None,
    out: Path | None = None,
    licence: str | None = None,
    vnni: bool = False,
    rounds: int = ROUNDS,
    log: Callable[[str], None] = lambda line: None,
) -> dict[str, Any]:
    """Write a student's files, prove and measure them.

    Args:
        formats: names of ``FORMATS``.
        image_px: fixed side of the pictures that the files take; None leaves the sides of ONNX files free, and gives
            the others, which cannot, the study's.
        out: folder for the files; the run folder's ``exports/`` if not given.
        licence: of the teacher, in words; goes into the files.
        vnni: weights of the integer ONNX file are signed throughout: faster where a processor has VNNI, wrong on other
            x86 ones.
        rounds: pictures behind each latency.
        log: gets one line a step.

    Returns:
        ``files``: one entry each, with ``file`` (None where the proof has failed), ``bytes``, ``fid``, ``proof``,
        ``problems``; ``latency``; ``ok`` and the rest. JSON can hold it.

    Raises:
        BadInput: a format or size that cannot be, a run folder that was not prepared, the extra is missing.
        UnsupportedNetwork: the student cannot be exported.
    """
    with one_thread():
        return _export(folder, chosen, formats, image_px, out, licence, vnni, rounds, log)


def _export(
    folder: RunFolder,
    chosen: Chosen,
    formats: Sequence[str],
    image_px: int | None,
    out: Path | None,
    licence: str | None,
    vnni: bool,
    rounds: int,
    log: Callable[[str], None],
) -> dict[str, Any]:
    import_onnx()
    if unknown := [name for name in formats if name not in FORMATS]:
        raise BadInput(f"--format: {unknown[0]}: no such format; there are {', '.join(FORMATS)}")
    import_runtimes(formats)
    if not folder.baselines.is_file():
        raise BadInput(f"{folder.path}: this study has not been prepared; `gs-search run` does it")
    config = folder.config()
    ground = TrialAssets.of(folder, config)
    multiple = ground.architecture.picture_multiple
    if image_px is not None and (image_px < MIN_PX or image_px % multiple):
        raise BadInput(f"--size: must be free or a multiple of {multiple} from {MIN_PX} on, not {image_px}")
    place = out or folder.exports
    place.mkdir(parents=True, exist_ok=True)
    texts = notes(folder, chosen, licence)
    student = ground.load_student(chosen.file)
    document: dict[str, Any] = {
        "schema": SCHEMA,
        "student": {"trial": chosen.number, "kind": chosen.kind},
        "notes": texts,
        "image_px": config.image_px,
        "sides": "free" if image_px is None else image_px,
        "picture_multiple": multiple,
        "vnni": vnni,
        "objectives": chosen.result.values,
        "gflops": count_flops(student, config.image_px).macs / 1e9,
        "teacher": ground.baselines.teacher.to_json(),
        "noise": ground.baselines.noise.to_json(),
    }
    with _drafts(place) as drafts:
        log("the teacher's float network")
        paths = {"float": drafts / "float.onnx", "teacher": teacher_file(folder, ground, place, texts)}
        log("the student's float network")
        _save(float_model(student, multiple, config.image_px), paths["float"], texts)
        float_entry, float_pictures = _float_entry(student, paths["float"], ground, log)
        entries = [float_entry]
        built = None
        if {"onnx", "executorch", "coreml"} & set(formats):
            log("the whole numbers, calibrated where the student leaves them open")
            pictures = ground.targets.pictures.cpu()
            tick = progress(log, "looks at calibration pictures", 2 * len(pictures))
            built = integer_model(student, pictures, multiple, config.image_px, tick, vnni)
        if built is not None and "onnx" in formats:
            paths["integer"] = drafts / "integer.onnx"
            _save(built.model, paths["integer"], texts)
            entries.append(_integer_entry(student, built, paths["integer"], float_pictures, ground, log, vnni))
        if "packed" in formats:
            paths["packed"] = drafts / "student.safetensors"
            shutil.copyfile(chosen.file, paths["packed"])
            entries.append(_packed_entry(paths["packed"], chosen, ground))
        if wanted := set(formats) & set(DEVICE_FORMATS):
            files = DeviceFiles(
                student,
                built,
                ground,
                multiple=multiple,
                image_px=image_px or config.image_px,
                texts=texts,
                place=drafts,
                log=log,
            )
            entries += _device_entries(files, wanted, entries[0])
            if wanted != {"coreml"}:
                document["latency_executorch"] = files.latencies(rounds)
        document["files"] = [entry for entry in entries if entry["format"] in formats]
        if image_px is not None:
            for path in (paths["float"], paths.get("integer")):
                if path is not None:
                    _fix_sides(path, image_px)
        runnable = {name: path for name, path in paths.items() if name != "packed"}
        log(f"latency of {len(runnable)} files, in turn")
        document["latency"] = latencies(runnable, image_px or config.image_px, rounds=rounds)
        sources = {entry["format"]: drafts / entry.pop("draft") for entry in document["files"]}
        for entry in document["files"]:
            draft = sources[entry["format"]]
            entry["bytes"] = package_bytes(draft) if draft.is_dir() else draft.stat().st_size
            if draft.suffix in MEMORY:
                entry["peak_memory_mb"] = MEMORY[draft.suffix](draft, image_px or config.image_px)
            entry["problems"] = problems_of(entry)
            entry["file"] = None
        document["float_bytes"] = paths["float"].stat().st_size
        document["teacher_bytes"] = paths["teacher"].stat().st_size
        document["ok"] = not any(entry["problems"] for entry in document["files"])
        _hand_over(folder, document, sources, place)
    return document


def teacher_file(folder: RunFolder, ground: TrialAssets, place: Path, texts: dict[str, str]) -> Path:
    """The dense teacher as a float ONNX file with free sides, made where it is not there yet."""
    path = place / TEACHER
    wanted = {
        name: texts[name]
        for name in ("study", "protocol", "teacher", "teacher_licence", "gs_search", "input", "output")
    }
    if path.is_file():
        try:
            held = {entry.key: entry.value for entry in onnx.load(path).metadata_props}
        except Exception as error:  # protobuf has no exception of its own for a torn file
            held = {"damaged": str(error)}
        if held == wanted:
            return path
    generator, architecture = saved_generator(folder.generator, folder.source)
    image_px = folder.config().image_px
    with draft_of(path) as draft:
        _save(float_model(slimmable(generator).eval(), architecture.picture_multiple, image_px), draft, wanted)
    return path


def _float_entry(
    student: nn.Module, path: Path, ground: TrialAssets, log: Callable[[str], None]
) -> tuple[dict[str, Any], Tensor]:
    """What the float file is worth, and its pictures of all of the validation's."""
    log("FID of the float file")
    painted, figures = _pictures_and_figures(path, ground, log)
    entry = {
        "format": "onnx-float",
        "draft": path.name,
        **figures,
        "proof": {"psnr_to_torch": _decibels(_some(painted), _paint(lower(student), ground))},
    }
    return entry, painted


def _integer_entry(
    student: nn.Module,
    built: IntegerModel,
    path: Path,
    float_pictures: Tensor,
    ground: TrialAssets,
    log: Callable[[str], None],
    vnni: bool,
) -> dict[str, Any]:
    log("proof: the graph that runs, and layer by layer against the student")
    graph = check_graph(path)
    few = ground.validation[:CHECKED_PICTURES].float() / 127.5 - 1.0
    layers = check_layers(path, built.reference, few, progress(log, "layers", len(built.reference.outputs)))
    log("FID of the integer file")
    painted, figures = _pictures_and_figures(path, ground, log)
    log("its pictures beside the student's")
    floats = _some(float_pictures)
    with built.reference.on_grids() as on_grids:
        of_grids = _paint(on_grids, ground)
    proof = {
        "graph": {
            "integer": graph.integer,
            "expected": len(built.reference.outputs),
            "floats": list(graph.floats),
            "exceptions": list(built.floats),
            "operators": dict(graph.operators),
            "unsigned": list(graph.unsigned),
            "saturating": list(graph.saturating),
            "vnni": vnni,
        },
        "layers": [layer.to_json() for layer in layers],
        "tensors_missing": check_floats(path, built.lowered, set(built.integer_tensors)),
        "psnr_pictures": len(floats),
        "psnr": _decibels(_some(painted), floats),
        "psnr_of_grids": _decibels(of_grids, floats),
        "psnr_of_student": _decibels(_paint(student, ground), floats),
    }
    entry = {"format": "onnx", "draft": path.name, **figures, "proof": proof}
    return entry | {"calibrated": list(built.calibrated)}


def _pictures_and_figures(
    path: Path, ground: TrialAssets, log: Callable[[str], None]
) -> tuple[Tensor, dict[str, float]]:
    total = len(ground.validation)
    painted = run_pictures(session(path), ground.validation, progress(log, "pictures painted", total))
    return painted, picture_figures(painted, ground, progress(log, "pictures described", total))


def _some(pictures: Tensor) -> Tensor:
    """Those on which networks are compared as wholes, evenly spread."""
    return pictures[:: max(1, len(pictures) // COMPARED_PICTURES)]


def _paint(network: nn.Module, ground: TrialAssets) -> Tensor:
    """What a network makes of ``_some`` validation pictures."""
    return in_parallel(lambda chunk: paint(network, chunk), _some(ground.validation), lambda done: None)


def _packed_entry(path: Path, chosen: Chosen, ground: TrialAssets) -> dict[str, Any]:
    ground.load_student(path)
    result = chosen.result
    figures = {"fid": result.fid, "kid": result.kid, "psnr_to_teacher": result.psnr_to_teacher}
    return {"format": "packed", "draft": path.name, **figures, "proof": {}}


def _device_entries(files: DeviceFiles, wanted: set[str], of_float: dict[str, Any]) -> list[dict[str, Any]]:
    entries = []
    if {"executorch", "executorch-float"} & wanted:  # whole numbers are timed against floats
        entries.append(files.float_program())
    if "executorch" in wanted:
        entries.append(files.program())
    if "coreml" in wanted:
        entries.append(files.package({name: of_float[name] for name in ("fid", "kid", "psnr_to_teacher")}))
    return entries


def _hand_over(folder: RunFolder, document: dict[str, Any], sources: Mapping[str, Path], place: Path) -> None:
    """Give the proven files their names, the document and a card beside each."""
    study = document["notes"]["study"]
    for entry in document["files"]:
        if not entry["problems"]:
            kind = "onnx-vnni" if document["vnni"] and entry["format"] == "onnx" else entry["format"]
            stem = file_stem(study, kind, entry["fid"], document["gflops"], entry["bytes"] / 1e6)
            entry["file"] = stem + SUFFIXES[entry["format"]]
    for entry in document["files"]:
        if entry["file"] is not None:
            path = place / entry["file"]
            own = {**document, "files": [entry], "others": [e["file"] for e in document["files"] if e is not entry]}
            write_text(path.with_name(f"{path.name}.md"), card(own))
            write_json(path.with_name(f"{path.name}.json"), own)
            if path.is_dir():  # a package of the same name, which cannot be replaced in one step
                shutil.rmtree(path)
            sources[entry["format"]].replace(path)  # last: it is what people take


def _decibels(a: Tensor, b: Tensor) -> float:
    return min(psnr(a, b), EQUAL_DB)


def _save(model: onnx.ModelProto, path: Path, texts: dict[str, str]) -> None:
    add_metadata(model, texts)
    onnx.save(model, path)


def _fix_sides(path: Path, image_px: int) -> None:
    model = onnx.load(path)
    set_sides(model, image_px)
    onnx.save(model, path)


@contextmanager
def _drafts(place: Path) -> Iterator[Path]:
    drafts = place / f".draft-{os.getpid()}"
    drafts.mkdir()
    try:
        yield drafts
    finally:
        shutil.rmtree(drafts, ignore_errors=True)
