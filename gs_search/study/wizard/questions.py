"""The questions of ``gs-search init``: each says what its answer means, and has a default."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol, TypeVar

from gs_search.errors import BadInput
from gs_search.study.wizard.draft import Wishes, describe, make_plan, name_from, name_problem, recognise

__all__ = ["Prompt", "ask"]

T = TypeVar("T")


class Prompt(Protocol):
    """Asks for one line; an empty answer gives the default."""

    def __call__(self, question: str, default: str) -> str: ...


def ask(given: Wishes, out: Path, prompt: Prompt, say: Callable[[str], None], *, force: bool = False) -> Wishes:
    """Ask for what the options have left open.

    Args:
        given: what the options said; it is not asked again.
        out: folder below which the study is to lie.
        prompt: asks.
        say: shows a line of explanation, or what is wrong with an answer.
        force: whether the name may be that of a study that is there.
    """

    def one(question: str, default: str, read: Callable[[str], T]) -> T:
        while True:
            try:
                return read(prompt(question, default).strip())
            except (BadInput, ValueError) as error:
                say(f"  {error}")

    wishes = given
    nothing = wishes.checkpoint is None and wishes.photos is None and wishes.source is None
    if nothing:
        say("A generator that you have trained: its state dict, a .pth, .pt or .safetensors file. Empty: none.")
        wishes = dataclasses.replace(wishes, checkpoint=one("Checkpoint", "", lambda text: _checkpoint(text, wishes)))
        if wishes.checkpoint is not None:
            say(f"  {describe(recognise(wishes))}")
    if wishes.photos is None and wishes.source is None:
        if wishes.checkpoint is not None:
            say("Pictures that it is to translate: a folder of some 600 photos, nested as you like; or one that has")
            say("trainA and trainB in it. What they are to look like is not needed: the generator shows it.")
            photos = one("Folder of photos", "", lambda text: _folder(text, needed=True))
            wishes = dataclasses.replace(wishes, photos=photos)
        else:
            say("Pictures to translate, as of horses; a generator is then trained first. Empty: drawn horses and")
            say("zebras, and the generator of this package, to see how a search goes.")
            source = one("Folder of pictures to translate", "", lambda text: _folder(text, needed=False))
            wishes = dataclasses.replace(wishes, source=source)
    if wishes.source is not None and wishes.target is None and not (wishes.source / "trainB").is_dir():
        say("Pictures of what they are to look like, as of zebras; no pairs.")
        target = one("Folder of target pictures", "", lambda text: _folder(text, needed=True))
        wishes = dataclasses.replace(wishes, target=target)
    if wishes.name is None:
        say("Its name: of its files, and of the folder of its results, runs/NAME.")
        taken = None if force else out / "studies"
        name = one("Name of the study", name_from(wishes), lambda text: _name(text, taken))
        wishes = dataclasses.replace(wishes, name=name)
    say("Looking at the pictures ...")
    plan = make_plan(wishes, out)
    if wishes.image_px is None:
        say(f"Side of the square pictures in training and measuring, in pixels, a multiple of {plan.multiple}.")
        say("Half of it is four times as fast, and what is learned at a small size holds at larger ones.")
        legal = _number(int, 32, 2048, plan.multiple)
        wishes = dataclasses.replace(wishes, image_px=one("Pixels", str(plan.image_px), legal))
    if wishes.trials is None:
        say("A trial is one short training of one student; a dozen give an idea of the front, more make it denser.")
        wishes = dataclasses.replace(wishes, trials=one("Trials", str(plan.trials), _number(int, 1, 1_000_000)))
    if wishes.hours is None:
        say("Hours after which no trial starts any more, however many are done. Empty: no limit.")
        read = _number(float, 0.001, 10_000)
        wishes = dataclasses.replace(wishes, hours=one("Hours", "", lambda text: read(text) if text else None))
    if wishes.device is None:
        say("Where trials compute: auto (GPUs if there are any), cpu or cuda.")
        wishes = dataclasses.replace(wishes, device=one("Device", "auto", _device))
    return wishes


def _checkpoint(text: str, wishes: Wishes) -> Path | None:
    if not text:
        return None
    path = Path(text).expanduser()
    recognise(dataclasses.replace(wishes, checkpoint=path))  # raises what is wrong with it
    return path


def _folder(text: str, *, needed: bool) -> Path | None:
    path = Path(text).expanduser()
    if not text and needed:
        raise BadInput("a folder is needed here; Ctrl-C leaves without a study")
    if text and not path.is_dir():
        raise BadInput(f"{path}: no such folder")
    return path if text else None


def _name(text: str, taken: Path | None) -> str:
    if problem := name_problem(text):
        raise BadInput(problem)
    if taken is not None and (taken / f"{text}.yaml").exists():
        raise BadInput(f"{taken / text}.yaml: exists; take another name, or leave with Ctrl-C and give --force")
    return text


def _device(text: str) -> str:
    if text not in ("auto", "cpu", "cuda"):
        raise BadInput(f"must be auto, cpu or cuda, not {text!r}")
    return text


def _number(kind: type[Any], low: float, high: float, multiple: int = 1) -> Callable[[str], Any]:
    def read(text: str) -> Any:
        try:
            value = kind(text)
        except ValueError:
            raise BadInput(f"must be a {'whole ' if kind is int else ''}number, not {text!r}") from None
        if not low <= value <= high:
            raise BadInput(f"must lie between {low:g} and {high:g}, not {text}")
        if kind is int and value % multiple:
            raise BadInput(f"must be a multiple of {multiple}, not {text}")
        return value

    return read
