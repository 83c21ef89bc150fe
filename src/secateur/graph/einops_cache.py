"""einops while a model is traced: its sizes are followed, and none of them stays in its caches.

einops computes the sizes that it reshapes to from ``x.shape`` and caches them by their values. So those of one tensor
would turn up as another's, and plain numbers from before the trace in place of any. Meanwhile they are computed anew at
every call. That an axis can be divided is no comparison to notice: the reshape that follows says so too.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from inspect import signature
from math import prod
from typing import Any

from secateur.graph.traced_size import plain

_PLACES = (
    ("einops.einops", "_reconstruct_from_shape"),
    ("einops._torch_specific", "_reconstruct_from_shape_uncached"),
)
"""Where einops' functions and its layers look for what computes sizes (since version 0.7)."""


@contextmanager
def einops_sizes_followed() -> Iterator[None]:
    """If einops is loaded, what it computes from traced sizes is traced, while the context lasts."""
    replaced: list[tuple[Any, str, Any]] = []
    for module, name in ((sys.modules.get(path), name) for path, name in _PLACES):
        computes = getattr(module, name, None)
        if computes is not None and "axes_dims" in signature(computes).parameters:
            replaced.append((module, name, computes))
    try:
        for module, name, computes in replaced:
            setattr(module, name, partial(_sizes, computes))
        yield
    finally:
        for module, name, computes in replaced:
            setattr(module, name, computes)


def _sizes(
    computes: Callable[..., tuple[Any, ...]], recipe: Any, shape: Sequence[int], axes_dims: Iterable[tuple[str, int]]
) -> tuple[Any, ...]:
    """What ``computes`` makes of a recipe and a shape, with sizes that are followed.

    Args:
        computes: einops' own function; it is given plain numbers, and raises what it has to raise.
        recipe: a parsed pattern.
        shape: of the input.
        axes_dims: lengths of axes that the user names.
    """
    given = list(axes_dims)
    plain_shape, plain_given = tuple(map(plain, shape)), tuple((axis, plain(length)) for axis, length in given)
    first, order, reduced, added, last, dims = computes(recipe, plain_shape, plain_given)
    lengths = _axis_lengths(recipe, shape, given)
    return (
        first and lengths[: len(first)],
        order,
        reduced,
        {position: lengths[recipe.added_axes[position]] for position in added},
        last and [prod(lengths[axis] for axis in axes) for axes in recipe.output_composite_axes],
        dims,
    )


def _axis_lengths(recipe: Any, shape: Sequence[int], given: Iterable[tuple[str, int]]) -> list[int]:
    """The length of every axis that a pattern names, those that are added among them."""
    lengths = list(recipe.elementary_axes_lengths)
    for axis, length in given:
        lengths[recipe.axis_name2elementary_axis[axis]] = length
    for length, (known, unknown) in zip(shape, recipe.input_composition_known_unknown, strict=True):
        times = prod(lengths[axis] for axis in known)
        for axis in unknown:
            lengths[axis] = length // times
        if not unknown:
            # einops has compared plain numbers; a traced size notes what it must stay equal to.
            _ = length == times
    return lengths
