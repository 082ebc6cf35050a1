"""What a file is by its content, whatever its name says; nothing of it is unpacked or run."""

from __future__ import annotations

import re
import zipfile
from pathlib import Path

__all__ = ["LOOKED_AT", "SAVE", "is_safetensors", "no_checkpoint"]

LOOKED_AT = 4096
"""Bytes at the beginning of a file that are looked at."""

PICKLE = b"\x80"
"""How pickles begin, and with them PyTorch's files before version 1.6."""

SAVE = "save the generator's state_dict alone, best as .safetensors"

MAGIC = (
    (b"\x89PNG", "a PNG picture"),
    (b"\xff\xd8\xff", "a JPEG picture"),
    (b"\x1f\x8b", "a gzip archive; unpack it"),
    (b"BZh", "a bzip2 archive; unpack it"),
    (b"\xfd7zXZ", "an xz archive; unpack it"),
    (b"7z\xbc\xaf", "a 7-Zip archive; unpack it"),
    (b"Rar!", "a RAR archive; unpack it"),
    (b"%PDF", "a PDF document"),
    (b"\x89HDF", f"an HDF5 file (Keras); in PyTorch, {SAVE}"),
    (b"\x93NUMPY", f"a NumPy array; in PyTorch, {SAVE}"),
    (b"GGUF", f"a GGUF file of quantized weights; {SAVE}"),
)


def is_safetensors(head: bytes) -> bool:
    """Whether a file begins as safetensors: the length of a JSON object, and that object."""
    return len(head) > 9 and head[8:9] == b"{" and 2 <= int.from_bytes(head[:8], "little") < 100_000_000


def no_checkpoint(path: Path, head: bytes) -> str | None:
    """Say what a file is that is no checkpoint of weights, and what to do; None where it may be one.

    Args:
        head: its first ``LOOKED_AT`` bytes.
    """
    if not head:
        return "is empty; the download or the copy has failed"
    if head.startswith(b"version https://git-lfs"):
        size = re.search(rb"\nsize (\d+)", head)
        told = f" of {int(size[1]):,} bytes" if size else ""
        return f"is a Git LFS pointer to the file{told}, not the file; fetch that with git lfs pull"
    start = head.removeprefix(b"\xef\xbb\xbf").lstrip()
    if start[:1] == b"<" and re.match(rb"<(!doctype|html|head|body|\?xml|!--)", start.lower()):
        what = "an HTML page" if b"html" in start[:1000].lower() else "an XML document"
        return f"is {what}, as a failed download leaves it; open the address in a browser, and fetch the file itself"
    if head[4:8] == b"TFL3":
        return f"is a TensorFlow Lite file; in PyTorch, {SAVE}"
    if head[257:262] == b"ustar" and b"storages" not in head:
        return "is a tar archive; unpack it"
    for magic, what in MAGIC:
        if head.startswith(magic):
            return f"is {what}"
    if head.startswith(b"PK\x03\x04"):
        return _no_checkpoint_in_zip(path)
    if is_safetensors(head):
        return None
    if head[:1] == b"\x08" and re.search(rb"pytorch|onnx|tf2onnx|keras|ai\.onnx", head[:200]):
        return (
            "is an ONNX file, a graph without a PyTorch module; a function of yours may make one of it, by convert of "
            "onnx2torch, and a study takes that as teacher.kind module (README, Your own generator)"
        )
    if (text := _text(head, start)) is not None or head[:1] == PICKLE:
        return text
    return (
        f"is no checkpoint known here: neither a pickle, a zip archive nor safetensors (it begins {head[:4].hex(' ')})"
    )


def _text(head: bytes, start: bytes) -> str | None:
    try:
        text = head.decode("utf-8")
    except UnicodeDecodeError as error:
        if error.start < len(head) - 4:  # else a character that the end of the look has cut
            return None
        text = head[: error.start].decode("utf-8")
    if not all(letter.isprintable() or letter in "\r\n\t\f\ufeff" for letter in text):
        return None
    first = " ".join((start.decode("utf-8", "ignore").splitlines() or [""])[0].split())[:60]
    what = "a JSON document" if start[:1] in (b"{", b"[") else "a text file"
    return f"is {what} ({first!r}), not a file of weights"


def _no_checkpoint_in_zip(path: Path) -> str | None:
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError):
        return "is damaged or truncated: a PyTorch checkpoint (or another zip archive) without its end; fetch it again"
    inner = [name.partition("/")[2] or name for name in names]
    if any(name == "constants.pkl" or name.startswith("code/") for name in inner):
        return f"is a TorchScript archive, a program whose code would have to run; from the original network, {SAVE}"
    if any("serialized_exported_program" in name or name.startswith("models/") for name in inner):
        return (
            "is an exported program (torch.export), operations without layers; give the network's own code as "
            "teacher.kind module, and as its weights what torch.save makes of the program's state_dict"
        )
    if "data.pkl" in inner:
        return None
    if names and all(name.endswith(".npy") for name in names):
        return f"is an archive of NumPy arrays; in PyTorch, {SAVE}"
    first = f", {names[0]} first" if names else ""
    return f"is a zip archive of {len(names)} other files{first}; unpack it, and name the checkpoint in it"
