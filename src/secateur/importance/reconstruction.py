"""Reconstruction: the order in which channels can go so that a refit of their consumers loses least."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from secateur.calibration import (
    CalibrationData,
    InputMoments,
    Reader,
    as_calibration,
    collect_moments,
    damping,
    survey,
    warn_few_rows,
)
from secateur.errors import CalibrationError
from secateur.graph.graph import DependencyGraph
from secateur.graph.groups import Group
from secateur.importance.criterion import FloatArray, Scores, prunable_consumers
from secateur.importance.magnitude import Magnitude

_PANEL = 256
"""Columns of pending updates before they are applied: large enough for fast matrix products."""


class Reconstruction:
    """Order of elimination when the consumers are refitted after every channel that goes.

    Taking channel j from a consumer W with Gram matrix C, and letting the other inputs take over what they can, costs
    ``tr(W_j (C^-1)_jj^-1 W_j^T)``; for one feature per channel, ``||W_j||^2 / (C^-1)_jj``. The cheapest channel of a
    group, by the sum over its consumers, goes first; W and C^-1 are updated, and so on. A channel that owns several
    features of a consumer (a convolution's taps, a flattened map) goes as one block. A channel's score is its place in
    that order, 1 ... size, divided by the size. In a group with blocks, the blocks take turns.

    Queries and keys, and other groups whose channels no Linear or convolution module reads, have no consumer to refit:
    their order is that of ``Magnitude``, on the same scale.

    Source: Hassibi and Stork, "Second order derivatives for network pruning: Optimal Brain Surgeon" (NeurIPS 1992); for
    one layer's least squares as here, Frantar and Alistarh, "Optimal Brain Compression" (arXiv 2208.11580), section 4.
    """

    def __init__(self, calibration: CalibrationData, *, ridge: float = 1e-4) -> None:
        """Keep the data.

        Args:
            calibration: an iterable of inputs like ``example_inputs``, or a function that takes the model and
                exercises it, or an iterable of such functions. A one-shot iterator is read into a list.
            ridge: added to the diagonal of each Gram matrix, in units of its mean diagonal; above 0.

        Raises:
            CalibrationError: the data is neither of these, or the ridge isn't positive.
        """
        if not ridge > 0:
            raise CalibrationError(f"Reconstruction needs a ridge above 0, not {ridge!r}")
        self.calibration = as_calibration(calibration)
        self.ridge = ridge

    def __call__(self, graph: DependencyGraph, model: nn.Module) -> Scores:
        """Scores for every channel group.

        Raises:
            CalibrationError: calibration is empty, fails, gives values that aren't finite, or never reaches a module
                that reads prunable channels.
        """
        readers = survey(model, prunable_consumers(graph), self.calibration).readers
        moments = collect_moments(model, readers, self.calibration)
        warn_few_rows({name: (m.rows, m.gram.shape[-1]) for name, m in moments.items() if m.rows < m.gram.shape[-1]})
        systems = [self._system(model.get_submodule(r.module), r, moments[r.parameter]) for r in readers]
        magnitudes = Magnitude()(graph, model)
        return {group.name: _score(group, systems, magnitudes[group.name]) for group in graph.groups}

    def _system(self, module: Any, reader: Reader, moments: InputMoments) -> _System:
        gram = moments.solved_gram(centred=module.bias is not None)
        gram.diagonal(dim1=1, dim2=2).add_(damping(gram, self.ridge)[:, None])
        factor, failed = torch.linalg.cholesky_ex(gram)
        if bool(failed.any()):
            raise CalibrationError(
                f"the Gram matrix of {reader.module!r} is singular with ridge={self.ridge:g}; use a larger ridge"
            )
        weight = reader.layout.matrix(module, module.weight.detach()).to(gram)
        return _System(reader, torch.cholesky_inverse(factor), weight, reader.layout.features_of(module))


@dataclass(frozen=True, eq=False)
class _System:
    """One consumer's least squares: C^-1 (G, features, features), W (G, outputs, features), features by axis index."""

    reader: Reader
    inverse: Tensor
    weight: Tensor
    features_of: np.ndarray

    def restricted(self, group: Group) -> list[Elimination]:
        """The part of the system that the group's channels own: all that their elimination needs."""
        axis = (self.reader.parameter, self.reader.layout.axis)
        members = [m for m in group.members if (m.parameter, m.axis) == axis]
        return [self._elimination(self.features_of[m.indices].reshape(group.size, -1)) for m in members]

    def _elimination(self, features: np.ndarray) -> Elimination:
        chosen = torch.from_numpy(features.reshape(-1)).to(self.inverse.device)
        conv_group, local = chosen // self.inverse.shape[-1], chosen % self.inverse.shape[-1]
        together = conv_group[:, None] == conv_group
        inverse = self.inverse[conv_group[:, None], local[:, None], local] * together
        columns = self.weight[conv_group, :, local]
        products = columns @ columns.T * together
        return Elimination(inverse.cpu().numpy(), products.cpu().numpy(), features.shape[0])


def _score(group: Group, systems: Sequence[_System], magnitude: FloatArray) -> FloatArray:
    eliminations = [e for system in systems for e in system.restricted(group)]
    order = _elimination_order(group, eliminations) if eliminations else np.argsort(magnitude, kind="stable")
    scores = np.empty(group.size)
    scores[order] = np.arange(1, group.size + 1) / group.size
    return scores


def _elimination_order(group: Group, eliminations: Sequence[Elimination]) -> np.ndarray:
    """Channels from the first to go to the last; a block gives its next channel when no block has given fewer."""
    stays = np.ones(group.size, dtype=bool)
    given = np.zeros(group.blocks, dtype=np.int64)
    order = np.empty(group.size, dtype=np.int64)
    for step in range(group.size):
        turn = stays & (given == given.min())[group.block_of]
        costs = np.sum([e.costs() for e in eliminations], axis=0)
        order[step] = channel = int(np.argmin(np.where(turn, costs, np.inf)))
        stays[channel] = False
        given[group.block_of[channel]] += 1
        for elimination in eliminations:
            elimination.remove(channel)
    return order


class Elimination:
    """Block elimination of channels from H = C^-1 and S = W^T W, shape (size * m, size * m), m features per channel.

    With U = H_:j L^-T, where L L^T = H_jj, eliminating j makes H - U U^T and S - U V^T - V U^T. The updates are kept as
    columns of U and V and applied to a channel's columns when its turn comes; only the diagonal blocks, which the costs
    need, are kept up to date. Every ``_PANEL`` columns they are folded into H and S, and what was removed is dropped.
    """

    def __init__(self, inverse: FloatArray, products: FloatArray, size: int) -> None:
        self._inverse, self._products = inverse, products
        self._size, self._width = size, inverse.shape[0] // size
        self._channels = np.arange(size)
        self._stays = np.ones(size, dtype=bool)
        self._restart()

    def _restart(self) -> None:
        self._done = 0
        rows = self._inverse.shape[0]
        blocks = np.arange(rows).reshape(-1, self._width)
        self._inverse_blocks = self._inverse[blocks[:, :, None], blocks[:, None, :]]
        self._product_blocks = self._products[blocks[:, :, None], blocks[:, None, :]]
        self._u, self._v = (np.empty((rows, min(rows, _PANEL + self._width)), order="F") for _ in range(2))

    def costs(self) -> FloatArray:
        """What removing each channel costs next, shape (size,); infinite for removed ones."""
        if self._width == 1:
            costs = (self._product_blocks / self._inverse_blocks)[:, 0, 0]
        else:
            costs = np.linalg.solve(self._inverse_blocks, self._product_blocks).trace(axis1=1, axis2=2)
        everywhere = np.full(self._size, np.inf)
        everywhere[self._channels[self._stays]] = costs[self._stays]
        return everywhere

    def remove(self, channel: int) -> None:
        """Let the channel's neighbours take over what they can."""
        position = int(np.searchsorted(self._channels, channel))
        own = slice(position * self._width, (position + 1) * self._width)
        done, end = self._done, self._done + self._width
        before_u, before_v = self._u[:, :done], self._v[:, :done]
        inverse = self._inverse[:, own] - before_u @ before_u[own].T
        products = self._products[:, own] - before_u @ before_v[own].T - before_v @ before_u[own].T
        factor = np.linalg.cholesky(inverse[own])
        u = np.linalg.solve(factor, inverse.T).T
        half = np.linalg.solve(factor, products[own] / 2)
        v = np.linalg.solve(factor, (products - u @ half).T).T
        self._u[:, done:end], self._v[:, done:end] = u, v
        self._done = end
        self._stays[position] = False
        if end >= _PANEL:
            self._fold()
        else:
            self._update_blocks(u.reshape(-1, self._width, self._width), v.reshape(-1, self._width, self._width))

    def _update_blocks(self, u: FloatArray, v: FloatArray) -> None:
        cross = u @ v.mT
        self._inverse_blocks -= u @ u.mT
        self._product_blocks -= cross + cross.mT
        # What is left of a removed channel is zero but for rounding; a unit block keeps the next solve regular.
        self._inverse_blocks[~self._stays] = np.eye(self._width)

    def _fold(self) -> None:
        rows = np.flatnonzero(np.repeat(self._stays, self._width))
        u, v = self._u[rows, : self._done], self._v[rows, : self._done]
        cross = u @ v.T
        self._inverse = self._inverse[np.ix_(rows, rows)] - u @ u.T
        self._products = self._products[np.ix_(rows, rows)] - cross - cross.T
        self._channels = self._channels[self._stays]
        self._stays = np.ones(len(self._channels), dtype=bool)
        self._restart()
