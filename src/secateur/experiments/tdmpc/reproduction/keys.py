"""What results depend on: by it they are found again, and never taken for those of other settings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import secateur
from secateur.allocation.identity import digest, parts
from secateur.experiments.fingerprint import fingerprint, with_fingerprint
from secateur.experiments.tdmpc.pruning import DISTILLED_ROWS, HELD_OUT, SEARCHED_ROWS
from secateur.experiments.tdmpc.reproduction.analysis import REMOVED
from secateur.experiments.tdmpc.reproduction.methods import METHODS
from secateur.experiments.tdmpc.reproduction.planning import THREADS
from secateur.experiments.tdmpc.reproduction.recordings import digest as digest_of_agent
from secateur.experiments.tdmpc.reproduction.records import Record
from secateur.experiments.tdmpc.reproduction.run_list import Run
from secateur.experiments.tdmpc.reproduction.settings import DRIFT_HORIZONS, Settings
from secateur.experiments.tdmpc.reproduction.subject import UNSEEN, Subject
from secateur.experiments.tdmpc.visits import Visits
from secateur.recovery.distill import LEARNING_RATE

FIRST = frozenset(
    {
        "f99a03d6b005b888",  # ln-structured
        "0280958a48696c9e",  # torch-pruning
        "d485852725e4852b",  # torch-pruning-global
        "f40cd657e9e14f96",  # uniform
        "651e5889d27cee59",  # uniform-latent
        "cac7128177f17d10",  # norm
        "405790418f81e2fe",  # sensitivity
        "0fd7949ae5f578e2",  # revisited
        "d0c84bec97e687d2",  # tpe
        "5ff8f85a0a7783a5",  # single parts
        "4ce12d37e5f1dabf",  # PyTorch's masks
        "71106420ee74d71a",  # the analysis
        "8ecedb0f1b588298",  # planning
    }
)
"""Of the settings with which runs were made before their keys held a fingerprint: these runs still count."""


@dataclass(frozen=True)
class Keys:
    """What the results of one reproduction depend on.

    Attributes:
        settings: what was asked.
        agent: names the dense agent.
        visits: names what pruning is based on; None if it doesn't know its episodes, as those that were recorded before
            keys held this.
    """

    settings: Settings
    agent: str
    visits: str | None

    @classmethod
    def of(cls, subject: Subject, settings: Settings) -> Keys:
        """The keys of results for a subject."""
        return cls(settings, digest_of_agent(subject.agent), _name(subject.visits))

    def of_run(self, run: Run) -> dict[str, Any]:
        """What the result of a run depends on."""
        settings = self.settings
        if run.kind == "masked":
            return self._key({"masked": run.value}, "masked", *_measured())
        if run.kind == "part":
            episodes = settings.sensitivity_episodes
            asked = {"part": run.name, "level": run.value, "refit": run.refit, "episodes": episodes}
            return self._key(asked, "part", *_measured())
        method = METHODS[run.name]
        asked = {
            "method": run.name,
            "target": run.value,
            "refit": run.refit,
            "evaluations": settings.evaluations,
            "finalists": settings.finalists,
            "distill": settings.distill if run.refit and method.is_distilled else 0,
        }
        distillation = (DISTILLED_ROWS, LEARNING_RATE) if method.is_distilled else ()
        return self._key(asked, method.settings, HELD_OUT, SEARCHED_ROWS, *distillation, *_measured())

    def of_analysis(self) -> dict[str, Any]:
        """What the cost of the analysis depends on."""
        return self._key({"analysis": True}, "analysis", REMOVED, UNSEEN)

    def of_planning(self, timed: Sequence[Record]) -> dict[str, Any]:
        """What the cost of planning depends on.

        Args:
            timed: of the models whose planning is timed.
        """
        models = [[r.method, r.target, dict(r.kept)] for r in timed]
        return self._key({"planning": models, "repeats": self.settings.repeats}, "planning", THREADS)

    def _key(self, asked: dict[str, Any], *constants: Any) -> dict[str, Any]:
        """What is asked, and all else that its result depends on; constants of the code as a fingerprint."""
        common: dict[str, Any] = {"agent": self.agent, "secateur": secateur.__version__}
        if self.visits is not None:
            common["visits"] = self.visits
        key = {"episodes": self.settings.episodes, **asked, **common}
        return with_fingerprint(key, fingerprint(*constants), FIRST)


def _measured() -> tuple[Any, ...]:
    """Constants on which every measurement of a pruned agent depends."""
    return UNSEEN, DRIFT_HORIZONS


def _name(visits: Visits) -> str | None:
    return None if visits.seeds is None else digest(parts(visits))
