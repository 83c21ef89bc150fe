"""The methods that are compared: PyTorch's masks, Torch-Pruning, and the library's strategies."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from importlib.util import find_spec
from typing import Any, Protocol

from torch import nn

import secateur
from secateur.allocation import (
    BlackBox,
    GradientDescent,
    GridSearch,
    NormBased,
    Progress,
    Random,
    Search,
    Sensitivity,
    Sparsity,
    Strategy,
    Uniform,
)
from secateur.experiments.tdmpc.agent_graph import Which
from secateur.experiments.tdmpc.episodes import Return
from secateur.experiments.tdmpc.pruning import prune_agent
from secateur.experiments.tdmpc.reproduction.settings import CHOICE_SEEDS, SEARCH_SEEDS, Settings
from secateur.experiments.tdmpc.reproduction.subject import Subject
from secateur.experiments.tdmpc.reproduction.whole_model import WholeModel
from secateur.experiments.tdmpc.surrogate import SurrogateError
from secateur.experiments.tdmpc.visits import Visits
from secateur.experiments.torch_masks import RowNorms, mask_rows, smallest_rows
from secateur.importance import Criterion, Reconstruction

_SOME = Settings(methods=(), evaluations=80)
"""Of a strategy whose own settings are looked at."""

_BY_RETURN = 40
"""Candidates of a search by return, at most: each takes seconds, all of them minutes."""

_LATENT = 0.6
"""What the latent state loses where that is set by hand."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Job:
    """What a method is asked to do.

    Attributes:
        subject: the dense agent.
        settings: of the reproduction.
        target: fraction of the parameters to remove.
        refit: whether to refit, candidates as well as the result.
        on_progress: told of a search's progress.
    """

    subject: Subject
    settings: Settings
    target: float
    refit: bool
    on_progress: Callable[[Progress], object] | None = None


@dataclass(frozen=True, kw_only=True, eq=False)
class Pruned:
    """What a method made.

    Attributes:
        model: refitted, if that was asked.
        plan: what was kept.
        visits: what it is distilled on; the subject's if not given.
        evaluations: candidates that were measured.
        seconds: wall-clock time by phase.
    """

    model: nn.Module
    plan: secateur.PruningPlan
    visits: Visits | None = None
    evaluations: int = 0
    seconds: Mapping[str, float] = field(default_factory=dict)


class Method(Protocol):
    """One way to prune an agent."""

    @property
    def label(self) -> str:
        """What tables and figures call it."""
        ...

    @property
    def missing(self) -> str:
        """The package that it needs and that isn't installed; empty if there is none."""
        ...

    @property
    def is_distilled(self) -> bool:
        """Whether its results are distilled, too."""
        ...

    @property
    def settings(self) -> tuple[Any, ...]:
        """What its results depend on besides what was asked: with others, its runs are other runs."""
        ...

    @property
    def needs_refit(self) -> bool:
        """Whether it is the same as another method where there is no refit."""
        ...

    def run(self, job: Job) -> Pruned:
        """Prune."""
        ...


@dataclass(frozen=True)
class Searched:
    """A strategy of the library.

    Attributes:
        label: what tables and figures call it.
        strategy: makes it.
        which: what may shrink.
        latent: fraction of the latent state's channels to remove; what the strategy finds if not given.
        caps: component to the most of its own parameters that may leave.
        criterion: ranks channels where there is no refit; the norm of all their weights if not given. With refit it is
            what their loss costs after it.
        is_ranked_alike: that ranks them where there is no refit, too.
        minimum_width: channels that every group keeps, but not more than a third of the narrowest group's.
        searched: seeds of the episodes by whose return all candidates are compared; by ``SurrogateError`` if there are
            none.
        is_judged: the last candidates are compared by their return, where there is a refit.
        is_revisited: what the first result's planner visits is learnt from, too, where there is a refit.
    """

    label: str
    strategy: Callable[[Settings], Strategy]
    which: Which = "both"
    latent: float | None = None
    caps: Mapping[str, float] = field(default_factory=dict)
    criterion: Callable[[], Criterion] | None = None
    is_ranked_alike: bool = False
    minimum_width: int = 1
    searched: Sequence[int] = ()
    is_judged: bool = False
    is_revisited: bool = False
    missing: str = ""
    is_distilled: bool = True

    @property
    def needs_refit(self) -> bool:
        """Whether something is learnt from what the first result visits."""
        return self.is_revisited

    @property
    def settings(self) -> tuple[Any, ...]:
        """The strategy's, however many evaluations it is given, and how its result is ranked, judged and repeated."""
        strategy = self.strategy(_SOME)
        judges = CHOICE_SEEDS if self.is_judged else ()
        widths = (self.minimum_width,) if self.minimum_width > 1 else ()  # those without keep their names
        caps = (dict(self.caps),) if self.caps else ()
        is_compared = not isinstance(strategy, (Uniform, NormBased))
        compared = (tuple(self.searched) or SurrogateError.name,) if is_compared else ()
        alike = (True,) if self.is_ranked_alike else ()
        always = strategy, self.which, self.latent, self.criterion, judges, self.is_revisited
        return *always, *widths, *caps, *compared, *alike

    def run(self, job: Job) -> Pruned:
        """Score, search, cut, prove, repair and choose."""
        subject, settings = job.subject, job.settings
        by_return = partial(Return, config=subject.agent.config, make=subject.setting.make)
        result = prune_agent(
            subject.model,
            self.target(job),
            visits=subject.visits,
            strategy=self.strategy(settings),
            which=self.which,
            refit=job.refit,
            criterion=self._criterion(job),
            objective=by_return(seeds=self.searched) if self.searched else None,
            final=by_return(seeds=CHOICE_SEEDS) if job.refit and self.is_judged else None,
            finalists=settings.finalists,
            search=Search(on_progress=job.on_progress, refit_steps=0),
            graph=subject.graph,
            revisit=subject.revisited if job.refit and self.is_revisited else None,
        )
        return Pruned(
            model=result.model,
            plan=result.plan,
            visits=result.visits,
            evaluations=result.evaluations,
            seconds=result.seconds,
        )

    def _criterion(self, job: Job) -> Criterion | None:
        """What ranks channels; None for what does so by default."""
        if self.is_ranked_alike:
            return Reconstruction(job.subject.visits.run)
        return None if job.refit or self.criterion is None else self.criterion()

    def target(self, job: Job) -> Sparsity:
        """What is to be removed."""
        interfaces = {} if self.latent is None else {job.subject.latent.name: self.latent}
        narrowest = min(group.size for group in job.subject.graph.groups)
        least = max(1, min(self.minimum_width, narrowest // 3))
        return Sparsity(job.target, interfaces=interfaces, minimum_width=least, caps=self.caps)


@dataclass(frozen=True)
class Peer:
    """Another library's choice of channels.

    Attributes:
        label: what tables and figures call it.
        choose: a plan, and the model as that library leaves it if it doesn't remove what it prunes.
        needs: the package that it needs.
    """

    label: str
    choose: Callable[[Job], tuple[secateur.PruningPlan, nn.Module | None]]
    needs: str = ""
    is_distilled: bool = False
    needs_refit: bool = False

    @property
    def settings(self) -> tuple[Any, ...]:
        """How it chooses."""
        return (self.choose,)

    @property
    def missing(self) -> str:
        """The package, if it isn't installed."""
        return self.needs if self.needs and find_spec(self.needs) is None else ""

    def run(self, job: Job) -> Pruned:
        """Choose; remove what was chosen and refit, if that is asked."""
        subject = job.subject
        started = time.perf_counter()
        plan, model = self.choose(job)
        chosen = time.perf_counter()
        if model is None or job.refit:
            model = secateur.apply(subject.model, plan)
        cut = time.perf_counter()
        if job.refit:
            secateur.refit(model, subject.model, plan, subject.visits.run)
        seconds = {"allocate": chosen - started, "surgery": cut - chosen, "refit": time.perf_counter() - cut}
        return Pruned(model=model, plan=plan, seconds=seconds)


def _masked(job: Job) -> tuple[secateur.PruningPlan, nn.Module]:
    subject = job.subject
    masked = mask_rows(subject.model, subject.graph, job.target, smallest_rows, groups=subject.hidden)
    return masked.plan, masked.model


def _whole_model(job: Job, *, is_global: bool) -> tuple[secateur.PruningPlan, None]:
    subject = job.subject
    return WholeModel(subject.model, subject.graph, subject.visits, is_global).prune(job.target), None


METHODS: Mapping[str, Method] = {
    "ln-structured": Peer("PyTorch, ln_structured", _masked),
    "torch-pruning": Peer("Torch-Pruning", partial(_whole_model, is_global=False), needs="torch_pruning"),
    "torch-pruning-global": Peer("Torch-Pruning, global", partial(_whole_model, is_global=True), needs="torch_pruning"),
    "uniform": Searched("Uniform, latent kept", lambda _: Uniform(), which="internal", criterion=RowNorms),
    "uniform-latent": Searched(f"Uniform, latent {_LATENT:.0%}", lambda _: Uniform(), latent=_LATENT),
    "norm": Searched("NormBased", lambda _: NormBased()),
    "random": Searched("Random", lambda s: Random(draws=s.evaluations), is_judged=True),
    # Every group stays whole, or loses as much as the grid lets it: on cartpole-swingup 76 to 316 combinations meet
    # one of the targets. With a third level it is tens of thousands.
    "grid": Searched("GridSearch", lambda _: GridSearch(levels=2), is_judged=True),
    "sensitivity": Searched("Sensitivity", lambda s: Sensitivity(evaluations=s.evaluations), is_judged=True),
    "revisited": Searched(
        "Sensitivity, revisited", lambda s: Sensitivity(evaluations=s.evaluations), is_judged=True, is_revisited=True
    ),
    # What one part alone can lose shows it: a rollout feeds the errors of the dynamics, and of the latent state, back.
    "spared": Searched(
        "Sensitivity, dynamics spared",
        lambda s: Sensitivity(evaluations=s.evaluations),
        which="internal",
        caps={"dynamics": 0.2},
        is_judged=True,
    ),
    # Masks know nothing of the refit, and take nearly all of the policy and the latent state where much leaves: on
    # cartpole-swingup, 97 % removed, a return of 667 without a least width and 854 with it.
    "gradient": Searched("GradientDescent", lambda _: GradientDescent(), minimum_width=16, is_judged=True),
    "tpe": Searched("BlackBox, TPE", lambda s: BlackBox(evaluations=s.evaluations), is_judged=True),
    "by-return": Searched(
        "BlackBox, by return",
        lambda s: BlackBox(evaluations=min(s.evaluations, _BY_RETURN), sampler="tpe"),
        which="internal",
        searched=SEARCH_SEEDS,
        is_ranked_alike=True,
        is_judged=True,
    ),
}
"""By name, in the order of the tables."""

USUAL = tuple(name for name in METHODS if name != "torch-pruning-global")
"""What is run where nothing is asked for: one setting of each peer."""
