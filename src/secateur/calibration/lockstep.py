"""Two runs of one calibration, paired call by call, without keeping either's activations.

Each run has a thread of its own, but only one runs at a time: a run stops at every call of a watched module until it
is resumed. That pairs the rows of the dense and the smaller model also where the calibration is one function that
loops inside, with the memory of one call. Each run has its own copy of the global random state, so that code which
draws random numbers sees the same ones as if it ran alone.

Where many smaller models are made of one dense model, and memory allows, the dense run is recorded once instead.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from queue import SimpleQueue

import torch
from torch import Tensor, nn

from secateur.calibration.consumers import Reader
from secateur.calibration.moments import watch
from secateur.calibration.runs import Calibration, Run, evaluating, failures_named
from secateur.errors import CalibrationError
from secateur.graph.randomness import RandomState

_SAME_CALLS = "calibration must make the same calls with the same data whichever model it is given"


@dataclass(frozen=True)
class Output:
    """What one call of a watched module made, valid until the next call."""

    reader: Reader
    module: nn.Module
    outputs: Tensor

    @property
    def rows(self) -> int:
        """Rows of the module's output."""
        return len(self.reader.layout.rows(self.module, self.outputs))


@dataclass(frozen=True)
class Call(Output):
    """One call of a watched module: its input and output, valid until the next call."""

    inputs: Tensor


@dataclass(frozen=True, eq=False)
class Recording:
    """What a model's watched modules made in one run of the calibration, for any number of models to be paired with.

    Attributes:
        outputs: of every call, in order.
        state: the global random state that the run began with.
    """

    outputs: tuple[Output, ...]
    state: RandomState

    def replay(self, readers: Sequence[Reader]) -> Iterator[Output]:
        """The calls of these readers' modules."""
        return (output for output in self.outputs if output.reader in readers)


def record(model: nn.Module, readers: Sequence[Reader], calibration: Calibration, *, largest: int) -> Recording | None:
    """Run the calibration once and keep what the watched modules make; None if that takes more bytes than ``largest``.

    Raises:
        CalibrationError: the run fails.
    """
    outputs: list[Output] = []
    held = 0

    def keep(reader: Reader, module: nn.Module, _inputs: Tensor, made: Tensor) -> None:
        nonlocal held
        held += made.nbytes
        if held > largest:
            outputs.clear()
        else:
            # A copy: what follows may write into it, as ReLU(inplace=True) does.
            outputs.append(Output(reader, module, made.detach().clone()))

    with evaluating(model), watch(model, readers, keep):
        state = RandomState.capture()
        calibration.run(model)
    return Recording(tuple(outputs), state) if held <= largest else None


def run_in_lockstep(
    dense: nn.Module | Recording,
    small: nn.Module,
    readers: Sequence[Reader],
    calibration: Calibration,
    on_pair: Callable[[Output, Call], Tensor | None],
) -> None:
    """Run the calibration on both models at once and hand over every pair of corresponding calls.

    Args:
        dense: the original model, or what was recorded of it.
        small: the smaller model, with the same module paths.
        readers: the modules to watch.
        calibration: the data; both models see the same random numbers.
        on_pair: called with the dense and the smaller model's call, in order of the calls. A tensor that it returns
            takes the place of the smaller model's output.

    Raises:
        CalibrationError: the two runs make different calls or have different rows, or one of them fails.
    """
    models = [small] if isinstance(dense, Recording) else [dense, small]
    with evaluating(*models), ExitStack() as stack:
        runs = calibration.runs(len(models))
        if isinstance(dense, Recording):
            state, outputs = dense.state, dense.replay(readers)
        else:
            state = RandomState.capture()
            first = stack.enter_context(closing(_PausedRun(runs[1], dense, readers, state, "the dense model")))
            outputs = iter(first.advance, None)
        second = stack.enter_context(closing(_PausedRun(runs[0], small, readers, state, "the smaller model")))
        replacement: Tensor | None = None
        while True:
            pair = next(outputs, None), second.advance(replacement)
            if pair[0] is None and pair[1] is None:
                return
            replacement = on_pair(*_matched(*pair))


def _matched(dense: Output | None, small: Call | None) -> tuple[Output, Call]:
    if dense is None or small is None:
        which = "smaller" if dense is None else "dense"
        extra = dense or small
        name = extra.reader.module if extra else ""
        raise CalibrationError(f"the {which} model calls {name!r} more often than the other; {_SAME_CALLS}")
    if dense.reader != small.reader:
        called, instead = dense.reader.module, small.reader.module
        raise CalibrationError(f"the dense model calls {called!r} where the smaller calls {instead!r}; {_SAME_CALLS}")
    if dense.rows != small.rows:
        raise CalibrationError(
            f"a call of {dense.reader.module!r} has {dense.rows} rows in the dense model and {small.rows} in the"
            f" smaller; {_SAME_CALLS}"
        )
    return dense, small


class _Cancelled(BaseException):
    """Ends an abandoned run from inside; not an ``Exception``, so that the user's code doesn't catch it."""


class _PausedRun:
    """A run in a thread that moves only inside ``advance``, from one watched call to the next."""

    def __init__(self, run: Run, model: nn.Module, readers: Sequence[Reader], state: RandomState, which: str) -> None:
        self._run, self._model, self._readers, self._which = run, model, readers, which
        self._state = state
        self._device = torch.get_default_device()
        self._cancelled = False
        self._resume: SimpleQueue[Tensor | None] = SimpleQueue()
        self._outcome: SimpleQueue[Call | BaseException | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._main, daemon=True)
        self._thread.start()

    def advance(self, replacement: Tensor | None = None) -> Call | None:
        """Go on to the next watched call, the last one's output replaced if given; None at the end.

        A failure of the run is raised here.
        """
        outer = RandomState.capture()
        self._state.restore()
        self._resume.put(replacement)
        outcome = self._outcome.get()
        self._state = RandomState.capture()
        outer.restore()
        if isinstance(outcome, BaseException):
            with failures_named(self._which):
                raise outcome
        return outcome

    def close(self) -> None:
        """Unwind the run, if it hasn't ended, and wait for its thread."""
        self._cancelled = True
        self._resume.put(None)
        self._thread.join()

    def _main(self) -> None:
        try:
            self._wait()
            with _thread_state(self._device), watch(self._model, self._readers, self._pause):
                self._run(self._model)
            self._outcome.put(None)
        except _Cancelled:
            pass
        except BaseException as error:  # whatever it is, it belongs to the thread that waits in ``advance``
            self._outcome.put(error)

    def _pause(self, reader: Reader, module: nn.Module, inputs: Tensor, outputs: Tensor) -> Tensor | None:
        if threading.current_thread() is not self._thread:
            raise CalibrationError(f"the calibration function ran {self._which} while it was given the other one")
        self._outcome.put(Call(reader, module, outputs, inputs))
        return self._wait()

    def _wait(self) -> Tensor | None:
        replacement = None if self._cancelled else self._resume.get()
        if self._cancelled:
            raise _Cancelled
        return replacement


@contextmanager
def _thread_state(device: torch.device) -> Iterator[None]:
    """What torch keeps per thread: no gradients, and the caller's default device."""
    with ExitStack() as stack:
        stack.enter_context(torch.no_grad())
        if device != torch.device("cpu"):
            stack.enter_context(device)
            if device.type == "cuda":
                stack.enter_context(torch.cuda.device(device))
        yield
