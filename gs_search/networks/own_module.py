"""Generators of the user's own: built by a function of theirs, with weights from a file, made to take RGB in [-1, 1].

The function is the user's and is run; of a checkpoint tensors alone are read. ``Conventional`` stands between this
package's pictures and the network's: order of the channels, range of the values in and out.
"""

from __future__ import annotations

import copy
import inspect
import re
import sys
from collections.abc import Callable, Mapping
from contextlib import redirect_stdout
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, cast

import torch
import torch.fx
from torch import Tensor, nn

from gs_search.errors import BadInput, CheckpointError, one_line
from gs_search.networks.checkpoints import NO_GENERATOR, check_values
from gs_search.networks.file_reading import Groups, read_file
from gs_search.networks.recognised import COUNTER, LUMA, Tensors, describe_shape
from gs_search.system.user_code import UserCode, function_name

__all__ = ["Conventional", "ModuleArchitecture", "build_module", "load_module"]

MULTIPLES = (4, 8, 16, 32, 64, 128, 256)
"""What may have to divide the sides of the pictures that a network takes."""

SHOWN = 3
"""Tensors that a message names."""

OURS = (-1.0, 1.0)
"""Range of this package's pictures."""

Range = tuple[float, float]


@dataclass(frozen=True)
class ModuleArchitecture:
    """What, with a file of tensors and the source, builds a generator of the user's own again."""

    name: str
    """``module:function``, without folders."""
    arguments: Mapping[str, Any]
    source: str
    """sha256 of the function's source, see ``UserCode``."""
    picture_multiple: int
    """What divides the side of every picture that it takes."""
    channels: str = "rgb"
    """``rgb``, ``bgr`` or ``grey``."""
    range: Range = OURS
    """Values that it takes for black and white."""
    output_range: Range = OURS
    """Values that it returns for them."""

    def to_json(self) -> dict[str, object]:
        return asdict(self)

    @classmethod
    def from_json(cls, fields: Mapping[str, Any]) -> ModuleArchitecture:
        """Raises TypeError, ValueError or LookupError where the fields are others."""
        ranges = {name: (float(fields[name][0]), float(fields[name][1])) for name in ("range", "output_range")}
        return cls(**{**fields, **ranges})


class Conventional(nn.Module):
    """A network of another convention as one that takes and returns N x 3 x H x W, RGB, in [-1, 1].

    Args:
        network: takes and returns N x C x H x W; C is 1 for ``grey``, else 3.
    """

    def __init__(self, network: nn.Module, channels: str, taken: Range, returned: Range) -> None:
        super().__init__()
        self.network, self.channels, self.taken, self.returned = network, channels, taken, returned

    def forward(self, x: Tensor) -> Tensor:
        if self.channels == "bgr":
            x = x.flip(1)
        elif self.channels == "grey":
            x = LUMA[0] * x[:, 0:1] + LUMA[1] * x[:, 1:2] + LUMA[2] * x[:, 2:3]
        if self.taken != OURS:
            low, high = self.taken
            x = (x + 1.0) * ((high - low) / 2)
            x = x + low if low else x
        y = cast(Tensor, self.network(x))
        if self.returned != OURS:
            low, high = self.returned
            y = (y - low if low else y) * (2 / (high - low)) - 1.0
        if self.channels == "bgr":
            y = y.flip(1)
        elif self.channels == "grey":
            y = torch.cat([y, y, y], dim=1)
        return y


def build_module(code: UserCode, architecture: ModuleArchitecture) -> nn.Module:
    """Call the user's function, and put the convention around what it returns; in evaluation mode, on the CPU.

    Raises:
        BadInput: the function raises, does not take the arguments, or returns no module.
    """
    network = _called(code, architecture.arguments)
    convention = (architecture.channels, architecture.range, architecture.output_range)
    if convention == ("rgb", OURS, OURS):
        return network
    return Conventional(network, *convention).eval()


def load_module(
    code: UserCode,
    *,
    image_px: int,
    arguments: Mapping[str, Any],
    checkpoint: Path | None = None,
    key: str | None = None,
    channels: str = "rgb",
    range: Range = OURS,
    output_range: Range | None = None,
    multiple: int | None = None,
    notes: list[str] | None = None,
) -> tuple[nn.Module, ModuleArchitecture]:
    """Build a generator, fill it from a file, and see that it takes and returns pictures.

    Args:
        code: of the function that builds it.
        checkpoint: None leaves the weights that the function gives.
        key: which state dict of the file, where several fit.
        multiple: what divides the sides of its pictures; None finds out.
        notes: gets a line for each thing that was decided.

    Raises:
        BadInput: the function cannot be used, or what it returns takes no pictures of ``image_px``, or returns none.
        CheckpointError: the file cannot be read, or does not fit.
    """
    notes = notes if notes is not None else []
    described = ModuleArchitecture(
        function_name(code.name),
        dict(arguments),
        code.sha256,
        multiple or image_px,
        channels,
        range,
        output_range or range,
    )
    generator = build_module(code, described)
    inner = generator.network if isinstance(generator, Conventional) else generator
    if checkpoint is None:
        notes.append("no teacher.checkpoint is given: the weights are those that the function gives")
    else:
        _fill(inner, checkpoint, key, notes)
    found = _multiple(generator, code, image_px, multiple)
    if multiple is None and found != MULTIPLES[0]:
        notes.append(f"sides of pictures are multiples of {found}, as far as was tried (teacher.multiple says it)")
    return generator, ModuleArchitecture(**{**vars(described), "picture_multiple": found})


def _called(code: UserCode, arguments: Mapping[str, Any]) -> nn.Module:
    """What the function returns, in evaluation mode, on the CPU, out of ``DataParallel``."""
    with redirect_stdout(sys.stderr):  # standard output belongs to --json
        function = _loaded(code)
        try:
            signature = inspect.signature(function)
        except (TypeError, ValueError):  # of something built in
            signature = None
        if signature is not None:
            try:
                signature.bind(**arguments)
            except TypeError as error:
                takes = ", ".join(signature.parameters) or "none"
                raise BadInput(f"teacher.arguments: {code.name}: {error}; it takes {takes}") from None
        try:
            made = function(**arguments)
        except (Exception, SystemExit) as error:  # whatever somebody's code raises
            raise BadInput(f"teacher.factory: {code.where(error)}: raised {one_line(error)}") from error
    if not isinstance(made, nn.Module):
        kind = f"the class {made.__name__}" if isinstance(made, type) else f"a {type(made).__name__}"
        raise BadInput(f"teacher.factory: {code.name} returned {kind}; it must return one torch.nn.Module")
    if isinstance(made, (nn.DataParallel, nn.parallel.DistributedDataParallel)):
        made = made.module
    while isinstance(inner := getattr(made, "_orig_mod", None), nn.Module):  # of torch.compile
        made = inner
    if isinstance(made, torch.fx.GraphModule):
        made = _with_plain_names(made)
    return cast(nn.Module, made).cpu().float().eval()


def _with_plain_names(module: torch.fx.GraphModule) -> nn.Module:
    """A traced module whose parts are named as attributes are: converters of ONNX files name them ``a/b``, which
    fvcore, for one, takes for a path.
    """
    graph = copy.deepcopy(module.graph)
    parts: dict[str, Any] = {}
    for node in graph.nodes:
        if node.op in ("call_module", "get_attr"):
            place, _, own = str(node.target).rpartition(".")
            part = getattr(module.get_submodule(place), own)
            node.target = re.sub(r"[^\w.]", "_", str(node.target))
            if parts.setdefault(node.target, part) is not part:
                raise BadInput(f"teacher.factory: two parts of the traced module are called {node.target}")
    return torch.fx.GraphModule(parts, graph)


def _loaded(code: UserCode) -> Callable[..., Any]:
    try:
        return code.load()
    except BadInput as error:
        raise BadInput(f"teacher.factory: {error}") from error


# --- its weights


def _fill(network: nn.Module, path: Path, key: str | None, notes: list[str]) -> None:
    """Load the tensors of a file into the network; every one of its tensors has to be there, and no other one."""
    wanted = {name: tensor for name, tensor in network.state_dict().items() if isinstance(tensor, Tensor)}
    needed = {name: tensor for name, tensor in wanted.items() if not name.endswith(COUNTER)}
    if not needed:
        raise CheckpointError(f"{path}: teacher.checkpoint is given, but the network has no weights")
    groups, _ = read_file(path)
    parts = _parts(groups, needed)
    if key is not None:
        named = {full: part for full, part in parts.items() if key.strip(".") in (full, full.rpartition(".")[2])}
        if len(named) != 1:
            raise CheckpointError(f"{path}: teacher.key {key!r} names none of {', '.join(map(_shown, parts))}")
        parts = named
    whole = {full: part for full, part in parts.items() if all(name in part for name in needed)}
    if len(whole) > 1:
        keys = ", ".join(map(_shown, whole))
        raise CheckpointError(f"{path}: {len(whole)} parts fit the module: {keys}; choose one with teacher.key")
    if not whole:
        raise CheckpointError(_misfit(path, groups, parts, needed))
    ((full, part),) = whole.items()
    where = f"{path}, {full}" if full else str(path)
    for name, tensor in needed.items():
        if part[name].shape != tensor.shape:
            raise CheckpointError(
                f"{where}: tensor {name} is {describe_shape(part[name])}, the module needs {describe_shape(tensor)}; "
                "do teacher.arguments fit the file?"
            )
        if tensor.is_floating_point():
            check_values(part[name], f"{where}: tensor {name}")
    left = [name for name in part if name not in wanted and not name.endswith(COUNTER)]
    left = [name for name in left if not NO_GENERATOR.fullmatch(name.partition(".")[0])]
    if left:
        raise CheckpointError(
            f"{where}: {_some(part, left)} {'has' if len(left) == 1 else 'have'} no place in the module that "
            "teacher.factory returns"
        )
    if full:
        notes.append(f"the weights are {full} of the file")
    network.load_state_dict({name: part[name] for name in wanted if name in part}, strict=False)


def _parts(groups: Groups, needed: Tensors) -> dict[str, Tensors]:
    """All parts of a file that have a name of the network's, by the keys and the prefix that lead to them."""
    found: dict[str, Tensors] = {}
    for keys, tensors in groups.items():
        prefixes = {
            name.removesuffix(own) for own in needed for name in tensors if name == own or name.endswith(f".{own}")
        }
        for prefix in sorted(prefixes):
            full = ".".join([*keys, prefix.rstrip(".")]).strip(".")
            found[full] = {name.removeprefix(prefix): t for name, t in tensors.items() if name.startswith(prefix)}
    return found


def _misfit(path: Path, groups: Groups, parts: Mapping[str, Tensors], needed: Tensors) -> str:
    """Say where the nearest part of a file and the network first differ."""
    full, part = "", max(groups.values(), key=len)
    if parts:
        full, part = max(parts.items(), key=lambda item: sum(name in item[1] for name in needed))
    lacking = [name for name in needed if name not in part]
    strange = [name for name in part if name not in needed and not name.endswith(COUNTER)]
    matched = len(needed) - len(lacking)
    where = f"{path}, {full}" if full else str(path)
    has = f" where the file has {_some(part, strange)}" if strange else ""
    return (
        f"{where}: does not fit the module that teacher.factory returns: {matched} of {len(needed)} tensors are there; "
        f"the module has {_some(needed, lacking)}{has}"
    )


def _some(tensors: Tensors, names: list[str]) -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(f"{name} ({describe_shape(tensors[name])})" for name in names[:SHOWN]) + more


def _shown(key: str) -> str:
    return key or "."


# --- its pictures


def _multiple(generator: nn.Module, code: UserCode, image_px: int, said: int | None) -> int:
    """What divides the sides of all pictures that the generator takes: what is said, or the least that works.

    Raises:
        BadInput: it does not take pictures of ``image_px``, or not of the next multiple.
    """
    wrong = _problem(generator, code, image_px)
    if wrong is not None:
        raise BadInput(_with_hint(generator, code, image_px, wrong))
    if said is not None:
        if image_px % said:
            raise BadInput(f"image_px: {image_px} is no multiple of teacher.multiple, {said}")
        if (wrong := _problem(generator, code, image_px + said)) is not None:
            raise BadInput(f"teacher.multiple: {said} does not suffice: {wrong}")
        return said
    for multiple in MULTIPLES:
        if image_px % multiple == 0 and _problem(generator, code, image_px + multiple) is None:
            return multiple
    return image_px  # of this size alone


def _with_hint(generator: nn.Module, code: UserCode, image_px: int, wrong: str) -> str:
    """What is wrong, and what would do instead where that is quickly found."""
    first = next((m for m in generator.modules() if isinstance(m, nn.Conv2d)), None)
    if first is not None and first.in_channels == 1 and not _is_grey(generator):
        return f"{wrong}; its first convolution reads one channel: set teacher.channels: grey"
    for multiple in MULTIPLES:
        side = -(-image_px // multiple) * multiple
        if side != image_px and _problem(generator, code, side) is None:
            return f"image_px: {image_px} does not suit the generator ({wrong}); take a multiple of {multiple}"
    return wrong


def _is_grey(generator: nn.Module) -> bool:
    return isinstance(generator, Conventional) and generator.channels == "grey"


@torch.no_grad()
def _problem(generator: nn.Module, code: UserCode, px: int) -> str | None:
    """What is wrong with what the generator makes of a picture, in one line, or None."""
    picture = torch.rand(1, 3, px, px, generator=torch.Generator().manual_seed(0)) * 2 - 1
    inner, returned = generator, None
    shape = f"a 1 x {1 if _is_grey(generator) else 3} x {px} x {px} picture"
    if isinstance(generator, Conventional):
        inner = generator.network

    def seen(module: nn.Module, inputs: Any, output: Any) -> Any:
        nonlocal returned
        returned = output
        return output if isinstance(output, Tensor) else None

    handle = inner.register_forward_hook(seen)
    try:
        with redirect_stdout(sys.stderr):
            generator(picture)
    except (Exception, SystemExit) as error:  # whatever somebody's code raises
        if returned is None:
            return f"teacher.factory: {code.where(error)}: raised {one_line(error)} on {shape}"
    finally:
        handle.remove()
    if not isinstance(returned, Tensor):
        what = f"{len(returned)} things" if isinstance(returned, (tuple, list)) else f"a {type(returned).__name__}"
        return f"teacher.factory: the module returns {what}, not one picture; wrap it so that it returns the picture"
    channels = 1 if _is_grey(generator) else 3
    if returned.dim() != 4 or returned.shape[0] != 1 or returned.shape[1] != channels:
        more = " (teacher.channels: grey takes and returns one)" if returned.dim() == 4 and channels == 3 else ""
        return (
            f"teacher.factory: the module turns {shape} into {describe_shape(returned)}, not into a picture of "
            f"{channels} channel{'s' * (channels > 1)}{more}"
        )
    if tuple(returned.shape[2:]) != (px, px):
        return (
            f"teacher.factory: the module turns {shape} into {describe_shape(returned)}; a study takes generators "
            "whose pictures keep their size"
        )
    if not bool(torch.isfinite(returned).all()):
        return f"teacher.factory: the module turns {shape} into values that are not numbers"
    return None
