"""Networks of the user's own: convention, weights from files as people save them, and what is said of bad ones."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from gs_search.errors import BadInput
from gs_search.measure.flops import count_flops
from gs_search.networks import load_module
from gs_search.networks.own_module import Conventional
from gs_search.system.user_code import find_code

NET = """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self, width=4, halvings=1):
        super().__init__()
        self.stem = nn.Conv2d(3, width, 3, padding=1)
        self.downs = nn.ModuleList(nn.Conv2d(width, width, 4, 2, 1) for _ in range(halvings))
        self.ups = nn.ModuleList(nn.ConvTranspose2d(width, width, 4, 2, 1) for _ in range(halvings))
        self.norm = nn.BatchNorm2d(width)
        self.head = nn.Conv2d(width, 3, 3, padding=1)

    def forward(self, x):
        x = y = self.norm(self.stem(x))
        for down in self.downs:
            y = down(y).relu()
        for up in self.ups:
            y = up(y).relu()
        return self.head(x + y)

def build(width=4, halvings=1):
    print("initialize network with normal")
    return Net(width, halvings)
"""


def load(place: Path, text: str = NET, named: str = "net.py:build", px: int = 32, **options: Any) -> nn.Module:
    (place / "net.py").write_text(text)
    options = {"arguments": {}, **options}
    generator, _ = load_module(find_code(named, place), image_px=px, **options)
    return generator


def states(place: Path) -> dict[str, Tensor]:
    torch.manual_seed(1)
    return load(place).state_dict()


@pytest.mark.parametrize("channels", ["rgb", "bgr"])
@pytest.mark.parametrize(
    ("taken", "returned"), [((-1.0, 1.0), (0.0, 1.0)), ((0.0, 255.0), (0.0, 255.0)), ((0.0, 1.0), (-1.0, 1.0))]
)
def test_the_convention_is_put_around_the_network(
    channels: str, taken: tuple[float, float], returned: tuple[float, float]
) -> None:
    """By the bytes: what the network is given and what becomes of its answer, written down channel by channel."""
    seen: list[Tensor] = []

    class Spy(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            seen.append(x)
            return torch.stack([torch.full_like(x[:, 0], v) for v in (returned[0], returned[1], 0.0)], dim=1)

    picture = torch.tensor([0, 102, 255.0]).view(1, 3, 1, 1).expand(1, 3, 2, 2)  # red, green, blue as bytes
    painted = Conventional(Spy(), channels, taken, returned)(picture / 127.5 - 1)
    bytes_seen = [0, 102, 255] if channels == "rgb" else [255, 102, 0]
    wanted = [taken[0] + b / 255 * (taken[1] - taken[0]) for b in bytes_seen]
    torch.testing.assert_close(seen[0][0, :, 0, 0], torch.tensor(wanted), rtol=1e-5, atol=1e-5)
    back = [-1.0, 1.0, 2 * (0 - returned[0]) / (returned[1] - returned[0]) - 1]
    torch.testing.assert_close(painted[0, :, 1, 1], torch.tensor(back if channels == "rgb" else back[::-1]))


def test_a_grey_network_sees_luminance_and_paints_three_equal_channels() -> None:
    picture = torch.rand(2, 3, 4, 4) * 2 - 1
    painted = Conventional(nn.Identity(), "grey", (-1.0, 1.0), (-1.0, 1.0))(picture)
    luminance = 0.299 * picture[:, 0] + 0.587 * picture[:, 1] + 0.114 * picture[:, 2]
    torch.testing.assert_close(painted, luminance[:, None].expand(2, 3, 4, 4))


def test_the_usual_convention_needs_nothing_around(tmp_path: Path) -> None:
    assert type(load(tmp_path)).__name__ == "Net"


def prefixed(states: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {prefix + name: tensor for name, tensor in states.items()}


FILES: dict[str, Callable[[dict[str, Tensor]], Any]] = {
    "plain": lambda s: s,
    "half": lambda s: {name: t.half() if t.is_floating_point() else t for name, t in s.items()},
    "no counters": lambda s: {name: t for name, t in s.items() if not name.endswith("num_batches_tracked")},
    "module": lambda s: prefixed(s, "module."),
    "wrapped": lambda s: {"epoch": 3, "model": prefixed(s, "_orig_mod."), "optimizer": {"state": {}}},
    "lightning": lambda s: {"state_dict": {**prefixed(s, "netG."), "netD.conv.weight": torch.ones(4, 3, 4, 4)}},
    "list": lambda s: [s],
}


@pytest.mark.parametrize("kind", FILES)
def test_weights_come_out_of_files_as_people_save_them(kind: str, tmp_path: Path) -> None:
    wanted = states(tmp_path)
    torch.save(FILES[kind](wanted), tmp_path / "net.pth")
    torch.manual_seed(2)
    found = load(tmp_path, checkpoint=tmp_path / "net.pth").state_dict()
    tolerance = 1e-3 if kind == "half" else 0.0
    for name in wanted:
        torch.testing.assert_close(found[name], wanted[name], rtol=tolerance, atol=tolerance)


def test_of_several_that_fit_the_key_takes_one(tmp_path: Path) -> None:
    one = states(tmp_path)
    two = {name: tensor + 1 for name, tensor in one.items()}
    torch.save({"G": one, "G_ema": two}, tmp_path / "net.pth")
    with pytest.raises(BadInput, match="2 parts fit the module: G, G_ema; choose one with teacher.key"):
        load(tmp_path, checkpoint=tmp_path / "net.pth")
    notes: list[str] = []
    found = load(tmp_path, checkpoint=tmp_path / "net.pth", key="G_ema", notes=notes).state_dict()
    assert torch.equal(found["head.bias"], two["head.bias"]) and notes == ["the weights are G_ema of the file"]
    with pytest.raises(BadInput, match="teacher.key 'F' names none of G, G_ema"):
        load(tmp_path, checkpoint=tmp_path / "net.pth", key="F")


def test_a_file_without_weights_is_said(tmp_path: Path) -> None:
    notes: list[str] = []
    load(tmp_path, notes=notes)
    assert notes == ["no teacher.checkpoint is given: the weights are those that the function gives"]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            lambda s: {("body" + n[4:] if n.startswith("head") else n): t for n, t in s.items()},
            r"10 of 12 tensors are there; the module has head.weight \(3 x 4 x 3 x 3\), head.bias \(3\) where the file "
            r"has body.weight \(3 x 4 x 3 x 3\), body.bias \(3\)$",
        ),
        (lambda s: s | {"stem.weight": torch.ones(8, 3, 3, 3)}, "stem.weight is 8 x 3 x 3 x 3, the module needs 4 x 3"),
        (lambda s: s | {"extra.weight": torch.ones(2)}, r"extra.weight \(2\) has no place in the module"),
        (lambda s: s | {"stem.bias": torch.full((4,), torch.nan)}, "tensor stem.bias holds NaN"),
        (lambda s: {"conv.weight": torch.ones(2, 3, 3, 3)}, "0 of 12 tensors are there; the module has stem.weight"),
    ],
    ids=["other names", "other width", "more", "nan", "another"],
)
def test_weights_that_do_not_fit(change: Callable[..., Any], said: str, tmp_path: Path) -> None:
    torch.save(change(states(tmp_path)), tmp_path / "net.pth")
    with pytest.raises(BadInput, match=said):
        load(tmp_path, checkpoint=tmp_path / "net.pth")


def test_what_divides_the_sides_is_found_or_checked(tmp_path: Path) -> None:
    for halvings, multiple in ((2, 4), (3, 8), (5, 32)):
        (tmp_path / "net.py").write_text(NET)
        code = find_code("net.py:build", tmp_path)
        notes: list[str] = []
        found = load_module(code, image_px=64, arguments={"halvings": halvings}, notes=notes)[1]
        assert found.picture_multiple == multiple and any("multiples of" in note for note in notes) == (multiple != 4)
    with pytest.raises(BadInput, match="image_px: 36 does not suit the generator .*; take a multiple of 8"):
        load(tmp_path, px=36, arguments={"halvings": 3})
    with pytest.raises(BadInput, match="teacher.multiple: 4 does not suffice: teacher.factory: net.py:20: .* 36 x 36"):
        load(tmp_path, arguments={"halvings": 3}, multiple=4)
    with pytest.raises(BadInput, match="image_px: 32 is no multiple of teacher.multiple, 64"):
        load(tmp_path, multiple=64)


def returning(what: str) -> str:
    return f"{NET}\nclass Odd(Net):\n    def forward(self, x):\n        y = super().forward(x)\n        return {what}\n"


@pytest.mark.parametrize(
    ("text", "options", "said"),
    [
        (NET, {"arguments": {"widht": 8}}, "teacher.arguments: net:build: .*'widht'; it takes width, halvings"),
        (NET, {"arguments": {"width": 0.5}}, r"teacher.factory: net.py:8: raised ValueError: "),
        (NET, {"named": "net.py:nn"}, "net:nn: is a module, not a function or class"),
        ("def build(): return 3", {}, "net:build returned a int; it must return one torch.nn.Module"),
        (f"{NET}\ndef build(): return Net", {}, "net:build returned the class Net; it must return one"),
        (returning("y, x"), {"named": "net.py:Odd"}, "the module returns 2 things, not one picture; wrap it"),
        (returning("y[:, :2]"), {"named": "net.py:Odd"}, "into 1 x 2 x 32 x 32, not into a picture of 3 channels"),
        (
            returning("y[:, :, ::2, ::2]"),
            {"named": "net.py:Odd"},
            "into 1 x 3 x 16 x 16; a study takes generators whose",
        ),
        (returning("y / 0"), {"named": "net.py:Odd"}, "into values that are not numbers"),
        (returning("y.mean()"), {"named": "net.py:Odd"}, "into a single number, not into a picture of 3 channels"),
        (
            NET.replace("Conv2d(3,", "Conv2d(1,"),
            {},
            "its first convolution reads one channel: set teacher.channels: grey",
        ),
        (NET, {"channels": "grey"}, "net.py:15: raised RuntimeError: .* on a 1 x 1 x 32 x 32 picture"),
    ],
)
def test_what_gives_no_pictures(text: str, options: dict[str, Any], said: str, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=said) as caught:
        load(tmp_path, text, **options)
    assert "\n" not in str(caught.value)


def test_a_function_may_print_and_wrap(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Standard output belongs to --json."""
    text = NET.replace("return Net(width, halvings)", "return nn.DataParallel(Net().half())")
    generator = load(tmp_path, text)
    assert type(generator).__name__ == "Net" and next(generator.parameters()).dtype == torch.float32
    assert not generator.training and capsys.readouterr().out == ""


TRACED = """
import torch
from torch import nn

def build():
    root = nn.Module()
    root.add_module("body/0/Conv", nn.Conv2d(3, 3, 3, padding=1))
    root.add_module("body/1/Relu", nn.ReLU())
    graph = torch.fx.Graph()
    x = graph.placeholder("x")
    y = graph.call_module("body/1/Relu", (graph.call_module("body/0/Conv", (x,)),))
    graph.output(y)
    return torch.fx.GraphModule(root, graph)
"""


def test_traced_modules_are_named_as_attributes_are(tmp_path: Path) -> None:
    """As converters of ONNX files do not; the count of multiply-adds, for one, cannot bear a slash in a name."""
    generator = load(tmp_path, TRACED)
    assert sorted(generator.state_dict()) == ["body_0_Conv.bias", "body_0_Conv.weight"]
    assert count_flops(generator, 32).macs_conv == 3 * 3 * 9 * 32 * 32
    conv = generator.get_submodule("body_0_Conv")
    picture = torch.randn(1, 3, 32, 32)
    torch.testing.assert_close(generator(picture), conv(picture).relu())
