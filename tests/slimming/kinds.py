"""Small generators of the kinds that people build; each has a part that is not one of torch's plain layers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

WIDTH = 8


def conv(inputs: int, outputs: int, kernel: int = 3, **more: Any) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, **more)


class Around(nn.Module):
    """Two plain convolutions, the part in question, one plain convolution."""

    def __init__(self, part: nn.Module, inner: int = WIDTH, after: int | None = None) -> None:
        super().__init__()
        self.first, self.second = conv(3, WIDTH), conv(WIDTH, inner)
        self.part = part
        self.last = conv(after or inner, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.second(torch.relu(self.first(x))))
        return torch.tanh(self.last(self.part(x)))


class Function(nn.Module):
    """A function without parameters."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


class PadConv(nn.Conv2d):
    pass


class StandardisedConv(nn.Conv2d):
    def forward(self, x: Tensor) -> Tensor:
        weight = self.weight - self.weight.mean(dim=(1, 2, 3), keepdim=True)
        weight = weight / (weight.std(dim=(1, 2, 3), keepdim=True) + 1e-5)
        return F.conv2d(x, weight, self.bias, self.stride, self.padding)


class SameConv(nn.Conv2d):
    """Pads as TensorFlow does."""

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(F.pad(x, (1, 1, 1, 1)), self.weight, self.bias, self.stride)


class EqualisedLinear(nn.Linear):
    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight * 0.5, self.bias)


class OwnConv(nn.Module):
    """``F.conv2d`` with a parameter of its own."""

    def __init__(self, inputs: int = WIDTH, outputs: int = WIDTH) -> None:
        super().__init__()
        self.kernel = nn.Parameter(torch.randn(outputs, inputs, 3, 3) * 0.1)
        self.shift = nn.Parameter(torch.randn(outputs) * 0.1)

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.kernel, self.shift, padding=1)


class FunctionalConv(nn.Module):
    """The same in the midst of other work, so that it cannot be taken for one of torch's."""

    def __init__(self) -> None:
        super().__init__()
        self.kernel = nn.Parameter(torch.randn(WIDTH, WIDTH, 3, 3) * 0.1)
        self.after = conv(WIDTH, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        return cast(Tensor, self.after(torch.relu(F.conv2d(x, self.kernel, padding=1))))


class Modulated(nn.Module):
    """StyleGAN's: a kernel that depends on the picture."""

    def __init__(self) -> None:
        super().__init__()
        self.kernel = nn.Parameter(torch.randn(WIDTH, WIDTH, 3, 3) * 0.1)
        self.style = nn.Linear(WIDTH, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        style = self.style(x.mean(dim=(2, 3)))
        count, channels, height, width = x.shape
        kernel = self.kernel[None] * (1 + style)[:, None, :, None, None]
        kernel = kernel * torch.rsqrt(kernel.square().sum(dim=(2, 3, 4), keepdim=True) + 1e-8)
        x = x.reshape(1, count * channels, height, width)
        y = F.conv2d(x, kernel.flatten(0, 1), padding=1, groups=count)
        return y.view(count, -1, height, width)


class OwnNorm(nn.InstanceNorm2d):
    def __init__(self, channels: int) -> None:
        super().__init__(channels, affine=False)


class AffineNorm(nn.InstanceNorm2d):
    def __init__(self, channels: int) -> None:
        super().__init__(channels, eps=1e-3, affine=True)


class OwnBatchNorm(nn.BatchNorm2d):
    def __init__(self, channels: int) -> None:
        super().__init__(channels, affine=False)


class ScaleNorm(nn.Module):
    """As in fast style transfer: ``F.instance_norm`` with its own scale and shift."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.rand(channels) + 0.5)
        self.shift = nn.Parameter(torch.randn(channels) * 0.2)

    def forward(self, x: Tensor) -> Tensor:
        return F.instance_norm(x, weight=self.scale, bias=self.shift, eps=1e-3)


class HandNorm(ScaleNorm):
    """An instance norm written out."""

    def forward(self, x: Tensor) -> Tensor:
        mean, spread = x.mean(dim=(2, 3), keepdim=True), x.std(dim=(2, 3), keepdim=True)
        return (x - mean) / (spread + 1e-5) * self.scale[:, None, None] + self.shift[:, None, None]


class GroupFunction(ScaleNorm):
    def forward(self, x: Tensor) -> Tensor:
        return F.group_norm(x, 2, self.scale, self.shift)


class FrozenBatchNorm(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.register_buffer("weight", torch.rand(channels) + 0.5)
        self.register_buffer("bias", torch.randn(channels) * 0.2)
        self.register_buffer("mean", torch.randn(channels) * 0.2)
        self.register_buffer("var", torch.rand(channels) + 0.5)

    def forward(self, x: Tensor) -> Tensor:
        scale = cast(Tensor, self.weight) * (cast(Tensor, self.var) + 1e-5).rsqrt()
        shift = cast(Tensor, self.bias) - cast(Tensor, self.mean) * scale
        return x * scale.view(1, -1, 1, 1) + shift.view(1, -1, 1, 1)


class LayerScale(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner, self.gamma = conv(WIDTH, WIDTH), nn.Parameter(torch.full((WIDTH, 1, 1), 0.1))

    def forward(self, x: Tensor) -> Tensor:
        return cast(Tensor, x + self.gamma * self.inner(x))


class LastNorm(nn.Module):
    """LayerNorm over the channels, as in ConvNeXt."""

    def __init__(self) -> None:
        super().__init__()
        self.inner, self.norm, self.after = conv(WIDTH, WIDTH), nn.LayerNorm(WIDTH), conv(WIDTH, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(self.inner(x).permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        return cast(Tensor, self.after(x))


class AdaIn(nn.Module):
    """Scale and shift from the picture's mean, by ``chunk``."""

    def __init__(self) -> None:
        super().__init__()
        self.style, self.inner = nn.Linear(WIDTH, 2 * WIDTH), conv(WIDTH, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        scale, shift = self.style(x.mean(dim=(2, 3))).chunk(2, dim=1)
        y = F.instance_norm(self.inner(x))
        return cast(Tensor, y * scale[:, :, None, None] + shift[:, :, None, None])


class Glu(nn.Module):
    def __init__(self, how: str) -> None:
        super().__init__()
        self.how, self.inner, self.after = how, conv(WIDTH, 2 * WIDTH), conv(WIDTH, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        y = self.inner(x)
        if self.how == "glu":
            return cast(Tensor, self.after(F.glu(y, dim=1)))
        value, gate = y.chunk(2, dim=1) if self.how == "chunk" else y.split(WIDTH, dim=1)
        return cast(Tensor, self.after(value * torch.sigmoid(gate)))


class Parts(nn.Module):
    """Half of the channels passes by, as in ShuffleNet and CSPNet."""

    def __init__(self, *, fixed: bool) -> None:
        super().__init__()
        self.fixed, self.inner, self.after = fixed, conv(WIDTH // 2, WIDTH // 2), conv(WIDTH, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        if self.fixed:
            one, other = x.split([WIDTH // 2, WIDTH // 2], dim=1)
        else:
            one, other = x[:, : x.shape[1] // 2], x[:, x.shape[1] // 2 :]
        return cast(Tensor, self.after(torch.cat([one, self.inner(other)], dim=1)))


class Partial(nn.Conv2d):
    """Divides by how much of the picture each place sees: a second convolution, of constants."""

    def forward(self, x: Tensor) -> Tensor:
        seen = F.conv2d(torch.ones(1, 1, *x.shape[2:]), torch.ones(1, 1, 3, 3), padding=1)
        return self._conv_forward(x, self.weight, None) * (9 / seen) + cast(Tensor, self.bias).view(1, -1, 1, 1)


class Windows(nn.Module):
    """Swin's attention in windows of 4 x 4, with a learned table, widths named."""

    def __init__(self) -> None:
        super().__init__()
        self.qkv, self.out, self.after = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH), conv(WIDTH, WIDTH)
        self.table = nn.Parameter(torch.zeros(2, 16, 16))

    def forward(self, x: Tensor) -> Tensor:
        count, channels, height, width = x.shape
        tokens = x.view(count, channels, height // 4, 4, width // 4, 4).permute(0, 2, 4, 3, 5, 1)
        tokens = tokens.reshape(-1, 16, channels)
        qkv = self.qkv(tokens).reshape(len(tokens), 16, 3, 2, channels // 2).permute(2, 0, 3, 1, 4)
        attention = (qkv[0] @ qkv[1].transpose(-2, -1) + self.table).softmax(dim=-1)
        tokens = self.out((attention @ qkv[2]).transpose(1, 2).reshape(-1, 16, channels))
        y = tokens.view(count, height // 4, width // 4, 4, 4, channels).permute(0, 5, 1, 3, 2, 4)
        return cast(Tensor, self.after(x + y.reshape(x.shape)))


class Shuffle(nn.Module):
    """Channel shuffle in two groups."""

    def __init__(self) -> None:
        super().__init__()
        self.inner, self.after = conv(WIDTH, WIDTH), conv(WIDTH, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        x = self.inner(x)
        count, channels, height, width = x.shape
        x = x.view(count, 2, channels // 2, height, width).transpose(1, 2).reshape(count, -1, height, width)
        return cast(Tensor, self.after(torch.relu(x)))


class Attention(nn.Module):
    """SAGAN's, with a scale of zero; ``named``: its reshapes name the number of channels."""

    def __init__(self, *, named: bool = False, scale: float = 0.0, times: int = 1) -> None:
        super().__init__()
        self.named, self.times = named, times
        self.query, self.key, self.value = (conv(WIDTH, c, 1) for c in (4, 4, WIDTH))
        self.gamma = nn.Parameter(torch.full((1,), scale))

    def forward(self, x: Tensor) -> Tensor:
        count, channels, height, width = x.shape
        small = F.avg_pool2d(x, 4)
        sizes = (WIDTH, 4) if self.named else (-1, -1)
        query = self.query(small).view(count, sizes[1], small.shape[2] * small.shape[3])
        key = self.key(small).view(count, sizes[1], small.shape[2] * small.shape[3])
        value = self.value(small).view(count, sizes[0], small.shape[2] * small.shape[3])
        attention = torch.softmax(query.transpose(1, 2) @ key, dim=-1)
        y = (value @ attention.transpose(1, 2)).view(count, channels if not self.named else WIDTH, *small.shape[2:])
        return x + self.gamma * F.interpolate(y, size=(height, width))


class Heads(nn.Module):
    """Attention of two heads over tokens, by torch's function."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.qkv, self.out = nn.LayerNorm(WIDTH), nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        small = F.avg_pool2d(x, 4)
        count, channels, height, width = small.shape
        tokens = small.flatten(2).transpose(1, 2)
        q, k, v = self.qkv(self.norm(tokens)).chunk(3, dim=-1)
        q, k, v = (t.reshape(count, height * width, 2, -1).transpose(1, 2) for t in (q, k, v))
        y = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(count, height * width, -1)
        y = self.out(y).transpose(1, 2).reshape(count, channels, height, width)
        return x + F.interpolate(y, scale_factor=4)


class TorchHeads(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(WIDTH, 2, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        small = F.avg_pool2d(x, 4)
        tokens = small.flatten(2).transpose(1, 2)
        y = self.attention(tokens, tokens, tokens, need_weights=False)[0].transpose(1, 2).reshape(small.shape)
        return x + F.interpolate(y, scale_factor=4)


class Blur(nn.Module):
    """A fixed filter for each channel: CUT's; ``how`` says where the kernel is kept."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.how, self.inner, self.after = how, conv(WIDTH, WIDTH), conv(WIDTH, WIDTH)
        line = torch.tensor([1.0, 2.0, 1.0])
        kernel = (line[:, None] * line / 16).repeat(WIDTH, 1, 1, 1)
        if how == "buffer":
            self.register_buffer("kernel", kernel)
        elif how == "attribute":
            self.kernel = kernel
        else:
            self.register_buffer("kernel", kernel[:1])

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.inner(x))
        kernel = cast(Tensor, self.kernel)
        if self.how == "expanded":
            kernel = kernel.expand(x.shape[1], 1, 3, 3)
        return cast(Tensor, self.after(F.conv2d(F.pad(x, (1, 1, 1, 1), mode="reflect"), kernel, groups=x.shape[1])))


class Twice(nn.Module):
    """One convolution at two resolutions."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = conv(WIDTH, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        return cast(Tensor, self.inner(x) + F.interpolate(torch.relu(self.inner(F.avg_pool2d(x, 2))), scale_factor=2))


class TwoNames(nn.Module):
    """One module under two names."""

    def __init__(self) -> None:
        super().__init__()
        self.one = conv(WIDTH, WIDTH)
        self.other = self.one

    def forward(self, x: Tensor) -> Tensor:
        return cast(Tensor, self.other(torch.relu(self.one(x))))


class TiedWeights(nn.Module):
    """Two convolutions that share one weight."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.other = conv(WIDTH, WIDTH), conv(WIDTH, WIDTH)
        self.other.weight = self.one.weight

    def forward(self, x: Tensor) -> Tensor:
        return cast(Tensor, self.other(torch.relu(self.one(x))))


class Borrowed(nn.Module):
    """A layer's weight read past the layer."""

    def __init__(self) -> None:
        super().__init__()
        self.one = conv(WIDTH, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        return F.conv_transpose2d(torch.relu(self.one(x)), self.one.weight, padding=1)


class TrainingHead(nn.Module):
    """A head that only training uses."""

    def __init__(self) -> None:
        super().__init__()
        self.inner, self.head, self.token = conv(WIDTH, WIDTH), conv(WIDTH, 4), nn.Parameter(torch.zeros(5))

    def forward(self, x: Tensor) -> Tensor:
        y = self.inner(x)
        if self.training:
            y = y + self.head(y).mean() + self.token.sum()
        return cast(Tensor, y)


class Casting(nn.Module):
    """Casts in the midst of the forward pass."""

    def __init__(self) -> None:
        super().__init__()
        self.inner, self.after = conv(WIDTH, WIDTH), conv(WIDTH, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        return cast(Tensor, self.after(torch.relu(self.inner(x.float())).to(torch.float32)))


class Constant(nn.Module):
    """A kernel made anew at every pass."""

    def __init__(self) -> None:
        super().__init__()
        self.inner, self.after = conv(WIDTH, WIDTH), conv(WIDTH, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        x = self.inner(x)
        kernel = torch.full((x.shape[1], 1, 3, 3), 1 / 9)
        return cast(Tensor, self.after(F.conv2d(x, kernel, padding=1, groups=x.shape[1])))


class Positions(nn.Module):
    """A learned picture is added."""

    def __init__(self) -> None:
        super().__init__()
        self.inner, self.after = conv(WIDTH, WIDTH), conv(WIDTH, WIDTH)
        self.places = nn.Parameter(torch.randn(1, WIDTH, 32, 32) * 0.1)

    def forward(self, x: Tensor) -> Tensor:
        return cast(Tensor, self.after(self.inner(x) + self.places))


class Noise(nn.Module):
    """StyleGAN's noise, with a strength for each channel, of a fixed map."""

    def __init__(self) -> None:
        super().__init__()
        self.inner, self.after = conv(WIDTH, WIDTH), conv(WIDTH, WIDTH)
        self.strength = nn.Parameter(torch.rand(1, WIDTH, 1, 1))
        self.register_buffer("map", torch.randn(1, 1, 32, 32))

    def forward(self, x: Tensor) -> Tensor:
        return cast(Tensor, self.after(F.leaky_relu(self.inner(x) + self.strength * cast(Tensor, self.map))))


class PixelNorm(nn.Module):
    """Divides by a mean over channels."""

    def __init__(self) -> None:
        super().__init__()
        self.inner, self.after = conv(WIDTH, WIDTH), conv(WIDTH, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        x = self.inner(x)
        return cast(Tensor, self.after(x * torch.rsqrt(x.square().mean(dim=1, keepdim=True) + 1e-8)))


class FrequencyMix(nn.Module):
    """A Fourier transform, of which nothing is known."""

    def __init__(self) -> None:
        super().__init__()
        self.inner, self.after = conv(WIDTH, WIDTH), conv(WIDTH, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        y = self.inner(x)
        return cast(Tensor, self.after(torch.fft.irfft2(torch.fft.rfft2(y), s=y.shape[-2:])))


class Named(nn.Module):
    """Its code names a number of channels."""

    def __init__(self) -> None:
        super().__init__()
        self.inner, self.after = conv(WIDTH, WIDTH), conv(WIDTH, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        return cast(Tensor, self.after(self.inner(x) + torch.zeros(1, WIDTH, 1, 1)))


class SliceWriter(nn.Module):
    """Writes into a part of a tensor that it has made."""

    def __init__(self) -> None:
        super().__init__()
        self.inner, self.after = conv(WIDTH, WIDTH), conv(2 * WIDTH, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        y = self.inner(x)
        out = torch.zeros(x.shape[0], 2 * WIDTH, *x.shape[2:])
        out[:, :WIDTH] = y
        out[:, WIDTH:] = x
        return cast(Tensor, self.after(out))


class Unshuffled(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner, self.after = conv(4 * WIDTH, 4 * WIDTH), conv(WIDTH, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        return cast(Tensor, self.after(F.pixel_shuffle(self.inner(F.pixel_unshuffle(x, 2)), 2)))


class Einsum(nn.Module):
    """A 1x1 convolution as ``einsum``."""

    def __init__(self) -> None:
        super().__init__()
        self.mix, self.after = nn.Parameter(torch.randn(WIDTH, WIDTH) * 0.3), conv(WIDTH, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        return cast(Tensor, self.after(torch.relu(torch.einsum("nchw,dc->ndhw", x, self.mix))))


def half() -> nn.Module:
    return Around(conv(WIDTH, WIDTH)).half()


def missing() -> nn.Module:
    generator = Around(conv(WIDTH, WIDTH))
    with torch.no_grad():
        generator.second.weight[0, 0, 0, 0] = torch.nan
    return generator


def sequence(*parts: nn.Module) -> nn.Module:
    return Around(nn.Sequential(*parts))


KINDS: dict[str, Callable[[], nn.Module]] = {
    "subclass of Conv2d": lambda: sequence(PadConv(WIDTH, WIDTH, 3, padding=1), nn.ReLU(), PadConv(WIDTH, WIDTH, 1)),
    "three plain and three subclasses": lambda: nn.Sequential(
        *[
            m
            for i in range(5)
            for m in (
                (conv, PadConv)[i % 2](8 if i else 3, 8, 3, padding=1) if i % 2 else conv(8 if i else 3, 8),
                nn.ReLU(),
            )
        ],
        PadConv(8, 3, 3, padding=1),
    ),
    "weight-standardised": lambda: sequence(StandardisedConv(WIDTH, WIDTH, 3, padding=1), nn.ReLU()),
    "pads in its forward": lambda: sequence(SameConv(WIDTH, WIDTH, 3), nn.ReLU(), conv(WIDTH, WIDTH)),
    "equalised linear": lambda: sequence(
        Function(lambda x: x.permute(0, 2, 3, 1)),
        EqualisedLinear(WIDTH, WIDTH),
        Function(lambda x: x.permute(0, 3, 1, 2)),
        conv(WIDTH, WIDTH),
    ),
    "own parameter": lambda: sequence(OwnConv(), nn.ReLU()),
    "own parameter between": lambda: Around(FunctionalConv()),
    "modulated": lambda: Around(Modulated()),
    "instance norm's own constructor": lambda: sequence(conv(WIDTH, WIDTH), OwnNorm(WIDTH), nn.ReLU()),
    "affine instance norm's own constructor": lambda: sequence(conv(WIDTH, WIDTH), AffineNorm(WIDTH), nn.ReLU()),
    "batch norm's own constructor": lambda: sequence(conv(WIDTH, WIDTH), OwnBatchNorm(WIDTH), nn.ReLU()),
    "F.instance_norm": lambda: sequence(conv(WIDTH, WIDTH), ScaleNorm(WIDTH), nn.ReLU()),
    "F.instance_norm without scale": lambda: sequence(conv(WIDTH, WIDTH), Function(F.instance_norm), nn.ReLU()),
    "norm by hand": lambda: sequence(conv(WIDTH, WIDTH), HandNorm(WIDTH), nn.ReLU()),
    "F.group_norm": lambda: sequence(conv(WIDTH, WIDTH), GroupFunction(WIDTH), nn.ReLU()),
    "frozen batch norm": lambda: sequence(conv(WIDTH, WIDTH), FrozenBatchNorm(WIDTH), nn.ReLU(), conv(WIDTH, WIDTH)),
    "synchronised batch norm": lambda: sequence(conv(WIDTH, WIDTH), nn.SyncBatchNorm(WIDTH), nn.ReLU()),
    "layer norm of the map": lambda: sequence(conv(WIDTH, WIDTH), nn.LayerNorm([WIDTH, 32, 32]), nn.ReLU()),
    "layer norm of the channels": lambda: Around(LastNorm()),
    "layer scale": lambda: Around(LayerScale()),
    "pixel norm": lambda: Around(PixelNorm()),
    "AdaIN": lambda: Around(AdaIn()),
    "GLU": lambda: Around(Glu("glu")),
    "GLU by chunk": lambda: Around(Glu("chunk")),
    "GLU by split": lambda: Around(Glu("split")),
    "halves by slices": lambda: Around(Parts(fixed=False)),
    "halves by split": lambda: Around(Parts(fixed=True)),
    "channel shuffle": lambda: Around(Shuffle()),
    "torch's channel shuffle": lambda: sequence(conv(WIDTH, WIDTH), nn.ChannelShuffle(2), conv(WIDTH, WIDTH)),
    "partial convolution": lambda: sequence(Partial(WIDTH, WIDTH, 3, padding=1), nn.ReLU(), conv(WIDTH, WIDTH)),
    "windows": lambda: Around(Windows()),
    "concatenated rectifiers": lambda: Around(
        Function(lambda x: torch.relu(torch.cat([x, -x], dim=1))), after=2 * WIDTH
    ),
    "Haar": lambda: Around(
        Function(
            lambda x: (
                torch.cat([x[:, :, ::2, ::2] + x[:, :, 1::2, 1::2], x[:, :, ::2, 1::2]], dim=1)
                .repeat_interleave(2, dim=2)
                .repeat_interleave(2, dim=3)
            )
        ),
        after=2 * WIDTH,
    ),
    "one picture alone": lambda: Around(Function(lambda x: F.grid_sample(x, torch.zeros(1, 32, 32, 2)))),
    "pixel shuffle": lambda: nn.Sequential(
        conv(3, 8), nn.ReLU(), conv(8, 16, stride=2), nn.ReLU(), nn.PixelShuffle(2), conv(4, 8), nn.ReLU(), conv(8, 3)
    ),
    "pixel unshuffle": lambda: Around(Unshuffled()),
    "attention": lambda: Around(Attention()),
    "attention, trained": lambda: Around(Attention(scale=0.5)),
    "attention with named channels": lambda: Around(Attention(named=True, scale=0.5)),
    "heads": lambda: Around(Heads()),
    "torch's heads": lambda: Around(TorchHeads()),
    "blur, buffer": lambda: Around(Blur("buffer")),
    "blur, attribute": lambda: Around(Blur("attribute")),
    "blur, expanded": lambda: Around(Blur("expanded")),
    "constant kernel": lambda: Around(Constant()),
    "two resolutions": lambda: Around(Twice()),
    "two names": lambda: Around(TwoNames()),
    "tied weights": lambda: Around(TiedWeights()),
    "borrowed weight": lambda: Around(Borrowed()),
    "a head for training": lambda: Around(TrainingHead()),
    "casts": lambda: Around(Casting()),
    "learned picture": lambda: Around(Positions()),
    "noise": lambda: Around(Noise()),
    "Fourier": lambda: Around(FrequencyMix()),
    "named width": lambda: Around(Named()),
    "written in parts": lambda: Around(SliceWriter()),
    "einsum": lambda: Around(Einsum()),
    "grouped": lambda: sequence(conv(WIDTH, WIDTH, groups=2), nn.ReLU(), conv(WIDTH, WIDTH)),
    "half precision": half,
    "not a number": missing,
    "compiled": lambda: cast(nn.Module, torch.compile(Around(conv(WIDTH, WIDTH)))),
    "compiled inside": lambda: Around(cast(nn.Module, torch.compile(conv(WIDTH, WIDTH)))),
}
