"""The ``calibration`` argument as code that runs a model, leaving the model and the random state as they were."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import tee
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import nn

from secateur.errors import CalibrationError, SecateurError
from secateur.graph.attributes import attributes_kept
from secateur.graph.entry_point import call_forward
from secateur.graph.randomness import same_randomness

Run: TypeAlias = Callable[[nn.Module], Any]
CalibrationData: TypeAlias = Iterable[Any] | Run

_EMPTY = "the calibration data is empty; give at least one input"


@dataclass(frozen=True)
class Calibration:
    """Calibration data that can be run any number of times.

    Attributes:
        source: a function that takes the model and exercises it; or an iterable of inputs for ``model(...)``, one item
            per call, and of such functions, one per minibatch.
    """

    source: CalibrationData

    def run(self, model: nn.Module) -> None:
        """Run ``model`` on all of the data.

        Raises:
            CalibrationError: the data is empty, or the run fails; the original error is its cause.
        """
        with torch.no_grad(), failures_named("the model"):
            self.runs(1)[0](model)

    def runs(self, count: int) -> tuple[Run, ...]:
        """``count`` runs over one iteration of the data, which may advance in turns.

        A loader that shuffles thereby gives all of them the same items, and no more items than the runs are apart
        are held in memory.
        """
        if callable(self.source):
            return (self.source,) * count
        return tuple(_one_after_the_other(items) for items in tee(self.source, count))

    def items(self) -> Iterator[Any]:
        """Every item of the data, or the function alone, as they are read.

        Raises:
            CalibrationError: there are none.
        """
        yield from [self.source] if callable(self.source) else _not_empty(self.source)

    def minibatches(self) -> Iterator[Run]:
        """One run for every item of the data, or the function alone, as they are read.

        Raises:
            CalibrationError: the data is empty.
        """
        return map(run_of, self.items())


def as_calibration(data: CalibrationData) -> Calibration:
    """Calibration from an iterable of inputs like ``example_inputs``, or from a function that takes the model.

    Such functions may stand in the iterable, too: each is one minibatch, as a model without ``forward`` needs them.
    A one-shot iterator, such as a generator, is read into a list first, because calibration runs several times.

    Raises:
        CalibrationError: the data is neither, or a single input instead of an iterable of inputs.
    """
    if callable(data):
        return Calibration(data)
    if isinstance(data, (torch.Tensor, np.ndarray, Mapping, str)):
        kind = type(data).__name__
        raise CalibrationError(f"calibration is a single {kind}; give a list of inputs, such as calibration=[inputs]")
    if not isinstance(data, Iterable):
        raise CalibrationError(
            f"calibration must be an iterable of inputs or a function that takes the model, not {type(data).__name__}"
        )
    return Calibration(list(data) if isinstance(data, Iterator) else data)


def _one_after_the_other(items: Iterator[Any]) -> Run:
    def run(model: nn.Module) -> None:
        for item in _not_empty(items):
            run_of(item)(model)

    return run


def _not_empty(items: Iterable[Any]) -> Iterator[Any]:
    is_empty = True
    for item in items:
        is_empty = False
        yield item
    if is_empty:
        raise CalibrationError(_EMPTY)


def run_of(item: Any) -> Run:
    """One item of the data as code: a function of the model, or inputs for ``model(...)``."""
    return item if callable(item) else partial(call_forward, inputs=item)


@contextmanager
def failures_named(which: str) -> Iterator[None]:
    """Turn a failure of the user's code or model into a ``CalibrationError`` that says on which model it failed."""
    try:
        yield
    except SecateurError:
        raise
    except Exception as error:  # the user's code may raise anything; it stays visible as the cause
        raise CalibrationError(f"calibration failed on {which}: {type(error).__name__}: {error}") from error


@contextmanager
def evaluating(*models: nn.Module) -> Iterator[None]:
    """Evaluation mode inside; training flags and random state as before afterwards, whatever happens."""
    flags = [(module, module.training) for model in models for module in model.modules()]
    try:
        with same_randomness():
            for model in models:
                model.eval()
            yield
    finally:
        for module, training in flags:
            module.training = training


@contextmanager
def left_alone(model: nn.Module) -> Iterator[None]:
    """Attributes, lists and mappings among them, and buffers as before afterwards, so that every run begins alike.

    Inside, modules hold copies of their buffers: what a run writes into one can be part of a graph until it is used.
    """
    copies: dict[int, torch.Tensor] = {}
    with attributes_kept(model):
        for module in model.modules():
            for name, buffer in module._buffers.items():
                if buffer is not None:
                    module._buffers[name] = copies.setdefault(id(buffer), buffer.detach().clone())
        yield
