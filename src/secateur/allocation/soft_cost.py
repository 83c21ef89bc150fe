"""The closed-form cost of real-valued widths, so that gradients flow through it; exact at whole ones."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from secateur.graph.cost import CostModel, Products


class SoftCost:
    """Cost by component as a function of real-valued kept channels; linear in the size of the model.

    Args:
        cost_model: the exact cost.
        of: ``"params"`` or ``"macs"``.
    """

    def __init__(self, cost_model: CostModel, of: str) -> None:
        products = cost_model.parameter_terms if of == "params" else cost_model.mac_terms
        entries = products.coefficients.tocoo()
        self._rows, self._groups = (torch.from_numpy(i.astype(np.int64)) for i in entries.coords)
        slopes = entries.data / products.divisors[entries.coords[0]]
        self._slopes = torch.from_numpy(slopes.astype(np.float64))
        self._constants = torch.from_numpy(products.constants.astype(np.float64))
        self._factors = torch.from_numpy(_factor_table(products))
        self._components = torch.from_numpy(products.components)
        self._count = len(cost_model.component_names)

    def __call__(self, kept: Tensor) -> Tensor:
        """Cost of every component, shape (components,), float64, for kept channels of shape (groups,)."""
        factors = self._constants.index_add(0, self._rows, self._slopes * kept[self._groups])
        padded = torch.cat([factors, factors.new_ones(1)])
        terms = padded[self._factors].prod(dim=1)
        return terms.new_zeros(self._count).index_add(0, self._components, terms)


def _factor_table(products: Products) -> np.ndarray:
    """Indices of each term's factors, shape (terms, most factors); padded with the index after the last factor."""
    starts, count = products.starts, len(products.constants)
    lengths = np.diff(starts, append=count)
    places = np.arange(max(lengths, default=1))
    return np.where(places < lengths[:, None], starts[:, None] + places, count)
