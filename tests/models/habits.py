"""What people write in ``forward``: rows of a split axis, views written to, weights made from weights, odd operators.

Small functions around one encoder, each a case that once was, or easily could be, wrong.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.checkpoint import checkpoint

from tests.models.case import Case, Step, doubled
from tests.models.vectors import vector

Function = Callable[[Any, torch.Tensor], Any]
ENC = "inner.0"
TOKENS = (2, 3, 6)
MAPS = (2, 3, 6, 6)


def habit(
    name: str,
    function: Function,
    layers: Callable[[], list[nn.Module]],
    groups: dict[str, int],
    *,
    shape: tuple[int, ...] = (4, 6),
    tensors: Callable[[], dict[str, torch.Tensor]] = dict,
    **expected: Any,
) -> Case:
    """A case from a function ``f(module, x)`` that finds its layers in ``module.inner`` and ``tensors`` by name."""
    return Case(name, lambda: Step(function, *layers(), **doubled(tensors())), vector(*shape), groups, **expected)


def chain(*widths: int) -> Callable[[], list[nn.Module]]:
    """An encoder from 6 channels and one head per following width."""
    return lambda: [nn.Linear(6, widths[0]), *(nn.Linear(width, 2) for width in widths[1:])]


def convs(*layers: tuple[int, int]) -> Callable[[], list[nn.Module]]:
    return lambda: [nn.Conv2d(before, after, 1) for before, after in layers]


def hidden(m: Any, x: torch.Tensor) -> torch.Tensor:
    """The encoder's output after a function that does not keep zero."""
    return torch.cos(m.inner[0](x))


def layer_norm_over_rows(m: Any, x: torch.Tensor) -> Any:
    h = m.inner[0](x).view(len(x), 3, -1).transpose(1, 2)
    return m.inner[1](F.layer_norm(h, (3,)).transpose(1, 2).flatten(1))


def mean_over_rows(m: Any, x: torch.Tensor) -> Any:
    h = m.inner[0](x).view(len(x), 3, -1)
    return m.inner[1]((h - h.mean(1, keepdim=True)).flatten(1))


def softmax_over_rows(m: Any, x: torch.Tensor) -> Any:
    return m.inner[1](m.inner[0](x).view(len(x), 3, -1).softmax(1).flatten(1))


def instance_norm_of_pieces(m: Any, x: torch.Tensor) -> Any:
    h = m.inner[0](x).view(len(x), 2, -1, 1)
    return m.inner[1](F.instance_norm(h).reshape(len(x), -1))


def instance_norm_of_tokens(m: Any, x: torch.Tensor) -> Any:
    return m.inner[1](F.instance_norm(m.inner[0](x)))


def batch_statistics_of_tokens(m: Any, x: torch.Tensor) -> Any:
    return m.inner[1](F.batch_norm(m.inner[0](x), None, None, training=True))


def functional_batch_norm(m: Any, x: torch.Tensor) -> Any:
    return m.inner[1](F.batch_norm(hidden(m, x), m.const_mean, m.const_var.abs() + 0.5, m.gain, None))


def reversed_rows(m: Any, x: torch.Tensor) -> Any:
    h = hidden(m, x).view(len(x), 3, -1)
    return m.inner[1]((h + h.flip(1)).flatten(1))


def rotated_rows(m: Any, x: torch.Tensor) -> Any:
    h = hidden(m, x).view(len(x), 3, -1)
    return m.inner[1]((h * h.roll(1, 1)).flatten(1))


def scaled_within_rows(m: Any, x: torch.Tensor) -> Any:
    return m.inner[1]((hidden(m, x).view(len(x), 3, -1) * m.gain).flatten(1))


def mixed_rows(m: Any, x: torch.Tensor) -> Any:
    return m.inner[1]((m.matrix @ hidden(m, x).view(len(x), 3, -1)).flatten(1))


def projected_rows(m: Any, x: torch.Tensor) -> Any:
    return m.inner[1](torch.sigmoid(hidden(m, x).view(len(x), 3, -1) @ m.matrix).flatten(1))


def joined_rows(m: Any, x: torch.Tensor) -> Any:
    a, b = hidden(m, x).view(len(x), 3, -1), m.inner[1](x).view(len(x), 2, -1)
    return m.inner[2](torch.cat([a, b], 1).flatten(1))


def joined_columns(m: Any, x: torch.Tensor) -> Any:
    a, b = hidden(m, x).view(len(x), 3, -1), m.inner[1](x).view(len(x), 3, -1)
    return m.inner[2](torch.cat([a, b], 2).flatten(1))


def repeated_rows(m: Any, x: torch.Tensor) -> Any:
    h = hidden(m, x).view(len(x), 3, -1)
    return m.inner[1](torch.cat([h.repeat(1, 2, 1), h.repeat_interleave(2, 1)], 1).flatten(1))


def written_rows(m: Any, x: torch.Tensor) -> Any:
    h = hidden(m, x).view(len(x), 3, -1)
    out = torch.zeros_like(h)
    out[:, 0] = h[:, 2]
    out[:, 1:] = h[:, :2]
    return m.inner[1](out.flatten(1))


def interleaved(m: Any, x: torch.Tensor) -> Any:
    return m.inner[1](hidden(m, x).view(len(x), -1, 3).transpose(1, 2).flatten(1))


def interleaved_in_two(m: Any, x: torch.Tensor) -> Any:
    return m.inner[1](hidden(m, x).view(len(x), 2, -1, 2).permute(0, 3, 2, 1).reshape(len(x), -1))


def paired(m: Any, x: torch.Tensor) -> Any:
    h = hidden(m, x)
    return m.inner[1](torch.stack([h, 2 * h], -1).flatten(1)) + m.inner[2](torch.stack([h, 2 * h], 1).flatten(1))


def merged_with_batch(m: Any, x: torch.Tensor) -> Any:
    return m.inner[1](hidden(m, x).flatten(0, 1))


def windows(m: Any, x: torch.Tensor) -> Any:
    h = hidden(m, x)
    b, c, height, width = h.shape
    h = h.view(b, c, height // 2, 2, width // 2, 2).permute(0, 2, 4, 3, 5, 1).reshape(-1, 4, c)
    return m.inner[1](h)


def patches(m: Any, x: torch.Tensor) -> Any:
    h = hidden(m, x).unfold(2, 2, 2).unfold(3, 2, 2)
    return m.inner[1](h.permute(0, 2, 3, 1, 4, 5).flatten(3))


def unfolded_and_folded(m: Any, x: torch.Tensor) -> Any:
    columns = m.inner[1](F.unfold(hidden(m, x), 2, stride=2).transpose(1, 2)).transpose(1, 2)
    return m.inner[2](F.fold(columns, (6, 6), 2, stride=2))


def weight_as_kernel(m: Any, x: torch.Tensor) -> Any:
    return m.inner[1](torch.cos(F.conv2d(hidden(m, x), m.kernel.view(5, -1, 1, 1))))


def weight_as_kernel_rows(m: Any, x: torch.Tensor) -> Any:
    return m.inner[1](torch.cos(F.conv2d(hidden(m, x), m.kernel.view(-1, 4, 1, 1))))


def kernel_per_sample(m: Any, x: torch.Tensor) -> Any:
    h = hidden(m, x)
    b, c, height, width = h.shape
    kernel = m.inner[1](h.mean((2, 3))).view(b * 5, -1, 1, 1)
    return m.inner[2](F.conv2d(h.reshape(1, b * c, height, width), kernel, groups=b).view(b, 5, height, width))


def depthwise_by_shape(m: Any, x: torch.Tensor) -> Any:
    h = hidden(m, x)
    return m.inner[1](torch.cos(F.conv2d(h, m.kernel, padding=1, groups=h.shape[1])))


def depthwise_by_number(m: Any, x: torch.Tensor) -> Any:
    return m.inner[1](torch.cos(F.conv2d(hidden(m, x), m.kernel, padding=1, groups=4)))


def blurred(m: Any, x: torch.Tensor) -> Any:
    h = hidden(m, x)
    kernel = torch.full((1, 1, 3, 3), 1 / 9, dtype=h.dtype).expand(h.shape[1], -1, -1, -1)
    return m.inner[1](torch.cos(F.conv2d(h, kernel, padding=1, groups=h.shape[1])))


def standardised_weights(m: Any, x: torch.Tensor) -> Any:
    first, second = m.inner[0], m.inner[1]
    weight = first.weight - first.weight.mean(1, keepdim=True)
    h = torch.cos(F.linear(x, weight / weight.std(1, keepdim=True), first.bias))
    return F.linear(h, second.weight - second.weight.mean(1, keepdim=True))


def joined_weights(m: Any, x: torch.Tensor) -> Any:
    return m.inner[2](torch.cos(F.linear(x, torch.cat([m.inner[0].weight, m.inner[1].weight]))))


def cut_weights(m: Any, x: torch.Tensor) -> Any:
    a, b = m.inner[0].weight.chunk(2, 0)
    return m.inner[1](torch.cos(F.linear(x, a)) * torch.sigmoid(F.linear(x, b)))


def reshaped_parameter(m: Any, x: torch.Tensor) -> Any:
    return m.inner[1](torch.cos(m.inner[0](x) + m.grid.reshape(-1)))


def outer_parameters(m: Any, x: torch.Tensor) -> Any:
    i, j = torch.meshgrid(m.gain, m.gain, indexing="ij")
    return m.inner[1](torch.cos(hidden(m, x) @ (i * j)))


def contracted_by_tensordot(m: Any, x: torch.Tensor) -> Any:
    return m.inner[1](torch.cos(torch.tensordot(hidden(m, x), m.matrix, dims=([1], [1]))))


def scaled_addmm(m: Any, x: torch.Tensor) -> Any:
    return torch.addmm(m.inner[1].bias, hidden(m, x), m.inner[1].weight.t(), beta=0.5, alpha=2.0)


def made_alike(m: Any, x: torch.Tensor) -> Any:
    h = m.inner[0](x)
    out = torch.full_like(h, 0.5)
    out[:, :] += h
    out += torch.ones_like(h)
    return m.inner[1](torch.cos(out))


def written_channel(m: Any, x: torch.Tensor) -> Any:
    h = hidden(m, x).clone()
    h[:, 0] = 1.0
    return m.inner[1](h)


def written_slice(m: Any, x: torch.Tensor) -> Any:
    h = hidden(m, x)
    h[:, 2:5] = m.inner[1](x)[:, 1:4]
    return m.inner[2](h)


def updated_view(m: Any, x: torch.Tensor) -> Any:
    h = hidden(m, x)
    view = h[:, :4]
    view += 1
    view.mul_(m.gain)
    return m.inner[1](h)


def updated_piece(m: Any, x: torch.Tensor) -> Any:
    h = m.inner[0](x)
    half = h.shape[1] // 2
    h[:, :half].mul_(h[:, half:].sigmoid())
    return m.inner[1](torch.cos(h))


def updated_row_of_view(m: Any, x: torch.Tensor) -> Any:
    h = hidden(m, x)
    h.view(len(x), 3, -1)[:, 1] *= m.gain
    return m.inner[1](h)


def chosen_rows(m: Any, x: torch.Tensor) -> Any:
    h = hidden(m, x)
    out = torch.zeros_like(h)
    out[torch.tensor([0, 2])] = h[torch.tensor([1, 3])]
    out[1, :] = h[0]
    return m.inner[1](out[x[:, 0] > -9])


def shuffled_channels(m: Any, x: torch.Tensor) -> Any:
    return m.inner[1](hidden(m, x)[:, torch.randperm(12, generator=torch.Generator().manual_seed(0))])


def scanned(m: Any, x: torch.Tensor) -> Any:
    return m.inner[1](hidden(m, x).cumsum(1))


def pooled_channels(m: Any, x: torch.Tensor) -> Any:
    return m.inner[1](F.avg_pool1d(hidden(m, x).unsqueeze(1), 2).squeeze(1))


def as_complex(m: Any, x: torch.Tensor) -> Any:
    turned = torch.view_as_complex(m.inner[0](x).reshape(len(x), -1, 2)) * 1j
    return m.inner[1](torch.view_as_real(turned).flatten(1))


def gram(m: Any, x: torch.Tensor) -> Any:
    h = hidden(m, x)
    return m.inner[1]((h.mT @ h).flatten(1))


def normal_mean(m: Any, x: torch.Tensor) -> Any:
    return m.inner[2](torch.cos(torch.distributions.Normal(m.inner[0](x), m.inner[1](x).exp()).mean))


def checkpointed(m: Any, x: torch.Tensor) -> Any:
    return m.inner[1](torch.cos(checkpoint(m.inner[0], x, use_reentrant=False)))


def filled_cache(m: Any, x: torch.Tensor) -> Any:
    h = hidden(m, x)
    cache = h.new_zeros(2, 7, h.shape[-1])
    cache[:, :3] = h
    cache[:, 3:6].copy_(2 * h)
    return m.inner[1](cache)


def growing_cache(m: Any, x: torch.Tensor) -> Any:
    h, keys, outputs = m.inner[0](x).tanh(), list[torch.Tensor](), list[torch.Tensor]()
    for step in range(h.shape[1]):
        keys.append(h[:, step])
        outputs.append((h[:, step : step + 1] * torch.stack(keys, 1)).mean(1))
    return m.inner[1](torch.stack(outputs, 1))


def modulated(m: Any, x: torch.Tensor) -> Any:
    shift, scale, gate = m.inner[1](hidden(m, x)).chunk(3, -1)
    h = m.inner[2](x)
    inner = F.layer_norm(h, (h.shape[-1],)) * (1 + scale) + shift
    return m.inner[4](h + gate * m.inner[3](inner))


def state_space(m: Any, x: torch.Tensor) -> Any:
    u = m.inner[0](x)
    into, out = m.inner[1](u).chunk(2, -1)
    state, outputs = u.new_zeros(len(u), u.shape[-1], into.shape[-1]), []
    decay = torch.exp(-m.decay.exp())
    for step in range(u.shape[1]):
        state = state * decay + u[:, step, :, None] * into[:, step, None, :]
        outputs.append((state * out[:, step, None, :]).sum(-1) + m.skip * u[:, step])
    return m.inner[2](torch.stack(outputs, 1))


def nearest_code(m: Any, x: torch.Tensor) -> Any:
    h = m.inner[0](x)
    distances = h.pow(2).sum(1, keepdim=True) - 2 * h @ m.code.t() + m.code.pow(2).sum(1)
    return m.inner[1](m.code.index_select(0, distances.argmin(1)))


def tensors(**shapes: tuple[int, ...]) -> Callable[[], dict[str, torch.Tensor]]:
    return lambda: {name: torch.randn(shape) for name, shape in shapes.items()}


CASES = [
    habit("layer-norm-over-rows", layer_norm_over_rows, chain(12, 12), {ENC: 4}),
    habit("mean-over-rows", mean_over_rows, chain(12, 12), {ENC: 4}),
    habit("softmax-over-rows", softmax_over_rows, chain(12, 12), {ENC: 4}),
    habit(
        "instance-norm-of-pieces",
        instance_norm_of_pieces,
        chain(12, 12),
        {ENC: 12},
        blocks={ENC: 2},
        mixing={ENC: "norm"},
    ),
    habit(
        "instance-norm-of-tokens",
        instance_norm_of_tokens,
        chain(12, 12),
        {ENC: 12},
        shape=TOKENS,
        mixing={ENC: "norm"},
    ),
    habit(
        "batch-statistics-of-tokens",
        batch_statistics_of_tokens,
        chain(12, 12),
        {ENC: 12},
        shape=TOKENS,
        mixing={ENC: "norm"},
    ),
    habit(
        "functional-batch-norm",
        functional_batch_norm,
        chain(12, 12),
        {"gain": 12},
        tensors=tensors(gain=(12,), const_mean=(12,), const_var=(12,)),
    ),
    habit(
        "reversed-rows", reversed_rows, chain(12, 12), {ENC: 4, "inner.0#2": 4}, ties=(frozenset({ENC, "inner.0#2"}),)
    ),
    habit("rotated-rows", rotated_rows, chain(12, 12), {ENC: 4}),
    habit("scaled-within-rows", scaled_within_rows, chain(12, 12), {"gain": 4}, tensors=tensors(gain=(4,))),
    habit("mixed-rows", mixed_rows, chain(12, 20), {"matrix": 5}, tensors=tensors(matrix=(5, 3))),
    habit("projected-rows", projected_rows, chain(12, 15), {"matrix": 5, ENC: 4}, tensors=tensors(matrix=(4, 5))),
    habit("joined-rows", joined_rows, lambda: [nn.Linear(6, 12), nn.Linear(6, 8), nn.Linear(20, 2)], {ENC: 4}),
    habit(
        "joined-columns",
        joined_columns,
        lambda: [nn.Linear(6, 12), nn.Linear(6, 6), nn.Linear(18, 2)],
        {ENC: 4, "inner.1": 2},
    ),
    habit("repeated-rows", repeated_rows, chain(12, 48), {ENC: 4}),
    habit("written-rows", written_rows, chain(12, 12), {ENC: 4}),
    habit("interleaved", interleaved, chain(12, 12), {ENC: 4}),
    habit("interleaved-in-two", interleaved_in_two, chain(12, 12), {ENC: 3}),
    habit("paired", paired, chain(12, 24, 24), {ENC: 12}),
    habit("merged-with-batch", merged_with_batch, chain(12, 12), {ENC: 12}, shape=TOKENS),
    habit("windows", windows, lambda: [nn.Conv2d(3, 5, 1), nn.Linear(5, 2)], {ENC: 5}, shape=MAPS),
    habit("patches", patches, lambda: [nn.Conv2d(3, 5, 1), nn.Linear(20, 2)], {ENC: 5}, shape=MAPS),
    habit(
        "unfolded-and-folded",
        unfolded_and_folded,
        lambda: [nn.Conv2d(3, 5, 1), nn.Linear(20, 24), nn.Conv2d(6, 2, 1)],
        {ENC: 5, "inner.1": 6},
        shape=MAPS,
    ),
    habit(
        "weight-as-kernel",
        weight_as_kernel,
        convs((3, 4), (5, 2)),
        {ENC: 4},
        shape=MAPS,
        tensors=tensors(kernel=(20,)),
    ),
    habit(
        "weight-as-kernel-rows",
        weight_as_kernel_rows,
        convs((3, 4), (5, 2)),
        {"kernel": 5},
        shape=MAPS,
        tensors=tensors(kernel=(20,)),
    ),
    habit(
        "kernel-per-sample",
        kernel_per_sample,
        lambda: [nn.Conv2d(3, 4, 1), nn.Linear(4, 20), nn.Conv2d(5, 2, 1)],
        {ENC: 4},
        shape=MAPS,
        mask="all",
    ),
    habit(
        "depthwise-by-shape",
        depthwise_by_shape,
        convs((3, 4), (4, 2)),
        {"kernel": 4},
        shape=MAPS,
        tensors=tensors(kernel=(4, 1, 3, 3)),
    ),
    habit(
        "depthwise-by-number",
        depthwise_by_number,
        convs((3, 4), (4, 2)),
        {},
        shape=MAPS,
        tensors=tensors(kernel=(4, 1, 3, 3)),
    ),
    habit("blurred", blurred, convs((3, 4), (4, 2)), {ENC: 4}, shape=MAPS),
    habit("standardised-weights", standardised_weights, chain(12, 12), {ENC: 12}, mixing={ENC: "over channels"}),
    habit(
        "joined-weights",
        joined_weights,
        lambda: [nn.Linear(6, 7, bias=False), nn.Linear(6, 5, bias=False), nn.Linear(12, 2)],
        {ENC: 7, "inner.1": 5},
    ),
    habit("cut-weights", cut_weights, lambda: [nn.Linear(6, 12, bias=False), nn.Linear(6, 2)], {ENC: 6}),
    habit("reshaped-parameter", reshaped_parameter, chain(12, 12), {"grid": 4}, tensors=tensors(grid=(3, 4))),
    habit("outer-parameters", outer_parameters, chain(12, 12), {"gain": 12}, tensors=tensors(gain=(12,))),
    habit(
        "contracted-by-tensordot",
        contracted_by_tensordot,
        lambda: [nn.Linear(6, 5), nn.Linear(7, 2)],
        {"matrix": 7, ENC: 5},
        tensors=tensors(matrix=(7, 5)),
    ),
    habit("scaled-addmm", scaled_addmm, chain(12, 12), {ENC: 12}),
    habit("made-alike", made_alike, chain(12, 12), {ENC: 12}),
    habit("written-channel", written_channel, chain(12, 12), {ENC: 11}),
    habit(
        "written-slice",
        written_slice,
        lambda: [nn.Linear(6, 12), nn.Linear(6, 12), nn.Linear(12, 2)],
        {ENC: 7, "inner.1": 8},
    ),
    habit("updated-view", updated_view, chain(12, 12), {ENC: 8}, tensors=tensors(gain=(4,))),
    habit("updated-piece", updated_piece, chain(12, 12), {ENC: 6}),
    habit(
        "updated-row-of-view",
        updated_row_of_view,
        chain(12, 12),
        {"gain": 4, ENC: 8},
        blocks={ENC: 2},
        tensors=tensors(gain=(4,)),
        ties=(frozenset({"gain", ENC}),),
    ),
    habit("chosen-rows", chosen_rows, chain(12, 12), {ENC: 12}),
    habit("shuffled-channels", shuffled_channels, chain(12, 12), {}),
    # A channel is in the sums of those after it, which the consumer still reads.
    habit("scanned", scanned, chain(12, 12), {ENC: 12}, keep=frozenset({ENC})),
    habit("pooled-channels", pooled_channels, chain(12, 6), {}),
    habit("as-complex", as_complex, chain(12, 12), {ENC: 6}),
    habit("gram", gram, chain(5, 25), {}, shape=TOKENS),
    habit("normal-mean", normal_mean, lambda: [nn.Linear(6, 12), nn.Linear(6, 12), nn.Linear(12, 2)], {ENC: 12}),
    habit("checkpointed", checkpointed, chain(12, 12), {ENC: 12}),
    habit("filled-cache", filled_cache, chain(12, 12), {ENC: 12}, shape=TOKENS),
    habit("growing-cache", growing_cache, chain(12, 12), {ENC: 12}, shape=TOKENS),
    habit(
        "modulated",
        modulated,
        lambda: [nn.Linear(6, 8), nn.Linear(8, 36), nn.Linear(6, 12), nn.Linear(12, 12), nn.Linear(12, 2)],
        {ENC: 8, "inner.1": 12},
        mixing={"inner.1": "layer_norm"},
    ),
    habit(
        "state-space",
        state_space,
        lambda: [nn.Linear(6, 12), nn.Linear(12, 6), nn.Linear(12, 2)],
        {"decay": 12, "decay#2": 3},
        shape=TOKENS,
        tensors=tensors(decay=(12, 3), skip=(12,)),
        mask="all",
    ),
]
