"""What measures candidates for strategies: each once, in any number of processes, with progress and clear errors."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import secateur
from secateur.allocation import (
    Constraint,
    Minimize,
    Problem,
    Progress,
    Search,
    Sensitivity,
    Sparsity,
    direction_path,
    meet,
)
from secateur.allocation.result import Evaluation
from secateur.allocation.search import stored_searches
from secateur.allocation.workers import Processes
from secateur.errors import CalibrationError, ConstraintError, ObjectiveError, SearchError, SecateurError
from secateur.graph.cost import IntArray
from tests.handmade import Chain

INPUTS = torch.randn(32, 8, generator=torch.Generator().manual_seed(1))


class Counting:
    """Minus the number of parameters of the first layer; remembers which models it was given."""

    def __init__(self) -> None:
        self.seen: Counter[tuple[int, ...]] = Counter()

    def __call__(self, model: nn.Module) -> float:
        sizes = tuple(p.numel() for p in model.parameters())
        self.seen[sizes] += 1
        return -float(sizes[0])


def ones(model: nn.Module) -> float:
    """The sum of the outputs for inputs of ones."""
    with torch.no_grad():
        return float(model(torch.ones(1, 8)).sum())


def problem_of(search: Search, objective: Any, constraints: Sequence[Constraint] = (), **options: Any) -> Problem:
    torch.manual_seed(0)
    model = Chain([8, 16, 12, 16, 8])
    graph = secateur.trace(model, INPUTS)
    scores = secateur.importance.Magnitude()(graph, model)
    measured = search.start(graph, scores, model, objective, constraints, options.get("calibration"))
    return Problem(graph, scores, Sparsity(0.5, tolerance=0.02), measured)


def candidates(problem: Problem, count: int = 6) -> list[IntArray]:
    """Different ones."""
    rng = np.random.default_rng(0)
    found: dict[bytes, IntArray] = {}
    while len(found) < count:
        levels = meet(problem, direction_path(problem, rng.uniform(0.3, 1, 3)))
        found[levels.tobytes()] = levels
    return list(found.values())


def measured(search: Search, objective: Any, **options: Any) -> list[Evaluation]:
    problem = problem_of(search, objective, **options)
    return problem.evaluate(candidates(problem))


@pytest.fixture(params=["memory", "file"])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> Path | None:
    return None if request.param == "memory" else tmp_path / "search.sqlite"


def test_each_candidate_is_measured_once_whoever_asks(storage: Path | None) -> None:
    objective = Counting()
    problem = problem_of(Search(storage=storage), objective)
    asked = candidates(problem)
    first = problem.evaluate([*asked[:4], asked[0]])
    assert problem.evaluate(asked)[:4] == first[:4]
    assert first[4] == first[0]
    assert len(objective.seen) == 6
    assert max(objective.seen.values()) == 1
    for levels, evaluation in zip(asked, first[:4], strict=False):
        kept = problem.kept(levels)
        assert tuple(evaluation.kept.values()) == tuple(kept)
        assert evaluation.objective == -8 * kept[0]
        assert evaluation.satisfied
        assert evaluation.error is None


def test_a_file_is_found_again(tmp_path: Path) -> None:
    search = Search(storage=str(tmp_path / "search.sqlite"), study="mine")
    first, second = Counting(), Counting()
    problem = problem_of(search, first)
    found = problem.evaluate(candidates(problem))
    again = problem_of(search, second)
    assert again.evaluate(candidates(again)) == found
    assert second.seen.total() == 0
    other = problem_of(Search(storage=search.storage, study="yours"), second)
    assert [e.objective for e in other.evaluate(candidates(other))] == [e.objective for e in found]
    assert second.seen.total() == 6


class Fragile(Counting):
    """Fails on some models."""

    def __init__(self, survivors: int) -> None:
        super().__init__()
        self.survivors = survivors

    def __call__(self, model: nn.Module) -> float:
        value = super().__call__(model)
        if len(self.seen) > self.survivors:
            raise ValueError("the simulator crashed")
        return value


def test_a_failure_is_recorded_and_the_search_goes_on(storage: Path | None) -> None:
    objective = Fragile(survivors=2)
    problem = problem_of(Search(storage=storage), objective)
    found = problem.evaluate(candidates(problem))
    assert [e.error is None for e in found] == [True, True, False, False, False, False]
    assert found[2].error is not None
    assert "ValueError: the simulator crashed" in found[2].error
    assert not found[2].satisfied
    assert problem.best(found) in found[:2]
    problem.evaluate(candidates(problem))
    assert objective.seen.total() == 6


def test_an_error_only_if_all_fail() -> None:
    problem = problem_of(Search(), Fragile(survivors=0))
    found = problem.evaluate(candidates(problem))
    with pytest.raises(ObjectiveError, match=r"every one of 6 candidates; .*ValueError: the simulator crashed"):
        problem.best(found)


class Failing:
    """Says why in several lines."""

    def __call__(self, model: nn.Module) -> float:
        raise ValueError("the simulator\n  File missing\nis not there")


def test_all_of_a_failures_message_is_shown_in_one_line() -> None:
    problem = problem_of(Search(), Failing())
    evaluations = problem.evaluate(candidates(problem, 2))
    with pytest.raises(ObjectiveError, match=r"the first: ValueError: the simulator File missing is not there$"):
        problem.best(evaluations)


def test_constraints_are_held_against_their_bounds_when_they_are_read(tmp_path: Path) -> None:
    def satisfied(bound: float) -> list[bool]:
        search = Search(storage=tmp_path / "search.sqlite")
        problem = problem_of(search, None, [Constraint(Counting(), at_least=bound, name="size")])
        return [e.satisfied for e in problem.evaluate(candidates(problem))]

    values = sorted(-8 * k for k in (int(problem_kept) for problem_kept in first_widths()))
    assert all(satisfied(values[0]))
    assert sum(satisfied(values[3])) == sum(v >= values[3] for v in values)


def first_widths() -> list[int]:
    problem = problem_of(Search(), Counting())
    return [int(problem.kept(levels)[0]) for levels in candidates(problem)]


def test_progress() -> None:
    seen: list[Progress] = []
    objective = Fragile(survivors=4)
    problem = problem_of(Search(on_progress=seen.append), Minimize(objective))
    asked = candidates(problem)
    problem.expect(8)
    first = problem.evaluate(asked[:3])
    problem.evaluate(asked)
    assert [(p.done, p.total, p.measured, p.failed) for p in seen] == [
        (1, 8, 1, 0),
        (2, 8, 2, 0),
        (3, 8, 3, 0),
        (4, 8, 3, 0),
        (5, 8, 3, 0),
        (6, 8, 3, 0),
        (7, 8, 4, 0),
        (8, 8, 5, 1),
        (9, 9, 6, 2),
    ]
    best: list[Evaluation | None] = [p.best for p in seen]
    assert best[0] == first[0]
    assert best[-1] == problem.best(problem.evaluate(asked))
    assert all(p.seconds_left is not None for p in seen)
    assert seen[-1].seconds_left == 0
    assert seen[1].seconds_left == pytest.approx(3 * seen[1].seconds)


def test_the_best_so_far_meets_the_target() -> None:
    seen: list[Progress] = []
    problem = problem_of(Search(on_progress=seen.append), Counting())
    result = Sensitivity(evaluations=16)(problem)
    probes, searched = seen[:10], seen[10:]  # the model with nothing removed, and 3 groups at 3 coefficients
    assert [p.best for p in probes] == [None] * 10
    for progress in searched:
        assert progress.best is not None
        assert progress.best.on_target
        assert abs(progress.best.sparsity - 0.5) <= 0.02
    assert searched[-1].best == result.best
    assert [e.on_target for e in result.history] == [False] * 10 + [True] * 6


# Several processes


class Elsewhere:
    """The process that a model was measured in."""

    def __call__(self, model: nn.Module) -> float:
        return float(os.getpid())


def test_jobs_are_processes_of_their_own() -> None:
    problem = problem_of(Search(jobs=2), Elsewhere(), calibration=[INPUTS])
    found = {e.objective for e in problem.evaluate(candidates(problem, 8))}
    assert os.getpid() not in found
    assert len(found) <= 2


def test_a_metric_that_cannot_be_sent() -> None:
    lock = threading.Lock()
    with pytest.raises(SearchError, match=r"can't be sent to worker processes \(.*lock.*\); use jobs=1"):
        measured(Search(jobs=2), lambda model: float(lock.locked()))


class Deadly:
    """Ends its process."""

    def __call__(self, model: nn.Module) -> float:
        os._exit(3)


def test_a_worker_process_that_dies(tmp_path: Path) -> None:
    problem = problem_of(Search(jobs=2, storage=tmp_path / "search.sqlite"), Deadly())
    with pytest.raises(SearchError, match="a worker process died while it measured a candidate"):
        problem.evaluate(candidates(problem))
    (status,) = stored_searches(tmp_path / "search.sqlite")
    assert (status.measured, status.workers) == (0, ())


def interrupt() -> None:
    raise KeyboardInterrupt


class Pool:
    """Remembers how it was ended."""

    def __init__(self) -> None:
        self.kills: list[bool] = []

    def shutdown(self, *, kill_workers: bool) -> None:
        self.kills.append(kill_workers)


def test_an_interrupt_ends_the_worker_processes() -> None:
    workers, pool = Processes(None, 2), Pool()  # type: ignore[arg-type]
    workers._pool = pool
    with workers.stopped_by_failure():
        pass
    assert pool.kills == []
    with pytest.raises(KeyboardInterrupt), workers.stopped_by_failure():
        interrupt()
    assert pool.kills == [True]
    assert workers._pool is None


# Wrong input


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"jobs": 0}, "jobs must be a whole number of processes, at least 1; it is 0"),
        ({"jobs": 1.5}, r"jobs must be a whole number of processes, at least 1; it is 1\.5"),
        ({"grace": 1}, "grace must be a whole number of seconds, at least 2; it is 1"),
        ({"storage": 7}, "storage must be a path or a URL; it is 7"),
        ({"storage": "s.db", "study": 7}, "study must be the name of a study; it is 7"),
        ({"on_progress": 7}, "on_progress must be a function that takes the progress; it is 7"),
        ({"refit_steps": None}, "refit_steps must be a whole number of steps, at least 0; it is None"),
        ({"study": "mine"}, "study='mine' is the name of a study in a storage; give storage= too"),
    ],
)
def test_settings_out_of_range(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(SearchError, match=message):
        Search(**settings)


def test_constraints_with_one_name() -> None:
    constraints = [Constraint(Counting(), at_least=-100), Constraint(Counting(), at_least=-50)]
    with pytest.raises(ConstraintError, match="2 constraints are called 'Counting'; tell them apart with name="):
        problem_of(Search(), None, constraints)


def test_constraints_that_are_none() -> None:
    wrong: list[Any] = [Constraint(Counting(), at_least=-100), [Counting()]]
    for given in wrong:
        with pytest.raises(ConstraintError, match="constraints must be a list of Constraint"):
            problem_of(Search(), None, given)


def test_candidates_may_be_refitted_on_other_data() -> None:
    rows = INPUTS[:16]
    search = Search(calibration=iter([rows]))
    expected = [e.objective for e in measured(Search(), ones, calibration=[rows])]
    for _ in range(2):  # an iterator is read once, and serves every search
        assert [e.objective for e in measured(search, ones, calibration=[INPUTS])] == expected
    with pytest.raises(SearchError, match="refits candidates, not the result: give calibration= too"):
        measured(search, ones)
    with pytest.raises(CalibrationError, match="calibration is a single Tensor"):
        Search(calibration=rows)


def test_calibration_that_is_no_good() -> None:
    with pytest.raises(CalibrationError, match="calibration failed on the model"):
        measured(Search(jobs=2), Elsewhere(), calibration=[torch.ones(2, 5)])


@pytest.mark.parametrize(("package", "search"), [("optuna", {"storage": "x"}), ("joblib", {"jobs": 2})])
def test_an_extra_that_is_missing(package: str, search: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    for module in list(sys.modules):
        if module.startswith((package, "secateur.allocation.database", "secateur.allocation.study")):
            monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(SecateurError, match=rf"needs {package}\S*: pip install 'secateur\[search\]'"):
        measured(Search(**search), Elsewhere())


def test_a_search_in_memory_needs_no_extra() -> None:
    code = """
import sys
for package in ("optuna", "sqlalchemy", "joblib", "cmaes", "cooper", "torchmetrics", "matplotlib"):
    sys.modules[package] = None
import torch, secateur
from secateur.allocation import Random, Search
model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 4))
secateur.prune(model, torch.ones(2, 4), target=0.5, tolerance=0.1, strategy=Random(draws=2), objective=lambda m: 1.0)
"""
    subprocess.run([sys.executable, "-c", code], check=True)
