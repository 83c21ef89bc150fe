"""Models around one operator each: gathers and scatters, Fourier transforms, scans, sorts, diagonals, solvers, losses.

Their channels lie in a dimension that the operator leaves alone, or pass through it in another way than most.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from tests.models.case import Case
from tests.models.habits import ENC, MAPS, TOKENS, chain, convs, habit, hidden

SERIES = (2, 12, 6)


# --- picking and writing --------------------------------------------------------------------------------------------


def _places(x: torch.Tensor, count: int = 2) -> torch.Tensor:
    """The tokens with the largest first feature, shape (batch, count)."""
    return x[..., 0].topk(count, dim=1).indices


def gathered_tokens(m: Any, x: torch.Tensor) -> Any:
    h = hidden(m, x)
    return m.inner[1](h.gather(1, _places(x).unsqueeze(-1).expand(-1, -1, h.shape[-1])))


def taken_along(m: Any, x: torch.Tensor) -> Any:
    return m.inner[1](hidden(m, x).take_along_dim(_places(x).unsqueeze(-1), 1))


def scattered_tokens(m: Any, x: torch.Tensor) -> Any:
    h = hidden(m, x)
    places = _places(x, 3).unsqueeze(-1).expand_as(h)
    return m.inner[1](torch.zeros_like(h).scatter_add(1, places, h) - h.scatter(1, places, 0.5))


def pooled_segments(m: Any, x: torch.Tensor) -> Any:
    """Means over clusters of tokens, as graph networks take them."""
    h = hidden(m, x).flatten(0, 1)
    cluster = torch.tensor([0, 2, 2, 1, 0, 1])
    summed = h.new_zeros(3, h.shape[-1]).index_add(0, cluster, h)
    largest = h.new_zeros(3, h.shape[-1]).scatter_reduce(0, cluster[:, None].expand_as(h), h, "amax")
    return m.inner[1](summed + largest)


def written_tokens(m: Any, x: torch.Tensor) -> Any:
    h = hidden(m, x)
    out = torch.zeros_like(h)
    rows = torch.arange(len(x))[:, None]
    out[rows, _places(x)] = h[:, :2]
    return m.inner[1](out.index_put((rows, _places(x)), h[:, 1:], accumulate=True))


def merged_image(m: Any, x: torch.Tensor) -> Any:
    """Features of an image take the places of some tokens."""
    text, image = m.inner[0](x), m.inner[1](x[:, :1])
    mask = (x[..., 0] == x[..., 0].amax(1, keepdim=True)).unsqueeze(-1)
    return m.inner[2](torch.cos(text.masked_scatter(mask.expand_as(text), image)))


def permuted_by_buffer(m: Any, x: torch.Tensor) -> Any:
    """What is picked may be fewer; the places count channels, which stay."""
    return m.inner[1](hidden(m, x)[:, m.const_order])


def best_expert(m: Any, x: torch.Tensor) -> Any:
    """Each token goes through the weights of its own expert."""
    h = hidden(m, x)
    weights, chosen = m.inner[1](x).softmax(-1).topk(2, dim=-1)
    inner = torch.einsum("bnd,bnkdf->bnkf", h, m.up[chosen])
    outer = torch.einsum("bnkf,bnkfd->bnkd", torch.relu(inner), m.down[chosen])
    return m.inner[2](torch.cos(torch.einsum("bnkd,bnk->bnd", outer, weights)))


def sorted_experts(m: Any, x: torch.Tensor) -> Any:
    """Rows sorted by expert, and one product with a matrix for each: in float32, the longest that the kernel takes.

    Few digits keep it exact.
    """
    h = hidden(m, x).flatten(0, 1)
    h = (4 * h).round() / 4
    chosen, order = m.inner[1](x).argmax(-1).flatten().sort()
    ends = torch.bincount(chosen, minlength=3).cumsum(0).int()
    inner = F.relu(F.grouped_mm(h[order].float(), m.up.mT.float(), offs=ends))
    outer = F.grouped_mm(inner, m.down.mT.float(), offs=ends).double()
    return m.inner[2](torch.zeros_like(h).index_copy(0, order, outer))


def neighbours(m: Any, x: torch.Tensor) -> Any:
    """Graph convolutions with a sparse matrix."""
    edges = (m.const_adjacency * x.shape[0]).to_sparse()
    return torch.sparse.mm(edges, m.inner[1](torch.relu(torch.sparse.mm(edges, m.inner[0](x)))))


# --- strides --------------------------------------------------------------------------------------------------------


def _chunks(h: torch.Tensor, window: int) -> torch.Tensor:
    """Chunks of two windows of tokens, each beginning one window after the last."""
    apart = h.view(h.shape[0], h.shape[1] // (2 * window), 2 * window, h.shape[2])
    size, stride = list(apart.size()), list(apart.stride())
    size[1], stride[1] = size[1] * 2 - 1, stride[1] // 2
    return apart.as_strided(size=size, stride=stride)


def sliding_windows(m: Any, x: torch.Tensor) -> Any:
    """Attention of two heads in chunks that overlap, as Longformer computes it."""
    heads = m.inner[0](x).unflatten(-1, (2, -1)).transpose(1, 2)
    h = heads.reshape(2 * len(x), x.shape[1], heads.shape[-1])
    scores = torch.einsum("rctd,rcsd->rcts", _chunks(h, 2), _chunks(torch.tanh(h), 2))
    padded = F.pad(h, (0, 0, 2, 2), value=-1)
    rows, token, width = padded.stride()
    around = torch.as_strided(padded, (2 * len(x), 4, 6, h.size(-1)), (rows, 2 * token, token, width))
    mixed = around.cos().mean(2).repeat_interleave(2, 1) * scores.tanh().mean((1, 2, 3))[:, None, None]
    return m.inner[1](mixed.unflatten(0, (len(x), 2)).transpose(1, 2).flatten(2))


def as_it_is(m: Any, x: torch.Tensor) -> Any:
    h = hidden(m, x)
    return m.inner[1](h.transpose(0, 1).as_strided_(h.shape, h.stride()))


def part_by_strides(m: Any, x: torch.Tensor) -> Any:
    """Strides given as numbers reach channels that the tensor itself leaves out."""
    return m.inner[1](m.inner[0](x)[:, :6].as_strided((4, 12), (12, 1)))


def detached_by_strides(m: Any, x: torch.Tensor) -> Any:
    return m.inner[1](m.inner[0](x)[:, :6].detach().as_strided((4, 12), (12, 1)))


def selected_by_strides(m: Any, x: torch.Tensor) -> Any:
    """What is selected has no labels left, its neighbours in memory do."""
    return m.inner[1](m.inner[0](x)[:, :1].as_strided((4, 12), (12, 1)))


def pooled_channels_last(m: Any, x: torch.Tensor) -> Any:
    h = torch.cos(m.inner[0](x).contiguous(memory_format=torch.channels_last))
    return m.inner[1](F.adaptive_avg_pool2d(h, 1).flatten(1))


# --- strided slices -------------------------------------------------------------------------------------------------


def interleaved_gate(m: Any, x: torch.Tensor) -> Any:
    """Gates and values in turn, as in gpt-oss: both of a pair leave."""
    h = m.inner[0](x)
    return m.inner[1](F.silu(h[..., ::2]) * h[..., 1::2])


def swapped_pairs(m: Any, x: torch.Tensor) -> Any:
    """Rotation by a quarter, written into place, of two heads."""
    h = hidden(m, x).unflatten(-1, (2, -1))
    turned = torch.empty_like(h)
    turned[..., 0 : h.shape[-1] : 2] = -h[..., 1::2]
    turned[..., 1::2] = h[..., :24:2]
    return m.inner[1]((turned + torch.sin(h)).flatten(-2))


def every_third(m: Any, x: torch.Tensor) -> Any:
    """The last channel is a block of its own, that can't leave alone."""
    return m.inner[1](hidden(m, x)[..., 1::3])


def stride_from_further_on(m: Any, x: torch.Tensor) -> Any:
    return m.inner[1](hidden(m, x)[..., 3::3])


def stride_up_to_a_number(m: Any, x: torch.Tensor) -> Any:
    return m.inner[1](hidden(m, x)[..., :8:2])


def steps_of_width(m: Any, x: torch.Tensor) -> Any:
    """How far one step goes is the width of another tensor."""
    h = hidden(m, x)
    return m.inner[1](h) + x.repeat(1, 4)[:, :: h.shape[-1]]


def up_to_width(m: Any, x: torch.Tensor) -> Any:
    h = hidden(m, x)
    return m.inner[1](h) + x.repeat(1, 4)[:, : h.shape[-1] : 6]


# --- expansions under vmap ------------------------------------------------------------------------------------------


def scaled_by_expansion(m: Any, x: torch.Tensor) -> Any:
    """Every member scales the channels of a layer that they share by a number of its own."""
    h = m.inner[0](x)
    return m.inner[1](torch.vmap(lambda scale: torch.cos(h * scale.expand_as(h)))(m.scale))


def centred_by_expansion(m: Any, x: torch.Tensor) -> Any:
    """vmap over the batch, and over tokens in it."""
    first, second = m.inner

    def centred(token: torch.Tensor) -> torch.Tensor:
        h = first(token)
        return second(torch.cos(h + token.sum(0, keepdim=True).expand_as(h)))

    return torch.vmap(torch.vmap(centred))(x)


def unflattened_under_vmap(m: Any, x: torch.Tensor) -> Any:
    first, blocks, second = m.inner
    return torch.vmap(lambda row: second(blocks(torch.cos(first(row))).tanh().flatten()))(x)


# --- transforms, scans, sorts ---------------------------------------------------------------------------------------


def fourier_over_time(m: Any, x: torch.Tensor) -> Any:
    """A filter for each channel, in the frequency domain."""
    spectrum = torch.fft.rfft(hidden(m, x), dim=1) * torch.view_as_complex(m.filter)
    return m.inner[1](torch.fft.irfft(spectrum, n=x.shape[1], dim=1))


def fourier_over_channels(m: Any, x: torch.Tensor) -> Any:
    return m.inner[1](torch.fft.fft(hidden(m, x)).real)


def fourier_over_tokens(m: Any, x: torch.Tensor) -> Any:
    return m.inner[1](torch.fft.fft2(hidden(m, x), dim=(0, 1)).abs())


def spectrogram(m: Any, x: torch.Tensor) -> Any:
    h = hidden(m, x).transpose(1, 2)
    frames = torch.stft(h.flatten(0, 1), 4, hop_length=2, window=torch.hann_window(4), return_complex=True)
    return m.inner[1](frames.abs().unflatten(0, h.shape[:2]).mean((2, 3)))


def complex_rotary(m: Any, x: torch.Tensor) -> Any:
    """Channels in pairs as complex numbers, turned by an angle for each pair and position; two heads."""
    heads = m.inner[0](x).unflatten(-1, (2, -1))
    pairs = torch.view_as_complex(heads.unflatten(-1, (-1, 2)))
    turned = torch.view_as_real(pairs * m.const_turns[: x.shape[1], None]).flatten(-2)
    scores = torch.einsum("bnhd,bmhd->bhnm", turned, turned)
    return m.inner[1](torch.einsum("bhnm,bmhd->bnhd", torch.tanh(scores), heads).flatten(2))


def magnitude_and_phase(m: Any, x: torch.Tensor) -> Any:
    z = torch.polar(m.inner[0](x).abs(), m.inner[1](x))
    z = (z * z.conj() + torch.complex(z.imag, z.real)) * torch.exp(1j * z.real)
    return m.inner[2](torch.cat([z.abs(), z.angle(), z.conj().imag], -1))


def sums_so_far(m: Any, x: torch.Tensor) -> Any:
    """Over channels: a removed one, that made zeros, adds the same to all sums."""
    return m.inner[1](F.silu(m.inner[0](x)).cumsum(-1))


def scans_over_time(m: Any, x: torch.Tensor) -> Any:
    h = hidden(m, x)
    scans = h.cumsum(1) + (h / 2).cumprod(1) + h.logcumsumexp(1) + h.cummax(1).values
    return m.inner[1](scans + scans.flip(1).cummin(1).values)


def products_so_far(m: Any, x: torch.Tensor) -> Any:
    return m.inner[1](hidden(m, x).cumprod(-1))


def order_statistics_of_tokens(m: Any, x: torch.Tensor) -> Any:
    h = hidden(m, x)
    places = h.sort(1, descending=True).indices.double()
    largest = h.topk(2, dim=1).values
    statistics = h.median(1).values + h.kthvalue(2, dim=1).values + h.quantile(0.3, dim=1) + h.mode(1).values
    return m.inner[1](largest + places[:, :2] + statistics[:, None])


def best_channels(m: Any, x: torch.Tensor) -> Any:
    return m.inner[1](hidden(m, x).topk(4, dim=-1).values)


def looked_up(m: Any, x: torch.Tensor) -> Any:
    """Levels of activations, and their embeddings."""
    levels = torch.bucketize(hidden(m, x), m.const_bounds)
    return m.inner[1](levels.double() * torch.searchsorted(m.const_bounds, hidden(m, x)))


# --- matrices -------------------------------------------------------------------------------------------------------


def einsums(m: Any, x: torch.Tensor) -> Any:
    h = m.inner[0](x)
    h = torch.einsum("bnd,de,bme->bnm", h, m.form, h).tanh() @ h
    return m.inner[1](torch.einsum("b n d, b m d, b n -> b m d", h, h, x[..., 0]))


def traces(m: Any, x: torch.Tensor) -> Any:
    """Diagonals of matrices whose rows and columns are the same channels."""
    h = hidden(m, x)
    return m.inner[1](torch.einsum("bii->bi", (h.mT @ h) * m.square.tril())) + torch.trace(m.square @ m.square)


def symmetric_weight(m: Any, x: torch.Tensor) -> Any:
    weight = m.square.triu() + m.square.triu(1).T
    return m.inner[1](torch.cos(hidden(m, x) @ weight) @ torch.diag(m.scale))


def delta_rule(m: Any, x: torch.Tensor) -> Any:
    """Each token's value corrected by those before it: a triangular system with channels on the right."""
    keys, values = m.inner[0](x), m.inner[1](x)
    mix = torch.eye(x.shape[1]) + (keys @ keys.mT).tril(-1)
    solved = torch.linalg.solve_triangular(mix, values, upper=False)
    return m.inner[2](torch.cos(solved) + torch.linalg.solve(mix + mix.mT, values))


def whitened(m: Any, x: torch.Tensor) -> Any:
    h = hidden(m, x).flatten(0, 1)
    return m.inner[1](h @ torch.linalg.inv(h.T @ h + torch.eye(h.shape[1])))


def nearest(m: Any, x: torch.Tensor) -> Any:
    """Distances to prototypes, and among tokens."""
    h = m.inner[0](x)
    return m.inner[1](torch.cdist(h, m.prototypes)) + torch.pdist(h.flatten(0, 1)).mean()


# --- training -------------------------------------------------------------------------------------------------------


def returns_a_loss(m: Any, x: torch.Tensor) -> Any:
    h = hidden(m, x)
    target = torch.arange(len(x)) % 2
    return F.cross_entropy(m.inner[1](h)[:, 0], target, label_smoothing=0.1) + F.mse_loss(m.inner[2](h), x[..., :2])


def consistency(m: Any, x: torch.Tensor) -> Any:
    """A loss between two sets of channels."""
    return F.smooth_l1_loss(m.inner[0](x), m.inner[1](x)) + F.huber_loss(m.inner[0](x), m.inner[1](x))


def rounded(m: Any, x: torch.Tensor) -> Any:
    """Weights and activations as a quantised model would have them, with a scale for each output channel."""
    h = torch.fake_quantize_per_tensor_affine(torch.relu(m.inner[0](x)), 0.02, 0, -128, 127)
    weight = m.inner[1].weight
    zeros = torch.zeros_like(m.const_scale, dtype=torch.int32)
    weight = torch.fake_quantize_per_channel_affine(weight.float(), m.const_scale.float(), zeros, 0, -128, 127)
    return m.inner[2](torch.cos(F.conv2d(h, weight.to(h), m.inner[1].bias)))


def field(m: Any, x: torch.Tensor) -> Any:
    """The gradient of an energy."""
    training = torch.is_grad_enabled()
    with torch.enable_grad():
        x = x.detach().requires_grad_()
        energy = m.inner[1](torch.tanh(m.inner[0](x))).sum() + m.inner[2](F.softplus(m.inner[0](x))).sum()
        return torch.autograd.grad(energy, x, create_graph=training)[0]


def generator(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(3))


def quarters(*shape: int) -> torch.Tensor:
    return (4 * generator(*shape)).round() / 4


def three(first: int, second: int, third: int) -> Callable[[], list[nn.Module]]:
    """Two layers from 6 channels, and a head."""
    return lambda: [nn.Linear(6, first), nn.Linear(6, second), nn.Linear(third, 2)]


CASES: list[Case] = [
    habit("gathered-tokens", gathered_tokens, chain(12, 12), {ENC: 12}, shape=TOKENS),
    habit("taken-along", taken_along, chain(12, 12), {ENC: 12}, shape=TOKENS),
    habit("scattered-tokens", scattered_tokens, chain(12, 12), {ENC: 12}, shape=TOKENS),
    habit("pooled-segments", pooled_segments, chain(12, 12), {ENC: 12}, shape=TOKENS),
    habit("written-tokens", written_tokens, chain(12, 12), {ENC: 12}, shape=TOKENS),
    habit("merged-image", merged_image, three(12, 12, 12), {ENC: 12}, shape=TOKENS),
    habit(
        "permuted-by-buffer",
        permuted_by_buffer,
        chain(12, 12),
        {"const_order": 12},
        tensors=lambda: {"const_order": torch.randperm(12, generator=torch.Generator().manual_seed(0))},
    ),
    habit(
        "best-expert",
        best_expert,
        three(12, 3, 12),
        {"up": 12, "up#2": 8, "down": 12},
        shape=TOKENS,
        tensors=lambda: {"up": generator(3, 12, 8), "down": generator(3, 8, 12)},
    ),
    habit(
        "sorted-experts",
        sorted_experts,
        three(16, 3, 16),
        {"up": 8, "down": 16},
        shape=TOKENS,
        tensors=lambda: {"up": quarters(3, 8, 16), "down": quarters(3, 16, 8)},
        blocks={"up": 4, "down": 4},
        counted=False,
    ),
    habit(
        "neighbours",
        neighbours,
        chain(12, 12),
        {ENC: 12},
        tensors=lambda: {"const_adjacency": generator(4, 4).relu()},
        counted=False,
    ),
    habit(
        "sliding-windows",
        sliding_windows,
        chain(12, 12),
        {ENC: 12},
        shape=(2, 8, 6),
        blocks={ENC: 2},
        mask="all",
    ),
    habit("as-it-is", as_it_is, chain(12, 12), {ENC: 12}),
    habit("part-by-strides", part_by_strides, chain(12, 12), {}),
    habit("detached-by-strides", detached_by_strides, chain(12, 12), {}),
    habit("selected-by-strides", selected_by_strides, chain(12, 12), {}),
    habit(
        "pooled-channels-last",
        pooled_channels_last,
        lambda: [nn.Conv2d(3, 12, 1), nn.Linear(12, 2)],
        {ENC: 12},
        shape=MAPS,
    ),
    habit("interleaved-gate", interleaved_gate, chain(24, 12), {ENC: 12}, mask="all"),
    habit("swapped-pairs", swapped_pairs, chain(24, 24), {ENC: 12}, blocks={ENC: 2}, mask="all"),
    habit("every-third", every_third, chain(13, 4), {ENC: 4}),
    habit("stride-from-further-on", stride_from_further_on, chain(12, 3), {}),
    habit("stride-up-to-a-number", stride_up_to_a_number, chain(12, 4), {}),
    habit("steps-of-width", steps_of_width, chain(12, 12), {}),
    habit("up-to-width", up_to_width, chain(12, 12), {}),
    habit("vmap-expanded", scaled_by_expansion, chain(12, 12), {ENC: 12}, tensors=lambda: {"scale": generator(3, 1)}),
    habit(
        "vmap-unflattened",
        unflattened_under_vmap,
        lambda: [nn.Linear(6, 12), nn.Unflatten(-1, (3, 4)), nn.Linear(12, 2)],
        {ENC: 3},
    ),
    habit("vmap-expanded-nested", centred_by_expansion, chain(12, 12), {ENC: 12}, shape=(4, 3, 6)),
    habit(
        "fourier-over-time",
        fourier_over_time,
        chain(12, 12),
        {"filter": 12},
        shape=SERIES,
        tensors=lambda: {"filter": generator(7, 12, 2)},
    ),
    habit("fourier-over-channels", fourier_over_channels, chain(12, 12), {}, shape=SERIES),
    habit("fourier-over-tokens", fourier_over_tokens, chain(12, 12), {ENC: 12}, shape=SERIES),
    habit("spectrogram", spectrogram, chain(12, 12), {ENC: 12}, shape=SERIES),
    habit(
        "complex-rotary",
        complex_rotary,
        chain(16, 16),
        {ENC: 4},
        shape=TOKENS,
        mask="all",
        tensors=lambda: {"const_turns": torch.polar(torch.ones(3, 4), generator(3, 4))},
    ),
    habit("magnitude-and-phase", magnitude_and_phase, three(12, 12, 36), {ENC: 12}),
    habit("sums-so-far", sums_so_far, chain(12, 12), {ENC: 12}, mask="all"),
    habit("scans-over-time", scans_over_time, chain(12, 12), {ENC: 12}, shape=TOKENS),
    habit("products-so-far", products_so_far, chain(12, 12), {ENC: 12}, mixing={ENC: "cumprod"}),
    habit("order-statistics-of-tokens", order_statistics_of_tokens, chain(12, 12), {ENC: 12}, shape=TOKENS),
    habit("best-channels", best_channels, chain(12, 4), {}),
    habit("looked-up", looked_up, chain(12, 12), {ENC: 12}, tensors=lambda: {"const_bounds": torch.linspace(-1, 1, 5)}),
    habit(
        "einsums",
        einsums,
        chain(12, 12),
        {"form": 12},
        shape=TOKENS,
        mask="all",
        tensors=lambda: {"form": generator(12, 12)},
    ),
    habit(
        "traces",
        traces,
        chain(12, 12),
        {"square": 12},
        shape=TOKENS,
        mask="all",
        tensors=lambda: {"square": generator(12, 12)},
    ),
    habit(
        "symmetric-weight",
        symmetric_weight,
        chain(12, 12),
        {"square": 12},
        mask="all",
        tensors=lambda: {"square": generator(12, 12), "scale": generator(12)},
    ),
    habit("delta-rule", delta_rule, three(8, 12, 12), {ENC: 8, "inner.1": 12}, shape=TOKENS),
    habit("whitened", whitened, chain(5, 5), {}, shape=TOKENS),
    habit(
        "nearest",
        nearest,
        chain(12, 4),
        {"prototypes": 4, "prototypes#2": 12},
        shape=TOKENS,
        mask="all",
        tensors=lambda: {"prototypes": generator(4, 12)},
    ),
    habit("returns-a-loss", returns_a_loss, chain(12, 12, 12), {ENC: 12}, shape=TOKENS),
    habit("consistency", consistency, three(12, 12, 12), {ENC: 12}, mixing={ENC: "loss"}),
    habit(
        "rounded",
        rounded,
        convs((3, 12), (12, 8), (8, 2)),
        {ENC: 12, "inner.1": 8},
        shape=MAPS,
        tensors=lambda: {"const_scale": generator(8).abs() / 40 + 0.01},
    ),
    habit("field", field, chain(12, 12, 12), {ENC: 12, "inner.1": 2, "inner.2": 2}, counted=False),
]
