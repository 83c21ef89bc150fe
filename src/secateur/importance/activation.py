"""Activation: how strongly a channel is active where it is consumed."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from typing import TypeAlias

import numpy as np
import torch
from torch import Tensor, nn

from secateur.calibration import CalibrationData, Reader, as_calibration, evaluating, survey, watch
from secateur.calibration.layouts import as_float64
from secateur.graph.graph import DependencyGraph
from secateur.graph.groups import Group, Role
from secateur.importance.criterion import FloatArray, Scores, checked, prunable_consumers, score_groups
from secateur.importance.magnitude import Magnitude

_AxisSquares: TypeAlias = Mapping[tuple[str, int], FloatArray]


class Activation:
    """Mean square of a channel over the calibration data, summed over the consumers that read it.

    Groups whose channels no watchable module reads (queries and keys, contracted with each other only; weights used in
    functional form) have no such inputs: they get the ``Magnitude`` scores instead.
    """

    def __init__(self, calibration: CalibrationData) -> None:
        """Keep the data.

        Args:
            calibration: an iterable of inputs like ``example_inputs``, or a function that takes the model and
                exercises it, or an iterable of such functions. A one-shot iterator is read into a list.

        Raises:
            CalibrationError: it is neither.
        """
        self.calibration = as_calibration(calibration)

    def __call__(self, graph: DependencyGraph, model: nn.Module) -> Scores:
        """Scores for every channel group.

        Raises:
            CalibrationError: calibration is empty, fails, or never reaches a module that reads prunable channels.
            ScoreError: an activation isn't finite.
        """
        readers = survey(model, prunable_consumers(graph), self.calibration).readers
        squares = self._mean_squares(model, readers)
        magnitudes = Magnitude()(graph, model)

        def score(group: Group) -> FloatArray:
            read = [m for m in group.members_with(Role.CONSUMER) if (m.parameter, m.axis) in squares]
            if not read:
                return magnitudes[group.name]
            per_member = [squares[m.parameter, m.axis][m.indices].sum(axis=1) for m in read]
            return np.asarray(np.sum(per_member, axis=0))

        return checked(score_groups(graph, score), "Activation", "what the model computes on the calibration data")

    def _mean_squares(self, model: nn.Module, readers: tuple[Reader, ...]) -> _AxisSquares:
        """Mean square by consumer axis, shape (length of the axis,)."""
        sums: dict[str, Tensor] = {}
        counts: dict[str, int] = defaultdict(int)

        def add(reader: Reader, module: nn.Module, inputs: Tensor, outputs: Tensor) -> None:
            rows = reader.layout.rows(module, inputs)
            total = torch.stack([as_float64(part).square().sum(dim=0) for part in rows.split(2**16)]).sum(dim=0)
            sums[reader.parameter] = sums.get(reader.parameter, 0) + total
            counts[reader.parameter] += len(rows)

        with evaluating(model), watch(model, readers, add):
            self.calibration.run(model)
        squares: dict[tuple[str, int], FloatArray] = {}
        for reader in readers:
            channels = reader.layout.channels_of(model.get_submodule(reader.module))
            means = (sums[reader.parameter] / max(1, counts[reader.parameter])).cpu().numpy()
            squares[reader.parameter, reader.layout.axis] = means[channels].sum(axis=1)
        return squares
