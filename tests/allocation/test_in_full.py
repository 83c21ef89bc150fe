"""Candidates refitted on less than the result is: the smallest model is decided by what is measured in full."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import secateur
from secateur.allocation import Constraint, Evaluation, Problem, Progress, Random, Search, Smallest, Sparsity
from secateur.allocation.search import stored_searches
from secateur.metrics import DenseError

LATENT = torch.randn(300, 6, generator=torch.Generator().manual_seed(1))
ROWS = LATENT @ torch.randn(6, 16, generator=torch.Generator().manual_seed(2))
FEW = [ROWS[:12]]
CALIBRATION = [ROWS[:200]]
HELD_OUT = ROWS[200:]


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.encoder = nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 12))
        self.decoder = nn.Sequential(nn.Linear(12, 32), nn.ReLU(), nn.Linear(32, 16))

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.decoder(self.encoder(x))
        return out


MODEL = Net()


class Counted:
    """The error against the dense model, called up to a limit, with the widths of the models it was given."""

    name = "error"

    def __init__(self, limit: int | None = None) -> None:
        self.seen: list[tuple[int, ...]] = []
        self.limit = limit

    def __call__(self, model: nn.Module) -> float:
        self.seen.append(tuple(p.shape[0] for p in model.parameters()))
        if len(self.seen) == self.limit:
            raise KeyboardInterrupt
        return DenseError(MODEL, [HELD_OUT])(model)


def pruned(metric: Any, search: Search) -> secateur.PruningResult:
    return secateur.prune(
        MODEL,
        ROWS[:1],
        target=Smallest(resolution=0.1),
        strategy=Random(draws=3),
        constraints=[Constraint(metric, at_most=0.05)],
        calibration=CALIBRATION,
        search=search,
    )


def test_the_result_satisfies_and_is_smaller_than_what_little_data_would_have_found() -> None:
    result = pruned(Counted(), Search(refit_steps=0, calibration=FEW))
    best = result.allocation.best
    assert best is not None
    assert best.full
    assert best.constraints["error"] == pytest.approx(DenseError(MODEL, [HELD_OUT])(result.model), rel=1e-4)
    assert best.constraints["error"] <= 0.05
    by_little = [e for e in result.allocation.history if not e.full and e.kept == best.kept]
    assert by_little[0].constraints["error"] > 0.05  # so that little data would have gone on to larger models
    satisfied = [e.sparsity for e in result.allocation.history if e.full and e.satisfied]
    assert best.sparsity == max(satisfied)


@pytest.mark.parametrize("search", [Search(), Search(refit_steps=0)], ids=["default", "no refit"])
def test_where_candidates_are_measured_in_full_anyway_nothing_is_measured_again(search: Search) -> None:
    graph = secateur.trace(MODEL, ROWS[:1])
    scores = secateur.importance.Magnitude()(graph, MODEL)
    calibration = None if search.refit_steps == 0 else CALIBRATION
    constraints = [Constraint(Counted(), at_most=0.05)]
    assert search.start(graph, scores, MODEL, None, constraints, calibration).full is None
    metric = Counted()
    result = secateur.prune(
        MODEL,
        ROWS[:1],
        target=Smallest(resolution=0.1),
        strategy=Random(draws=2),
        constraints=[Constraint(metric, at_most=10)],
        calibration=calibration,
        search=search,
    )
    assert len(metric.seen) == len({tuple(e.kept.values()) for e in result.allocation.history})
    assert not any(e.full for e in result.allocation.history)


def known(history: Sequence[Evaluation]) -> list[tuple[bool, tuple[int, ...], float]]:
    return [(e.full, tuple(e.kept.values()), e.constraints["error"]) for e in history]


def test_a_search_that_is_killed_resumes_and_measures_nothing_twice(tmp_path: Path) -> None:
    whole = pruned(metric := Counted(), Search(refit_steps=0, calibration=FEW)).allocation
    total = len(metric.seen)
    assert total == len(set(known(whole.history)))
    in_full = [i for i, e in enumerate(whole.history) if e.full]
    assert len(in_full) > 2
    search = Search(refit_steps=0, calibration=FEW, storage=tmp_path / "search.db", study="mine")
    spent = 0
    # Killed while the second full measurement is made, and while the next candidate is.
    for limit in (in_full[1] + 1, 2):
        cut = Counted(limit)
        with pytest.raises(KeyboardInterrupt):
            pruned(cut, search)
        spent += limit - 1
    last = Counted()
    resumed = pruned(last, search).allocation
    assert spent + len(last.seen) == total
    assert known(resumed.history) == known(whole.history)
    assert resumed.best in resumed.history
    again = Counted()
    assert known(pruned(again, search).allocation.history) == known(whole.history)
    assert again.seen == []
    measured = {status.name: status.measured for status in stored_searches(tmp_path / "search.db")}
    assert measured == {"mine": total - len(in_full), "mine (in full)": len(in_full)}


def test_calibration_that_can_be_read_once_serves_both() -> None:
    graph = secateur.trace(MODEL, ROWS[:1])
    scores = secateur.importance.Magnitude()(graph, MODEL)
    constraints = [Constraint(Counted(), at_most=0.05)]
    found = []
    for data in (iter(CALIBRATION), CALIBRATION):
        search = Search(refit_steps=0).start(graph, scores, MODEL, None, constraints, data)
        assert search.full is not None
        candidate = Problem(graph, scores, Sparsity(0.5)).evaluation(np.full(3, 6))
        values = [each.evaluate([candidate])[0].constraints["error"] for each in (search, search.full)]
        assert values[0] != values[1]
        found.append(values)
    assert found[0] == found[1]


def test_progress_counts_both_and_shows_the_smallest_that_satisfies() -> None:
    seen: list[Progress] = []
    result = pruned(Counted(), Search(refit_steps=0, calibration=FEW, on_progress=seen.append)).allocation
    assert [p.done for p in seen] == list(range(1, len(result.history) + 1))
    assert all(p.total >= p.done for p in seen)
    assert seen[-1].best is not None
    assert seen[-1].best == result.best


def test_a_target_of_size_is_searched_as_ever() -> None:
    metric = Counted()
    result = secateur.prune(
        MODEL,
        ROWS[:1],
        target=Sparsity(0.5, tolerance=0.02),
        strategy=Random(draws=3),
        constraints=[Constraint(metric, at_most=1)],
        calibration=CALIBRATION,
        search=Search(refit_steps=0, calibration=FEW),
    )
    assert len(metric.seen) == 3
    assert not any(e.full for e in result.allocation.history)
