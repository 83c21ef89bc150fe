"""Where candidates are measured: in this process, or in several others at once by joblib's process pool."""

from __future__ import annotations

import os
import pickle
import threading
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import Future
from contextlib import contextmanager
from typing import Any, Protocol

import torch

from secateur.allocation.evaluator import Evaluator, Measurement
from secateur.errors import SearchError
from secateur.extras import needs

_IDLE_SECONDS = 120
"""After which a worker process without work ends."""

_PARENT_CHECKED = 1.0
"""Seconds between two looks at whether the process that started a worker is still there."""


class Workers(Protocol):
    """Measures candidates, some at once."""

    @property
    def slots(self) -> int:
        """How many at once."""
        ...

    def submit(self, coefficients: Mapping[str, float]) -> Future[Measurement]:
        """Start measuring one."""
        ...

    @contextmanager
    def stopped_by_failure(self) -> Iterator[None]:
        """What is being measured is abandoned when the code inside raises."""
        ...


class Inline:
    """Measures one candidate at a time, in this process."""

    slots = 1

    def __init__(self, evaluator: Evaluator) -> None:
        self._evaluator = evaluator

    def submit(self, coefficients: Mapping[str, float]) -> Future[Measurement]:
        """Measure it now."""
        future: Future[Measurement] = Future()
        future.set_result(self._evaluator(coefficients))
        return future

    @contextmanager
    def stopped_by_failure(self) -> Iterator[None]:
        """Nothing goes on in the background."""
        yield


class Processes:
    """Measures several candidates at once, in processes that share this one's torch threads among them.

    They start with the first candidate and end with this object, after two idle minutes, or with this process.
    """

    def __init__(self, evaluator: Evaluator, slots: int) -> None:
        self.slots = slots
        self._evaluator = evaluator
        self._pool: Any = None

    def submit(self, coefficients: Mapping[str, float]) -> Future[Measurement]:
        """Start measuring it.

        Raises:
            SearchError: the model, its data or a metric can't be sent to another process.
        """
        if self._pool is None:
            self._pool = _pool(self._evaluator, self.slots)
        try:
            future: Future[Measurement] = self._pool.submit(_measured, dict(coefficients))
            return future
        except (pickle.PicklingError, TypeError, AttributeError, NotImplementedError) as error:
            raise SearchError(
                f"the model, its calibration data or a metric can't be sent to worker processes ({error}); use jobs=1"
            ) from error

    @contextmanager
    def stopped_by_failure(self) -> Iterator[None]:
        """Kills the processes when the code inside raises, as by an interrupt; the next candidate starts others."""
        try:
            yield
        except BaseException:
            pool, self._pool = self._pool, None
            if pool is not None:
                pool.shutdown(kill_workers=True)
            raise


def _pool(evaluator: Evaluator, slots: int) -> Any:
    with needs("joblib", extra="search"):
        from joblib.externals.loky.process_executor import ProcessPoolExecutor  # type: ignore[import-untyped]
    threads = max(1, torch.get_num_threads() // slots)
    return ProcessPoolExecutor(
        max_workers=slots,
        timeout=_IDLE_SECONDS,
        initializer=_start,
        initargs=(evaluator, threads, os.getpid()),
        env={"OMP_NUM_THREADS": str(threads)},
    )


_evaluator: Evaluator | None = None
"""In a worker process: what it measures with."""


def _start(evaluator: Evaluator, threads: int, parent: int) -> None:
    global _evaluator
    torch.set_num_threads(threads)
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()
    _evaluator = evaluator


def _end_with(parent: int) -> None:
    """End this process when the one that started it has been killed: nobody would ever read its results."""
    while os.getppid() == parent:
        time.sleep(_PARENT_CHECKED)
    os._exit(1)


def _measured(coefficients: Mapping[str, float]) -> Measurement:
    assert _evaluator is not None
    return _evaluator(coefficients)
