"""Labels solved: channels, groups, blocks and ties."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from secateur.graph.equations import Following
from secateur.graph.labels import Labels

NO_GROUP = -1
"""The group of a channel that must stay or touches no parameter."""


@dataclass(slots=True, eq=False)
class Solution:
    """Labels solved.

    Attributes:
        channel_of: shape (labels,); the connected component of each label.
        fixed: shape (components,); whether it must stay.
        group_of: shape (components,); the group of each component, -1 if it must stay or touches no parameter.
        position: shape (components,); the component's number within its group.
        sizes: channels per group.
        blocks: per group, the block of each channel.
        ties: per group, the smallest group it is tied with.
        units: per group, in how many equal steps it can shrink.
        attributes: the attributes of modules that follow widths.
    """

    channel_of: Labels
    fixed: NDArray[np.bool_]
    group_of: Labels
    position: Labels
    sizes: Labels
    blocks: list[Labels] = field(default_factory=list)
    ties: list[int] = field(default_factory=list)
    units: list[int] = field(default_factory=list)
    attributes: dict[str, Following] = field(default_factory=dict)
