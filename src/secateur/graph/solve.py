"""Solve what a trace learned: which labels leave together, and how their counts hang together.

Equalities are solved once, by connected components. Equal counts (pieces of a ``chunk``, groups of a norm, heads of a
fixed number) become blocks within a group or ties between groups where they can; where they can't, the indices
concerned are equated one by one, which always satisfies them, and the components are solved again.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from secateur.graph.cascade import equate
from secateur.graph.equalities import representatives
from secateur.graph.equations import SizeEquations
from secateur.graph.labels import Facts, Labels
from secateur.graph.record import Trace
from secateur.graph.settled import Settled
from secateur.graph.signatures import numbered, signatures
from secateur.graph.size_checks import SizeChecks
from secateur.graph.solution import NO_GROUP, Solution


def solve(trace: Trace) -> Solution:
    """Channels, groups, blocks and ties of a trace; nearly linear in the number of labels and equalities."""
    facts = trace.facts
    axis_of = np.repeat(np.arange(len(trace.axes)), [len(axis.labels) for axis in trace.axes])
    open_counts = list(facts.counts)
    sizes = SizeEquations(facts)
    done: set[int] = set()
    while True:
        solution = _group(facts, axis_of)
        _fix_lonely(facts, solution)
        if sizes.settle(solution):
            continue
        settled = Settled(solution)
        failed = [c for c in (*open_counts, *sizes.counts) if id(c) not in done and not settled.satisfied(c)]
        done.update(map(id, equate(facts, solution, failed, (*open_counts, *sizes.counts))))
        if failed or _fix_stuck(facts, solution, settled):
            continue
        pinned = len(facts.fixed)
        checks = SizeChecks(facts, sizes, solution, settled.kept)
        cuts = [*checks.equations(), *checks.comparisons(), *checks.wholes(settled.coarsen)]
        open_counts.extend(cuts)
        if not cuts and len(facts.fixed) == pinned:
            settled.finish()
            solution.attributes = sizes.following
            _note_numbers(trace, sizes)
            return solution


def _note_numbers(trace: Trace, sizes: SizeEquations) -> None:
    """Attributes that follow a width and are used as numbers: what they count is mixed."""
    for attribute, reason in trace.facts.numbers:
        if attribute.key in sizes.following:
            trace.mixed_in_use |= 1 << len(trace.facts.mixed)
            trace.facts.mix(sizes.following[attribute.key].labels, reason)


def connected(facts: Facts) -> Labels:
    """The channel of each label, shape (labels,), numbered by first label: labels that leave together share one."""
    first = representatives(facts.equal, facts.size)
    return (np.cumsum(first == np.arange(facts.size)) - 1)[first]


def _group(facts: Facts, axis_of: Labels) -> Solution:
    channel_of = connected(facts)
    count = int(channel_of.max(initial=-1)) + 1
    fixed = np.zeros(count, dtype=bool)
    for note in facts.fixed:
        fixed[channel_of[note.labels]] = True
    parameters = channel_of[: len(axis_of)]
    prunable = ~fixed & (np.bincount(parameters, minlength=count) > 0)
    members = np.flatnonzero(prunable)
    numbers = numbered(signatures(parameters, axis_of, count)[members])
    group_of = np.full(count, NO_GROUP)
    group_of[members] = numbers
    sizes = np.bincount(numbers)
    order = np.argsort(numbers, kind="stable")
    position = np.full(count, -1)
    position[members[order]] = np.arange(len(members)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    return Solution(channel_of, fixed, group_of, position, sizes)


def _of_groups(solution: Solution, chosen: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Whether each channel belongs to one of the chosen groups."""
    return np.append(chosen, False)[solution.group_of]


def _fix_lonely(facts: Facts, solution: Solution) -> None:
    """A group of one channel has nothing to choose from."""
    lonely = solution.sizes == 1
    if lonely.any():
        channels = _of_groups(solution, lonely)
        facts.fix(np.flatnonzero(channels[solution.channel_of]), "the only channel of its kind")
        solution.fixed |= channels
        solution.position[channels] = -1
        # Number the groups anew; those gone, and none, get the number for none.
        number = np.append(np.where(lonely, NO_GROUP, np.cumsum(~lonely) - 1), NO_GROUP)
        solution.group_of = number[solution.group_of]
        solution.sizes = solution.sizes[~lonely]


def _fix_stuck(facts: Facts, solution: Solution, settled: Settled) -> bool:
    """Pin groups whose tie can't shrink, and say whether there are any."""
    stuck = settled.stuck()
    if stuck.any():
        labels = np.flatnonzero(_of_groups(solution, stuck)[solution.channel_of])
        facts.fix(labels, "tied in number to axes with no common divisor, so that they can only shrink together")
    return bool(stuck.any())
