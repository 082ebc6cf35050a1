"""The model card: what a file is, how it was made, what it does, how to run it, in Markdown beside it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from gs_search.export.figures import FORMATS

__all__ = ["card"]

SIZED = ("executorch", "executorch-float", "coreml")
"""Formats that take one picture of one size."""

RUN = """\
```python
import numpy as np, onnxruntime
from PIL import Image

session = onnxruntime.InferenceSession("{file}", providers=["CPUExecutionProvider"])
photo = Image.open("photo.jpg").convert("RGB").resize(({side}, {side}))
x = np.asarray(photo, np.float32).transpose(2, 0, 1)[None] / 127.5 - 1
y = session.run(None, {{"picture": x}})[0][0]
y = (np.clip(y, -1, 1) * 127.5 + 128).clip(0, 255).astype(np.uint8)
Image.fromarray(y.transpose(1, 2, 0)).save("painted.png")
```
"""

RUN_PROGRAM = """\
```python
import numpy as np, torch
from executorch.runtime import Runtime
from PIL import Image

program = Runtime.get().load_program("{file}")
photo = Image.open("photo.jpg").convert("RGB").resize(({side}, {side}))
x = torch.from_numpy(np.asarray(photo, np.float32).transpose(2, 0, 1)[None] / 127.5 - 1).contiguous()
(y,) = program.load_method("forward").execute([x])
y = (y[0].clamp(-1, 1) * 127.5 + 128).clip(0, 255).byte()
Image.fromarray(y.permute(1, 2, 0).numpy()).save("painted.png")
print(program.load_method("about").execute([])[0])
```
"""

RUN_PACKAGE = """\
Converted, not run here: prediction needs macOS 13 or iOS 16. Nothing but the file's content has been checked.

```python
import coremltools, numpy as np
from PIL import Image

model = coremltools.models.MLModel("{file}")
photo = Image.open("photo.jpg").convert("RGB").resize(({side}, {side}))
x = np.asarray(photo, np.float32).transpose(2, 0, 1)[None] / 127.5 - 1
y = model.predict({{"picture": x}})["painted"][0]
```
"""


def card(document: Mapping[str, Any]) -> str:
    """The card of a document's first file."""
    (entry,) = document["files"]
    texts, teacher = document["notes"], document["teacher"]
    protocol = json.loads(texts["protocol"])
    lines = [
        f"# {entry['file']}",
        "",
        f"An image-to-image generator of the study `{texts['study']}` ({texts['student']}), made smaller by GAN "
        f"Slimming: {FORMATS[entry['format']]}.",
        "",
        "| | this file | the dense teacher |",
        "|---|---|---|",
        f"| FID ({protocol['pictures']} pictures of {protocol['image_px']} px, protocol {protocol['id']}) "
        f"| {entry['fid']:.2f} | {teacher['fid']:.2f} |",
        f"| GFLOPs at {document['image_px']} px (10^9 multiply-adds, as fvcore counts the network) "
        f"| {document['gflops']:.4g} | {teacher['gflops']:.4g} |",
        f"| MB (10^6 bytes) | {entry['bytes'] / 1e6:.4g} | {teacher['size_mb']:.4g} |",
    ]
    if entry["format"] == "coreml":
        lines[-3] = lines[-3].replace("| FID (", "| FID of the same network in floats, not of this file (")
    lines += _costs(entry, document)
    noise = document.get("noise", {}).get("fid_std")
    if noise is not None:
        lines += ["", f"Chance alone moves a FID of this protocol by about {noise:.2g} (one standard deviation)."]
    lines += ["", "## How to run it", ""]
    if entry["format"] == "packed":
        own = ", generator" if "factory" in json.loads(texts.get("teacher", "{}")) else ""  # its code is the user's
        lines += ["```python", "from gs_search.slimming import load_student"]
        lines += [f'load_student("{entry["file"]}"{own})', "```"]
    elif entry["format"] in SIZED:
        side = document["sides"] if document["sides"] != "free" else document["image_px"]
        run = RUN_PACKAGE if entry["format"] == "coreml" else RUN_PROGRAM
        lines += [f"One picture at once, RGB, {side} x {side}: the size is fixed.", ""]
        lines += [run.format(file=entry["file"], side=side).rstrip()]
    else:
        side = document["sides"] if document["sides"] != "free" else document["image_px"]
        free = " (any multiple of what the network halves)" if document["sides"] == "free" else ""
        lines += [
            f"Any number of pictures at once, RGB, {side} x {side}{free}. Only ONNX Runtime 1.20 or later is needed.",
            "",
        ]
        lines += [RUN.format(file=entry["file"], side=side).rstrip()]
    lines += ["", "## Proof", "", *_proof(entry)]
    lines += ["", "## Where it comes from", "", "| | |", "|---|---|"]
    lines += [f"| {name} | {_cell(value)} |" for name, value in texts.items()]
    return "\n".join(lines) + "\n"


def _costs(entry: Mapping[str, Any], document: Mapping[str, Any]) -> list[str]:
    rows = []
    program = entry["format"].startswith("executorch")
    name = {"onnx": "integer", "onnx-float": "float"}.get(entry["format"].replace("executorch", "onnx"))
    latency = document["latency_executorch" if program else "latency"]
    for threads, found in latency["threads"].items():
        if name in found["ms"]:
            many = "thread" if threads == "1" else "threads"
            rows.append(
                f"| ms for one picture of {latency['image_px']} px, {threads} {many} | {found['ms'][name]:.3g} "
                + (f"| {found['ms']['teacher']:.3g} |" if "teacher" in found["ms"] else "| |")
            )
    if "peak_memory_mb" in entry:
        rows.append(f"| MB of memory that running it adds | {entry['peak_memory_mb']:.0f} | |")
    if latency["contended"]:
        rows.append("")
        rows.append(
            f"The machine was busy while the milliseconds were taken (load {latency['load']:g}): trust ratios only."
        )
    return rows


def _proof(entry: Mapping[str, Any]) -> list[str]:
    proof = entry["proof"]
    if entry["format"] == "packed":
        return ["The file that the trial was measured on."]
    if entry["format"] == "onnx-float":
        return [f"Its pictures agree with torch's to {proof['psnr_to_torch']:.0f} dB."]
    if entry["format"] == "coreml":
        return [
            f"- Read back: {proof['weights']} of {proof['expected']} weights are the student's own codes and steps.",
            "- Not run. It computes in 16-bit floats and does not round activations.",
        ]
    lines = []
    if entry["format"] in SIZED:
        outside = ", ".join(proof["outside"]) or "none"
        lines = [f"- Delegates of XNNPACK: {len(proof['delegates'])}; operators outside: {outside}."]
    if entry["format"] == "executorch-float":
        return [*lines, f"- Its pictures agree with torch's to {proof['psnr_to_torch']:.0f} dB."]
    if entry["format"] == "executorch":
        graph, runtime = proof, "each reads and writes bytes in the delegate's graph"
    else:
        graph, runtime = proof["graph"], "QLinearConv in the graph that ONNX Runtime makes of the file"
    layers = proof["layers"]
    worst = max(layers, key=lambda layer: layer["differing"])
    exceptions = f"; float: {', '.join(graph['exceptions'])}" if graph["exceptions"] else ""
    if graph.get("saturating"):
        lines = [
            f"- For processors with VNNI instructions: weights of {len(graph['saturating'])} convolutions are signed, "
            "and their sums saturate on other x86 processors. There, open it with the session option "
            '`session.x64quantprecision = "1"`, or export without `--vnni`.'
        ]
    elif "unsigned" in graph:
        signed = graph["integer"] - len(graph["unsigned"])
        lines = [
            "- The same on every x86 processor, with VNNI instructions or without, in a plain session without options: "
            f"weights of {len(graph['unsigned'])} convolutions are unsigned bytes, for which kernels do not saturate; "
            f"those of {signed} are signed, and no two of their products exceed 16 bits."
        ]
    return [
        *lines,
        f"- {graph['integer']} of {graph['expected'] + len(graph['exceptions'])} convolutions run in whole numbers "
        f"({runtime}){exceptions}.",
        "- Each alone, fed what the student feeds to it, gives the student's codes: at worst "
        f"{100 * worst['differing']:.4f} % differ ({worst['name']}), by {max(one['largest'] for one in layers)} step.",
        f"- Distance to the float network's pictures{_on(proof)}: {proof['psnr']:.2f} dB; of the student on the same "
        f"grids {proof['psnr_of_grids']:.2f} dB, of the student as it was trained {proof['psnr_of_student']:.2f} dB.",
        f"- Not trained but calibrated on training pictures: {_summary(entry['calibrated'])}.",
    ]


def _on(proof: Mapping[str, Any]) -> str:
    return f", on {proof['psnr_pictures']} of them" if "psnr_pictures" in proof else ""


def _summary(calibrated: list[str]) -> str:
    kinds = [line.rpartition(": ")[2] for line in calibrated]
    parts = [f"{kinds.count(kind)} {kind}s" for kind in ("weight", "input", "output") if kind in kinds]
    return "the ranges of " + ", ".join(parts) if parts else "nothing"


def _cell(value: str) -> str:
    return " ".join(value.replace("|", "\\|").split())
