"""What a trace finds: components, channel groups and the reasons why an axis can't be pruned.

Everything here is immutable and holds no tensor.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

import numpy as np
from numpy.typing import NDArray


class Role(str, Enum):
    """What a parameter axis does with the channels of a group."""

    PRODUCER = "producer"
    """Makes or transforms the channel: a Linear's output axis, a bias, a batch norm's weight."""
    CONSUMER = "consumer"
    """Is summed over the channel: a Linear's input axis."""
    BOTH = "both"
    """Both, through tied weights or two uses of one parameter."""


@dataclass(frozen=True, eq=False)
class Member:
    """One parameter axis that a group touches.

    Attributes:
        parameter: dotted name of the parameter or buffer (the first of its names, if tied).
        axis: the dimension of that parameter.
        role: whether the axis produces or consumes the channels.
        component: the component that owns the parameter.
        indices: shape (group size, multiplicity); row c holds the axis indices that leave with channel c, ascending.
    """

    parameter: str
    axis: int
    role: Role
    component: str
    indices: NDArray[np.int64]

    @property
    def multiplicity(self) -> int:
        """Indices of this axis per channel, such as 49 for a flattened 7x7 map."""
        return int(self.indices.shape[1])

    def __str__(self) -> str:
        times = f" x{self.multiplicity}" if self.multiplicity > 1 else ""
        return f"{self.parameter}[{self.axis}]{times}"


@dataclass(frozen=True, eq=False)
class Group:
    """All channels that touch the same parameter axes in the same way.

    Attributes:
        name: unique in the graph; the module path of the first producer, with ``#2``, ``#3`` where several start there.
        size: number of channels.
        members: the parameter axes touched, in order of parameters.
        components: the components that own the members, in model order.
        blocks: how many equal blocks the channels form; every block keeps the same number of channels, because a
            fixed size in the code (a head count, a norm's number of groups, ``chunk(2)``) needs it. 1: no such need.
        block_of: shape (size,); the block of each channel.
        tie: groups with the same tie must keep the same fraction of their channels (equal ``chunk`` pieces, say).
        units: in how many equal steps the group can shrink: it keeps ``size * u / units`` channels, u = 1 ... units.
        rescaled: the channels are queries and keys whose product is divided by the square root of their own width;
            surgery scales what makes those that stay, so that the product keeps its dense scale.
        mixing: operations (LayerNorm, softmax over channels, a width used as a number, ...) after which removing a
            channel is not the same as zeroing it; empty if it is.
    """

    name: str
    size: int
    members: tuple[Member, ...]
    components: tuple[str, ...]
    blocks: int
    block_of: NDArray[np.int64]
    tie: int
    units: int
    mixing: tuple[str, ...] = ()
    rescaled: bool = False

    @property
    def is_interface(self) -> bool:
        """Whether the group's parameters belong to several components."""
        return len(self.components) > 1

    @property
    def step(self) -> int:
        """Channels that leave together at least: ``size / units``, spread evenly over the blocks."""
        return self.size // self.units

    def members_with(self, role: Role) -> tuple[Member, ...]:
        """The members with this role; ``Role.BOTH`` counts as either."""
        return tuple(m for m in self.members if m.role in (role, Role.BOTH))

    def __repr__(self) -> str:
        return f"Group({self.name!r}, size={self.size}, members=[{', '.join(map(str, self.members))}])"


@dataclass(frozen=True)
class Component:
    """A named part of the model and the parameters it owns (parameters and buffers, first names if tied)."""

    name: str
    parameters: tuple[str, ...]


@dataclass(frozen=True)
class Flow:
    """A data-flow edge: ``target`` consumes a tensor that ``source`` made."""

    source: str
    target: str


@dataclass(frozen=True)
class Unprunable:
    """Indices of a parameter axis that must stay, and why.

    Attributes:
        parameter: dotted name.
        axis: the dimension.
        count: how many of the ``size`` indices must stay.
        size: length of the axis.
        reasons: the distinct reasons, each with the operation, module path and source line where there is one.
    """

    parameter: str
    axis: int
    count: int
    size: int
    reasons: tuple[str, ...]


@dataclass(frozen=True)
class Consumer:
    """A parameter contracted with activations, in the order of the trace's first such use."""

    parameter: str
    axis: int


@dataclass(frozen=True)
class ParameterSpec:
    """Shape of one parameter or buffer and the component that owns it."""

    name: str
    shape: tuple[int, ...]
    component: str
    is_buffer: bool
