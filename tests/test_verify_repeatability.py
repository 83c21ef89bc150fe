"""A forward pass that depends on a global counter, or on something else outside the model: named by the proof."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

import secateur
from secateur.errors import SecateurWarning, VerificationError
from secateur.graph import trace
from secateur.graph.parting import ADVICE
from secateur.verify import VerificationReport

X = torch.randn(4, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
CALLS = [0]


class Counting(nn.Module):
    """Does something else in some of its calls, all over the process counted."""

    def __init__(self, other: Callable[[Any, torch.Tensor], torch.Tensor], calls: Callable[[int], bool]) -> None:
        super().__init__()
        self.left, self.right, self.head = nn.Linear(6, 8), nn.Linear(6, 8), nn.Linear(8, 3)
        self.other, self.calls = other, calls

    def forward_by(self, x: torch.Tensor) -> torch.Tensor:
        """By an activation that takes turns."""
        return (torch.tanh if CALLS[0] % 2 == 0 else torch.relu)(self.left(x) + self.right(x))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        CALLS[0] += 1
        h = self.other(self, x) if self.calls(CALLS[0]) else torch.relu(self.left(x)) + torch.relu(self.right(x))
        out: torch.Tensor = self.head(h)
        return out


def proof(
    other: Callable[[Any, torch.Tensor], torch.Tensor], calls: Callable[[int], bool] = lambda n: n % 2 == 0
) -> VerificationReport:
    """Of half of the hidden channels; the trace is call 1."""
    torch.manual_seed(0)
    CALLS[0] = 0
    model = Counting(other, calls).double().eval()
    graph = trace(model, X)
    plan = secateur.plan(graph, secateur.importance.Magnitude()(graph, model), 0.5)
    return secateur.verify(model, secateur.apply(model, plan), plan)


def test_a_layer_that_some_runs_skip() -> None:
    with pytest.raises(VerificationError) as caught:
        proof(lambda m, x: torch.relu(m.left(x)))
    made, skipped = (f.__code__.co_firstlineno for f in (Counting.forward, test_a_layer_that_some_runs_skip))
    file = "test_verify_repeatability.py"
    assert str(caught.value) == (
        "Counting doesn't do the same twice: the run that was traced and the one that is verified took different "
        f"operators from operator 1 on: aten.linear in left at {file}:{made + 2} (giving (4, 8)) in the one, "
        f"aten.linear in left at {file}:{skipped + 2} (giving (4, 8)) in the other; {ADVICE}"
    )


def test_another_activation() -> None:
    with pytest.raises(VerificationError, match=r"aten\.relu in .*in the one, aten\.tanh in .*in the other"):
        proof(Counting.forward_by, calls=lambda n: True)


def test_the_first_call_alone() -> None:
    """Every run after the trace is alike, so that the proof holds; but the traced path may be another."""
    with pytest.warns(
        SecateurWarning, match=r"the proof holds for one path through Counting: .* took different"
    ) as caught:
        report = proof(lambda m, x: (torch.tanh(m.left(x)) + m.right(x)) * 1, calls=lambda n: n > 1)
    assert report.largest_difference < 1e-9
    assert caught[0].filename == __file__


def test_another_number() -> None:
    with pytest.raises(
        VerificationError, match=r"two runs compute different values from operator \d+ on: aten\.mul in"
    ):
        proof(lambda m, x: (torch.relu(m.left(x)) + torch.relu(m.right(x))) * float(CALLS[0]), calls=lambda n: True)


def test_prune_names_it_too() -> None:
    CALLS[0] = 0
    model = Counting(lambda m, x: torch.relu(m.left(x)), lambda n: n % 2 == 0).double().eval()
    values = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(VerificationError, match="Counting doesn't do the same twice"):
        secateur.prune(model, X, target=0.4, tolerance=0.1)
    assert all(torch.equal(values[name], value) for name, value in model.state_dict().items())


class Noisy(nn.Module):
    """In training mode, drops numbers and, by chance, a second pass through a layer."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.middle, self.last = nn.Linear(6, 8), nn.Linear(8, 8), nn.Linear(8, 3)
        self.noise = nn.Dropout()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = self.noise(torch.relu(self.first(x)))
        h = h + self.middle(h)
        if torch.rand(()) < 0.5:
            h = h + self.middle(h)
        out: torch.Tensor = self.last(h)
        return out


def test_randomness_that_is_replayed_is_no_difference() -> None:
    torch.manual_seed(0)
    secateur.prune(Noisy().double().train(), X, target=0.4, tolerance=0.1)


@pytest.mark.parametrize("drawn", [0, 1])
def test_layers_dropped_at_random_are_a_path_of_their_own(drawn: int) -> None:
    """Between trace and proof, the user draws random numbers: another path is proved, which is said."""
    model, other = Noisy().double().train(), next(s for s in range(50) if takes_turn(s) != takes_turn(0))
    torch.manual_seed(0)
    graph = trace(model, X)
    plan = secateur.plan(graph, secateur.importance.Magnitude()(graph, model), 0.5)
    small = secateur.apply(model, plan)
    torch.manual_seed(other if drawn else 0)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        secateur.verify(model, small, plan)
    assert len(caught) == drawn
    assert all("the proof holds for one path through Noisy" in str(w.message) for w in caught)


def takes_turn(seed: int) -> bool:
    """Whether the second pass is made under this seed."""
    torch.manual_seed(seed)
    nn.Dropout()(torch.ones(4, 8, dtype=torch.float64))
    return bool(torch.rand(()) < 0.5)


def test_another_entry_point_takes_other_operators_by_right() -> None:
    torch.manual_seed(0)
    model = Counting(lambda m, x: x, lambda n: False).double().eval()
    graph = trace(model, X)
    plan = secateur.plan(graph, secateur.importance.Magnitude()(graph, model), 0.5)
    small = secateur.apply(model, plan)
    assert secateur.verify(model, small, plan, run=lambda m: (m(X), m(2 * X))).outputs == 2
