"""Closed-form cost: parameters and multiply-adds of any kept counts, exactly and without surgery.

Every parameter's size is the product of its axes' lengths, and every matrix product's multiply-adds (MACs) the
product of its extents. A length is affine in the kept counts (indices that always stay, plus multiplicity times kept
channels), so both are sums of products of affine forms: microseconds for a whole model, and bilinear in neighbouring
widths.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

IntArray = NDArray[np.int64]
FloatArray = NDArray[np.float64]


@dataclass(frozen=True)
class ComponentCost:
    """Parameters and MACs of one component; one multiply-add is one MAC."""

    parameters: int
    macs: int


@dataclass(frozen=True)
class Cost:
    """Parameters and MACs of a model, in total and by component.

    MACs are those of one run of the entry point; ``by_component`` counts a product between activations where it runs.
    """

    parameters: int
    macs: int
    by_component: dict[str, ComponentCost] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Products:
    """A sum of products of affine forms in the kept counts.

    Attributes:
        constants: shape (factors,); the part of each factor that doesn't depend on any group.
        coefficients: sparse, shape (factors, groups); numerators of indices per kept channel.
        divisors: shape (factors,); their denominators, more than one where a factor counts part of a group.
        starts: shape (terms,); where each term's factors begin. Every term has at least one factor.
        components: shape (terms,); index of the component each term belongs to.
    """

    constants: IntArray
    coefficients: sparse.csr_array[Any]
    divisors: IntArray
    starts: IntArray
    components: IntArray

    def terms(self, kept: IntArray) -> IntArray:
        """Value of every term, shape (..., terms), for kept counts of shape (..., groups)."""
        flat = kept.reshape(math.prod(kept.shape[:-1]), kept.shape[-1])
        if len(self.starts) == 0:
            return np.zeros((*kept.shape[:-1], 0), dtype=np.int64)
        factors = np.asarray((self.coefficients @ flat.T).T) // self.divisors + self.constants
        products = np.multiply.reduceat(factors, self.starts, axis=1)
        return products.reshape(*kept.shape[:-1], len(self.starts))


@dataclass(frozen=True, eq=False)
class CostModel:
    """Parameters and MACs as functions of the kept channels per group.

    Linear in the size of the model; a batch of candidates is evaluated at once.
    """

    parameter_terms: Products
    mac_terms: Products
    component_names: tuple[str, ...]
    full: IntArray

    def parameters(self, kept: IntArray) -> IntArray:
        """Parameters, shape (...), for kept counts of shape (..., groups)."""
        return np.asarray(self.parameter_terms.terms(kept).sum(axis=-1))

    def macs(self, kept: IntArray) -> IntArray:
        """MACs of one run of the entry point, shape (...), for kept counts of shape (..., groups)."""
        return np.asarray(self.mac_terms.terms(kept).sum(axis=-1))

    def by_component(self, kept: IntArray, *, of: str) -> IntArray:
        """``of`` "params" or "macs" per component, shape (..., components), for kept counts of shape (..., groups)."""
        products, membership = (
            (self.parameter_terms, self._parameter_owners) if of == "params" else (self.mac_terms, self._mac_owners)
        )
        terms = products.terms(kept)
        totals = np.asarray((membership @ terms.reshape(math.prod(terms.shape[:-1]), terms.shape[-1]).T).T)
        return totals.reshape(*kept.shape[:-1], len(self.component_names))

    @cached_property
    def _parameter_owners(self) -> sparse.csr_array[Any]:
        return self._owners(self.parameter_terms)

    @cached_property
    def _mac_owners(self) -> sparse.csr_array[Any]:
        return self._owners(self.mac_terms)

    def _owners(self, products: Products) -> sparse.csr_array[Any]:
        """Ones where a component owns a term, shape (components, terms)."""
        count = len(products.components)
        return sparse.csr_array(
            (np.ones(count, dtype=np.int64), (products.components, np.arange(count))),
            shape=(len(self.component_names), count),
        )

    def cost(self, kept: IntArray) -> Cost:
        """The cost of one vector of kept counts, shape (groups,)."""
        parameters = self.by_component(kept, of="params")
        macs = self.by_component(kept, of="macs")
        by_component = {
            name: ComponentCost(int(p), int(m))
            for name, p, m in zip(self.component_names, parameters, macs, strict=True)
        }
        return Cost(int(parameters.sum()), int(macs.sum()), by_component)


@dataclass(frozen=True)
class Affine:
    """``constant + sum(numerator * kept[group]) / divisor``."""

    constant: int
    numerators: tuple[tuple[int, int], ...] = ()
    divisor: int = 1

    def value(self, kept: IntArray) -> int:
        """The value for kept counts of shape (groups,)."""
        return self.constant + sum(int(kept[group]) * times for group, times in self.numerators) // self.divisor


def products(terms: Sequence[Sequence[Affine]], components: Sequence[int], group_count: int) -> Products:
    """Build ``Products`` from terms, each a sequence of affine factors."""
    factors = [factor for term in terms for factor in (term or [Affine(1)])]
    lengths = [max(len(term), 1) for term in terms]
    entries = [(row, group, times) for row, f in enumerate(factors) for group, times in f.numerators]
    rows, columns, values = (
        (np.array(column, dtype=np.int64) for column in zip(*entries, strict=True))
        if entries
        else (np.zeros(0, dtype=np.int64),) * 3
    )
    return Products(
        np.array([f.constant for f in factors], dtype=np.int64),
        sparse.csr_array((values, (rows, columns)), shape=(len(factors), group_count)),
        np.array([f.divisor for f in factors], dtype=np.int64),
        np.concatenate([[0], np.cumsum(lengths)[:-1]]).astype(np.int64) if lengths else np.zeros(0, dtype=np.int64),
        np.asarray(components, dtype=np.int64),
    )
