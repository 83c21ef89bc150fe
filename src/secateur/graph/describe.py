"""A dependency graph as plain text: components, groups, interfaces, flows, and what can't be pruned and why."""

from __future__ import annotations

import io
import itertools
import re
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from rich.box import Box
from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from secateur.graph.groups import Group as ChannelGroup
from secateur.graph.groups import Member, Role, Unprunable

if TYPE_CHECKING:
    from secateur.graph.graph import DependencyGraph

WIDTH = 120
_SHOWN = 8
# A rule under the header and nothing else; plain ASCII, so that it prints on every terminal and in every log.
_PLAIN = Box("    \n    \n -- \n    \n    \n    \n    \n    \n", ascii=True)


def describe(graph: DependencyGraph, *, width: int = WIDTH) -> str:
    """The whole graph as plain-text tables, at most ``width`` characters wide."""
    return to_text(_sections(graph), width=width)


def _sections(graph: DependencyGraph) -> list[RenderableType]:
    internal = [g for g in graph.groups if not g.is_interface]
    sections: list[RenderableType] = [_components_table(graph)]
    sections += _group_section("Interface groups (their parameters belong to several components)", graph.interfaces)
    sections += _group_section("Internal groups", internal)
    sections += _unprunable_section(graph.unprunable)
    if graph.missing_rules:
        sections.append(Text(f"Operators without a rule, met in the trace: {', '.join(graph.missing_rules)}"))
    return sections


def to_text(sections: Iterable[RenderableType], *, width: int = WIDTH) -> str:
    """Rich renderables as plain text without colours or trailing spaces, one empty line between them."""
    console = Console(file=io.StringIO(), width=width, color_system=None, force_terminal=False, legacy_windows=False)
    with console.capture() as capture:
        console.print(Group(*_spaced(sections)))
    return "\n".join(line.rstrip() for line in capture.get().rstrip().splitlines())


def as_data(graph: DependencyGraph) -> dict[str, Any]:
    """What :func:`describe` shows, in full, as JSON can hold it."""
    cost = graph.cost()
    return {
        "parameters": cost.parameters,
        "macs": cost.macs,
        "components": [
            {"name": c.name, **asdict(cost.by_component[c.name]), "owns": list(c.parameters)} for c in graph.components
        ],
        "groups": [_group_data(group) for group in graph.groups],
        "flows": [asdict(flow) for flow in graph.flows],
        "unprunable": [asdict(item) for item in graph.unprunable],
        "tied": dict(graph.tied),
        "missing_rules": list(graph.missing_rules),
    }


def _group_data(group: ChannelGroup) -> dict[str, Any]:
    return {
        "name": group.name,
        "size": group.size,
        "components": list(group.components),
        "is_interface": group.is_interface,
        "blocks": group.blocks,
        "step": group.step,
        "tie": group.tie,
        "mixing": list(group.mixing),
        "rescaled": group.rescaled,
        "members": [
            {
                "parameter": member.parameter,
                "axis": member.axis,
                "role": member.role.value,
                "component": member.component,
                "multiplicity": member.multiplicity,
            }
            for member in group.members
        ],
    }


def plain_table(title: str, *columns: str, numeric: Sequence[str] = ()) -> Table:
    """An empty table in the house style; the columns named in ``numeric`` are right-aligned."""
    table = Table(title=title, title_justify="left", title_style="bold", box=_PLAIN, show_edge=False, pad_edge=False)
    for column in columns:
        right = column in numeric
        table.add_column(column, justify="right" if right else "left", no_wrap=right, overflow="fold")
    return table


def _spaced(sections: Iterable[RenderableType]) -> Iterable[RenderableType]:
    for position, section in enumerate(sections):
        if position:
            yield Text("")
        yield section


def _components_table(graph: DependencyGraph) -> Table:
    cost = graph.cost()
    numeric = ("parameters", "MACs", "groups")
    table = plain_table("Components", "component", *numeric, "flows to", numeric=numeric)
    for component in graph.components:
        part = cost.by_component[component.name]
        groups = sum(component.name in group.components for group in graph.groups)
        targets = [flow.target for flow in graph.flows if flow.source == component.name]
        table.add_row(component.name, f"{part.parameters:,}", f"{part.macs:,}", str(groups), ", ".join(targets))
    table.add_section()
    table.add_row("total", f"{cost.parameters:,}", f"{cost.macs:,}", str(len(graph.groups)), "")
    return table


def _group_section(title: str, groups: Sequence[ChannelGroup]) -> list[RenderableType]:
    if not groups:
        return [Text(f"{title.split(' (')[0]}: none")]
    of = ["components"] if groups[0].is_interface else []
    columns = ["group", "channels", *of, "produced by", "consumed by"]
    table = plain_table(f"{title}: {len(groups)}", *columns, numeric=["channels"])
    for group in groups:
        owners = [", ".join(group.components)] if of else []
        table.add_row(_name_and_notes(group), f"{group.size:,}", *owners, *_producers_and_consumers(group))
    return [table]


def _producers_and_consumers(group: ChannelGroup) -> tuple[str, str]:
    consumers = [m for m in group.members if m.role is Role.CONSUMER]
    producers = [m for m in group.members if m.role is not Role.CONSUMER]
    return compact_members(producers), compact_members(consumers)


def _name_and_notes(group: ChannelGroup) -> str:
    lines = [group.name]
    if group.blocks > 1:
        lines.append(f"{group.blocks} equal blocks")
    if group.step > 1:
        lines.append(f"in steps of {group.step}")
    if group.rescaled:
        lines.append("rescaled: queries and keys divided by their own width")
    if group.mixing:
        lines.append(f"mixed by {'; '.join(_gathered_places(group.mixing))}")
    return "\n  ".join(lines)


def _gathered_places(reasons: Sequence[str]) -> list[str]:
    """Reasons with the same beginning as one, with the number of their places."""
    places: dict[str, list[str]] = {}
    for reason in reasons:
        places.setdefault(reason.partition(" (")[0], []).append(reason)
    return [same[0] if len(same) == 1 else f"{what} ({len(same)} places)" for what, same in places.items()]


def compact_members(members: Sequence[Member], *, limit: int = _SHOWN) -> str:
    """Members as text, the axes of one module gathered: ``encoder.0.(weight[0], bias[0])``.

    If that makes more than ``limit`` parts, those that differ only in numbers are gathered too:
    ``layers.*.norm.(weight[0], bias[0]) (12 modules)``.
    """
    parts = []
    for module, held in itertools.groupby(members, key=lambda m: m.parameter.rpartition(".")[0]):
        axes = [str(m).removeprefix(f"{module}.") for m in held]
        inner = axes[0] if len(axes) == 1 else f"({', '.join(axes)})"
        parts.append((module, inner))
    texts = [_joined(module, inner) for module, inner in parts]
    if len(texts) > limit:
        texts = _gathered_modules(parts)
    more = [f"... and {len(texts) - limit} more"] if len(texts) > limit else []
    return ", ".join(texts[:limit] + more)


def _gathered_modules(parts: Sequence[tuple[str, str]]) -> list[str]:
    alike: dict[tuple[str, str], list[str]] = {}
    for module, inner in parts:
        alike.setdefault((re.sub(r"\b\d+\b", "*", module), inner), []).append(module)
    return [
        _joined(modules[0], inner) if len(modules) == 1 else f"{pattern}.{inner} ({len(modules)} modules)"
        for (pattern, inner), modules in alike.items()
    ]


def _joined(module: str, inner: str) -> str:
    return f"{module}.{inner}" if module else inner.strip("()")


def _unprunable_section(unprunable: Sequence[Unprunable]) -> list[RenderableType]:
    if not unprunable:
        return [Text("Can't be pruned: nothing")]
    alike: dict[tuple[str, ...], list[Unprunable]] = {}
    for item in unprunable:
        alike.setdefault(tuple(without_module(reason) for reason in item.reasons), []).append(item)
    table = plain_table("Can't be pruned", "reason", "axes", "parameter axes (indices that stay)", numeric=["axes"])
    for reasons, items in alike.items():
        shown = [f"{i.parameter}[{i.axis}] ({_indices(i)})" for i in items[:_SHOWN]]
        more = [f"... and {len(items) - _SHOWN} more"] if len(items) > _SHOWN else []
        table.add_row("; ".join(reasons), str(len(items)), ", ".join(shown + more))
    return [table]


def without_module(reason: str) -> str:
    """The reason without the path of its module, so that the layers of a deep model share one line."""
    return re.sub(r"\((\S+) in \S+( at \S+)?\)", r"(\1\2)", reason)


def _indices(item: Unprunable) -> str:
    return "all" if item.count == item.size else f"{item.count} of {item.size}"
