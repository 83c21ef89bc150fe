"""What leaves of an axis that the code splits into blocks, such as heads: indices inside every block, or whole blocks.

``view(b, n, heads, width)`` can lose either. By default every block loses equally many of its own indices, the finer
choice; where these can't leave (rotary angles made from numbers, say) or removing them isn't the same as zeroing them
(a norm over each head), the run is traced again with whole blocks, and the better graph is taken.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from fnmatch import fnmatchcase
from typing import Literal, get_args

import numpy as np

from secateur.errors import TraceError
from secateur.graph.graph import DependencyGraph
from secateur.graph.record import Trace
from secateur.graph.solution import Solution
from secateur.graph.tracer import WholeAt

Granularity = Literal["auto", "width", "heads"]

_ENOUGH = 0.9
"""Whole blocks are coarser: so much of what could be removed before must still be removable."""


def chosen_granularity(
    granularity: Granularity | Mapping[str, Granularity], paths: Iterable[str]
) -> Mapping[str, Granularity]:
    """The user's choice as patterns of module paths.

    Raises:
        TraceError: an unknown choice, or a pattern that matches no module.
    """
    chosen: Mapping[str, Granularity] = granularity if isinstance(granularity, Mapping) else {"*": granularity}
    known = set(paths) if chosen.keys() != {"*"} else {""}
    for pattern, choice in chosen.items():
        if choice not in get_args(Granularity):
            options = ", ".join(map(repr, get_args(Granularity)))
            raise TraceError(f"granularity {choice!r} is none of {options}")
        if not any(_matches(path, pattern) for path in known):
            raise TraceError(f"granularity: no module matches {pattern!r}; print(model) shows their names")
    return chosen


def _matches(path: str, pattern: str) -> bool:
    """Whether a module is meant by a pattern, or lies inside one that is."""
    parts = path.split(".")
    return any(fnmatchcase(".".join(parts[:depth]), pattern) for depth in range(1, len(parts) + 1))


def granularity_of(site: str, chosen: Mapping[str, Granularity]) -> Granularity:
    """The choice for a place in the code, named by module path and line; the last pattern that matches counts."""
    path = _module_of(site)
    return next(
        (c for pattern, c in reversed(list(chosen.items())) if pattern == "*" or _matches(path, pattern)), "auto"
    )


def _module_of(site: str) -> str:
    """The module path in the name of a place in the code; empty for the entry point itself."""
    return site.partition(" at ")[0] if " at " in site else ""


def whole_where_chosen(chosen: Mapping[str, Granularity], more: frozenset[str] = frozenset()) -> WholeAt:
    """At which places whole blocks leave: where the user says so, and at ``more``."""
    return lambda site: site in more or granularity_of(site, chosen) == "heads"


def better_whole(trace: Trace, solution: Solution, chosen: Mapping[str, Granularity]) -> frozenset[str]:
    """Places that are free to choose, in modules where indices inside the blocks can't leave or are mixed if they do.

    All places in such a module go together: a head's queries, keys and values, made on lines of their own, meet later,
    and whole heads of one can't meet parts of all heads of another.
    """
    mixed = np.zeros(len(solution.fixed), dtype=bool)
    for number, note in enumerate(trace.facts.mixed):
        if trace.mixed_in_use >> number & 1 and not note.by_width:
            mixed[solution.channel_of[note.labels]] = True
    bad = solution.fixed | mixed
    free = {site: splits for site, splits in trace.splits.items() if granularity_of(site, chosen) == "auto"}
    modules = {
        _module_of(site)
        for site, splits in free.items()
        if any(bad[solution.channel_of[s[s >= 0]]].all() for s in splits)
    }
    return frozenset(site for site in free if _module_of(site) in modules)


def is_better(whole: DependencyGraph, before: DependencyGraph) -> bool:
    """Whether enough can still be removed when whole blocks leave."""
    return _removable(whole) >= _ENOUGH * _removable(before)


def _removable(graph: DependencyGraph) -> int:
    least = np.array([g.step for g in graph.groups], dtype=np.int64)
    full, smallest = (int(graph.cost_model.parameters(kept)) for kept in (graph.kept_vector(), least))
    return full - smallest
