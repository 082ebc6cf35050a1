"""The terms of the objective against hand-made values and torch's own losses; the buffer's resume."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits

from gs_search.errors import CheckpointError
from gs_search.networks import PatchGan
from gs_search.slimming.objective import (
    ImageBuffer,
    critic_feature_loss,
    critic_features,
    discriminator_loss,
    feature_loss,
    generator_loss,
    pixel_loss,
)

KINDS = ("lsgan", "hinge", "log")
# Two pictures with maps of 1 x 1 x 2 patches.
REAL = torch.tensor([[[[2.0, 1.0]]], [[[0.5, -1.0]]]])
FAKE = torch.tensor([[[[0.0, 2.0]]], [[[-2.0, -0.5]]]])


def test_lsgan_by_hand() -> None:
    assert generator_loss(FAKE).item() == pytest.approx((1 + 1 + 9 + 2.25) / 4)
    assert discriminator_loss(REAL, FAKE).item() == pytest.approx(0.5 * ((1 + 0 + 0.25 + 4) + (0 + 4 + 4 + 0.25)) / 4)


def test_hinge_by_hand() -> None:
    assert generator_loss(FAKE, "hinge").item() == pytest.approx(-(0 + 2 - 2 - 0.5) / 4)
    assert discriminator_loss(REAL, FAKE, "hinge").item() == pytest.approx(((0.5 + 2) + (1 + 3 + 0 + 0.5)) / 4)


def test_log_is_binary_cross_entropy() -> None:
    ones, zeros = torch.ones_like(REAL), torch.zeros_like(FAKE)
    papers = binary_cross_entropy_with_logits(REAL, ones) + binary_cross_entropy_with_logits(FAKE, zeros)
    torch.testing.assert_close(discriminator_loss(REAL, FAKE, "log"), papers)
    torch.testing.assert_close(generator_loss(FAKE, "log"), binary_cross_entropy_with_logits(FAKE, ones))
    # E log D(y) + E log(1 - D(G(x))), literally.
    literal = REAL.sigmoid().log().mean() + (1 - FAKE.sigmoid()).log().mean()
    torch.testing.assert_close(discriminator_loss(REAL, FAKE, "log"), -literal)


def test_log_neither_overflows_nor_loses_its_gradient() -> None:
    certain = torch.tensor([-1e4], requires_grad=True)  # the discriminator knows the fake for sure
    loss = generator_loss(certain, "log")
    loss.backward()
    assert loss.detach().item() == 1e4
    assert certain.grad is not None and certain.grad.item() == -1.0
    assert discriminator_loss(-certain.detach(), certain.detach(), "log").item() == 0.0


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_pulls_scores_the_right_way(kind: str) -> None:
    scores = torch.zeros(2, 1, 3, 3, requires_grad=True)
    (grad,) = torch.autograd.grad(generator_loss(scores, kind), scores)
    assert (grad < 0).all()  # descent raises the scores of fakes
    real, fake = torch.zeros(4, 1, requires_grad=True), torch.full((4, 1), 0.5, requires_grad=True)
    grads = torch.autograd.grad(discriminator_loss(real, fake, kind), (real, fake))
    assert (grads[0] < 0).all() and (grads[1] > 0).all()


@pytest.mark.parametrize("kind", KINDS)
def test_trap_09_the_shape_of_scores_does_not_matter(kind: str) -> None:
    real, fake = torch.linspace(-2, 2, 6), torch.linspace(1, -3, 6)
    expected = generator_loss(fake, kind), discriminator_loss(real, fake, kind)
    for shape in ((6, 1), (6, 1, 1, 1), (2, 1, 1, 3)):
        torch.testing.assert_close(generator_loss(fake.view(shape), kind), expected[0])
        torch.testing.assert_close(discriminator_loss(real.view(shape), fake, kind), expected[1])
        torch.testing.assert_close(discriminator_loss(real, fake.view(shape), kind), expected[1])


def test_trap_09_compared_pictures_must_have_one_shape() -> None:
    for compare in (pixel_loss, feature_loss, lambda s, t: critic_feature_loss([s], [t])):
        with pytest.raises(AssertionError):
            compare(torch.rand(4, 1), torch.rand(4))


@pytest.mark.parametrize("kind", KINDS)
def test_losses_are_float32_whatever_the_scores(kind: str) -> None:
    half = FAKE.bfloat16()
    assert generator_loss(half, kind).dtype == torch.float32
    torch.testing.assert_close(discriminator_loss(half, half, kind), discriminator_loss(FAKE, FAKE, kind))
    assert pixel_loss(half, FAKE).item() == 0.0
    assert critic_feature_loss([half], [half]).dtype == torch.float32


@pytest.mark.parametrize("call", [lambda: generator_loss(FAKE, "wgan"), lambda: discriminator_loss(REAL, FAKE, "")])
def test_an_unknown_kind_is_refused(call: Callable[[], Tensor]) -> None:
    with pytest.raises(ValueError, match="lsgan, hinge or log"):
        call()


def test_pixel_and_feature_loss_by_hand() -> None:
    assert pixel_loss(torch.tensor([0.5, -1.0]), torch.tensor([0.0, 1.0])).item() == pytest.approx((0.5 + 2) / 2)
    teacher = torch.tensor([[3.0, -1.0]])
    assert feature_loss(torch.zeros(1, 2), teacher).item() == 1.0
    assert feature_loss(torch.tensor([[1.0, -1.0]]), teacher).item() == pytest.approx(4 / 10)
    assert feature_loss(torch.zeros(1, 2), torch.zeros(1, 2)).item() == 0.0


def test_critic_feature_loss_weighs_layers_alike() -> None:
    student = [torch.tensor([1.0, 3.0], requires_grad=True), torch.zeros(100, requires_grad=True)]
    teacher = [torch.tensor([0.0, 0.0], requires_grad=True), torch.ones(100, requires_grad=True)]
    loss = critic_feature_loss(student, teacher)
    assert loss.detach().item() == pytest.approx((2 + 1) / 2)  # not a mean over all numbers, which is 104 / 102
    loss.backward()
    assert all(layer.grad is None for layer in teacher)
    assert student[0].grad is not None
    torch.testing.assert_close(student[0].grad, torch.full((2,), 0.25))
    with pytest.raises(ValueError):
        critic_feature_loss(student, teacher[:1])


def test_critic_features_are_those_of_the_forward_pass() -> None:
    critic = PatchGan(8).initialise(torch.Generator().manual_seed(0))
    pictures = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(1)) * 2 - 1
    seen: list[Tensor] = []
    handles = [
        layer.register_forward_hook(lambda module, inputs, output: seen.append(output))
        for layer in critic.modules()
        if isinstance(layer, torch.nn.LeakyReLU)
    ]
    expected = critic(pictures)
    for handle in handles:
        handle.remove()
    scores, features = critic_features(critic, pictures)
    assert torch.equal(scores, expected)
    assert [f.shape[1] for f in features] == [8, 16, 32, 64]
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(features, seen, strict=True))
    _, teachers = critic_features(critic, pictures)
    assert critic_feature_loss(features, teachers).item() == 0.0


def drawn(step: int) -> Tensor:
    """A batch of two pictures that no other step has."""
    return torch.full((2, 3, 2, 2), float(step)) + torch.arange(2.0).view(2, 1, 1, 1) / 10


@pytest.mark.parametrize("interrupted_after", [0, 1, 2, 20])
def test_an_interrupted_buffer_equals_an_uninterrupted_one(interrupted_after: int) -> None:
    whole = ImageBuffer(4, torch.Generator().manual_seed(3))
    expected = [whole.swap(drawn(step)) for step in range(40)]
    first = ImageBuffer(4, torch.Generator().manual_seed(3))
    answers = [first.swap(drawn(step)) for step in range(interrupted_after)]
    state = first.state_dict()
    first.swap(drawn(99))  # what happens after the state was taken does not change it
    second = ImageBuffer(4, torch.Generator().manual_seed(77))
    second.load_state_dict(state)
    answers += [second.swap(drawn(step)) for step in range(interrupted_after, 40)]
    assert torch.equal(torch.stack(answers), torch.stack(expected))
    assert not torch.equal(torch.stack(expected[10:]), torch.stack([drawn(step) for step in range(10, 40)]))
    assert torch.equal(torch.stack(second.pictures), torch.stack(whole.pictures))
    assert torch.equal(second.generator.get_state(), whole.generator.get_state())


def test_the_buffers_state_survives_a_file(tmp_path: Path) -> None:
    buffer = ImageBuffer(3, torch.Generator().manual_seed(0))
    for step in range(5):
        buffer.swap(drawn(step))
    state = buffer.state_dict()
    types = {name: type(value) for name, value in state.items()}
    assert types == {"pictures": Tensor, "count": int, "generator": Tensor}
    torch.save(state, tmp_path / "state.pt")
    other = ImageBuffer(3, torch.Generator())
    other.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    assert torch.equal(other.swap(drawn(9)), buffer.swap(drawn(9)))


def test_a_state_that_does_not_fit_is_refused() -> None:
    buffer = ImageBuffer(3, torch.Generator())
    buffer.swap(drawn(0))
    state = buffer.state_dict()
    with pytest.raises(CheckpointError, match="damaged"):
        buffer.load_state_dict({**state, "count": 3})
    with pytest.raises(CheckpointError, match="damaged"):
        buffer.load_state_dict({"count": 0})
    with pytest.raises(CheckpointError, match="has 2 pictures, this one holds 1"):
        ImageBuffer(1, torch.Generator()).load_state_dict(state)
