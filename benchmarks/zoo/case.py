"""One case, one model and one library: prune, then every check, each kept as soon as it is known."""

from __future__ import annotations

import gc
import tempfile
import traceback
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from .checks import Check, check_again, check_enough, check_shapes, check_ties, check_training
from .entry import Entry
from .heads import check_heads
from .libraries import COEFFICIENT, Library, Pruned
from .measure import measured
from .structure import built, inputs_of, outputs_of, parameter_count

CHECKS = ("runs", "shapes", "equal", "ties", "heads", "training", "again", "saved", "enough", "told")
"""In the order of the table; ``told``: a warning says so where too few parameters leave."""

_SHOWN_REASONS = 12

_REPEATS = 4

_SLOW = 3.0
"""Seconds beyond which nothing is repeated."""

Keep = Callable[[dict[str, Any]], None]


def forward_memory(entry: Entry) -> dict[str, Any]:
    """Peak memory of the model's plain forward pass, which a case's is compared with."""
    model, inputs = built(entry), inputs_of(entry)
    with torch.no_grad(), measured() as found:
        outputs_of(entry, model, inputs)
    return {"peak": found.peak, "seconds": found.seconds}


class Case:
    """A case in progress; ``record`` holds what is known so far."""

    def __init__(self, entry: Entry, library: Library, keep: Keep) -> None:
        self.entry, self.library, self._keep = entry, library, keep
        self.record: dict[str, Any] = {
            "model": entry.name,
            "family": entry.family,
            "library": library.name,
            "version": library.version(),
            "doing": "building",
            "checks": {},
        }

    def run(self) -> dict[str, Any]:
        """Everything, as far as it goes."""
        inputs = inputs_of(self.entry)
        model = built(self.entry)
        with torch.no_grad():
            dense = outputs_of(self.entry, model, inputs)  # what a first run sets up isn't the library's
        self._note("pruning", dense_parameters=parameter_count(model))
        pruned = self._pruned(model, inputs)
        if pruned is None:
            return self._finish()
        small = self._small_outputs(pruned, inputs)
        if small is not None:
            self._examine(pruned, dense, small, inputs)
        return self._finish()

    def _note(self, doing: str, **facts: Any) -> None:
        self.record.update(facts, doing=doing)
        self._keep(self.record)

    def _finish(self) -> dict[str, Any]:
        checks = self.record["checks"]
        self.record["fully_ok"] = set(checks) == set(CHECKS) and all(c["passed"] is not False for c in checks.values())
        self._note("finished")
        return self.record

    def _put(self, name: str, check: Check) -> None:
        self.record["checks"][name] = {"passed": check.passed, "text": check.text}

    def _check(self, name: str, question: Callable[[], Check]) -> None:
        """Answer and keep it; what a library or a pruned model raises is a failure, with the error as its text."""
        self._note(f"checking {name}")
        try:
            answer = question()
        except Exception as error:  # whatever a library or a model raises is what we came to see
            answer = Check(False, _short(error))
            self.record.setdefault("tracebacks", {})[name] = _where(error)
        self._put(name, answer)

    def _pruned(self, model: nn.Module, inputs: Any) -> Pruned | None:
        try:
            with measured() as found:
                pruned = self.library.prune(self.entry, model, inputs)
        except Exception as error:
            self._put("runs", Check(False, _short(error)))
            self.record["tracebacks"] = {"runs": _where(error)}
            return None
        finally:
            self.record |= {"seconds": found.seconds, "peak": found.peak}
        self.record["seconds"] = min(found.seconds, *self._repeated(inputs, found.seconds))
        parameters = parameter_count(pruned.model)
        removed = 1 - parameters / self.record["dense_parameters"]
        self._note(
            "running",
            parameters=parameters,
            removed=removed,
            reasons=pruned.reasons[:_SHOWN_REASONS],
            missing_rules=pruned.missing_rules,
            warnings=pruned.warnings[:_SHOWN_REASONS],
        )
        warning = next((text for text in pruned.warnings if "parameters leave" in text), "")
        few = removed < COEFFICIENT / 2
        self._put("told", Check(bool(warning) if few else None, warning or ("no warning says so" if few else "")))
        return pruned

    def _repeated(self, inputs: Any, first: float) -> list[float]:
        """Seconds of the same once more, and again: the least of all is what the library needs on a busy machine."""
        if first > _SLOW:
            return [first]
        self._note("pruning again, for the time")
        seconds = []
        for _ in range(_REPEATS):
            model = built(self.entry)
            gc.collect()
            with measured() as found:
                self.library.prune(self.entry, model, inputs)
            seconds.append(found.seconds)
        return seconds

    def _small_outputs(self, pruned: Pruned, inputs: Any) -> list[torch.Tensor] | None:
        """The smaller model's outputs; if it fails, once more after corrections by hand, which is noted."""
        try:
            with torch.no_grad():
                outputs = outputs_of(self.entry, pruned.model, inputs)
        except Exception as error:
            self._put("runs", Check(False, f"after surgery: {_short(error)}"))
            self.record["tracebacks"] = {"runs": _where(error)}
            self._note("correcting by hand")
            self.record["runs_patched"] = self._runs_patched(pruned, inputs)
            return None
        self._put("runs", Check(True))
        return outputs

    def _runs_patched(self, pruned: Pruned, inputs: Any) -> bool:
        try:
            with torch.no_grad():
                return self.library.patch(self.entry, pruned) and bool(outputs_of(self.entry, pruned.model, inputs))
        except Exception:  # whatever a wrongly pruned model raises
            return False

    def _examine(self, pruned: Pruned, dense: list[torch.Tensor], small: list[torch.Tensor], inputs: Any) -> None:
        entry, library = self.entry, self.library
        reference = built(entry)
        gone = self.record["dense_parameters"] - self.record["parameters"]
        self._put("shapes", check_shapes(dense, small))
        self._check("enough", lambda: check_enough(entry, reference, gone, COEFFICIENT / 2, inputs))
        self._check("ties", lambda: check_ties(reference, pruned.model))
        self._check("heads", lambda: check_heads(entry, reference, pruned.model, partial(library.unscaled, pruned)))
        self._check("equal", lambda: library.equality(entry, pruned, inputs))
        self._check("saved", lambda: self._saved(pruned, small, inputs))
        self._check("training", lambda: check_training(entry, pruned.model, inputs))
        self._check("again", lambda: self._again(pruned, dense, inputs))

    def _saved(self, pruned: Pruned, small: list[torch.Tensor], inputs: Any) -> Check:
        with tempfile.TemporaryDirectory() as folder:
            loaded = self.library.reloaded(self.entry, pruned, Path(folder))
        with torch.no_grad():
            outputs = outputs_of(self.entry, loaded.train(self.entry.train), inputs)
        same = all(
            torch.equal(old, new) for old, new in zip(small, outputs, strict=True) if not bool(old.isnan().any())
        )
        return Check(same, "" if same else "the loaded model's outputs are others")

    def _again(self, pruned: Pruned, dense: list[torch.Tensor], inputs: Any) -> Check:
        once = parameter_count(pruned.model)
        with torch.no_grad():
            outputs_of(self.entry, pruned.model, inputs)  # what the model keeps of its last run has no graph any more
        twice = self.library.prune(self.entry, pruned.model, inputs).model
        return check_again(self.entry, once, twice, dense, inputs)


def _short(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())}"[:600]


def _where(error: Exception) -> list[str]:
    """The last frames, and those of the cause."""
    chain = [error.__cause__] if error.__cause__ else []
    return [
        line.rstrip() for each in (*chain, error) for line in traceback.format_exception(each, chain=False, limit=-6)
    ]
