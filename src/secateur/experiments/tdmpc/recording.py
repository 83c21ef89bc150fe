"""Record what a planner visits, in several episodes, some of them disturbed: the data that pruning is calibrated on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import cycle, islice

import torch
from torch import Tensor

from secateur.errors import CalibrationError
from secateur.experiments.tdmpc.config import TdMpcConfig
from secateur.experiments.tdmpc.environments import Maker, make
from secateur.experiments.tdmpc.episodes import run_episodes
from secateur.experiments.tdmpc.planner import WorldModel
from secateur.experiments.tdmpc.visits import Visits

CALIBRATION_SEEDS = tuple(range(1_000, 1_008))
"""Of the episodes that are recorded; other than those of the episodes that judge a model."""

DISTURBANCES = (0.0, 0.3)
"""Standard deviation of the noise on the executed actions, in turns: a smooth episode, a disturbed one, ..."""

ROWS = 4_000
"""With horizon 5 these are 20,000 rows of the dynamics."""


def record_visits(
    model: WorldModel,
    config: TdMpcConfig,
    *,
    seeds: Sequence[int] = CALIBRATION_SEEDS,
    noise: Sequence[float] = DISTURBANCES,
    sequences: int = 1,
    rows: int = ROWS,
    seed: int = 0,
    on_step: Callable[[int], object] | None = None,
    make: Maker = make,
) -> Visits:
    """Run episodes with a planner, and keep states with sequences of actions that it sampled there.

    In every iteration of every step of every episode, ``sequences`` of those that the planner samples are drawn, good
    and bad ones alike; of all that comes together, ``rows`` are drawn. The first iteration's are widely spread, and a
    smaller model has to tell them apart as well: on cartpole-swingup with 92 % removed, the last iteration's alone gave
    a return of 113, those of all iterations 855. A controller also has to come back from where it should not be: so
    noise is added to the executed actions of some episodes.

    Args:
        model: the dense one; or a smaller one, to learn where it gets lost: join these visits to the dense one's.
        config: the task, and the planner's settings.
        seeds: of the episodes: where they start.
        noise: standard deviations of the noise on executed actions, in units of the actions, one after the other for
            the episodes; the first again after the last.
        sequences: drawn per iteration, step and episode.
        rows: kept at the end, at most: of short episodes all there are.
        seed: of the draws.
        on_step: called after every agent step with its number, from 1 to the episodes' length.
        make: makes the environments, one per seed.

    Raises:
        CalibrationError: no episodes, sequences or rows are asked for, or more sequences than the planner samples.
        ControlError: a ``noise`` is negative or not finite; or an episode fails, and the message names the task, seed
            and step.
    """
    for name, count in (("seeds", len(seeds)), ("noise", len(noise)), ("sequences", sequences), ("rows", rows)):
        if count < 1:
            raise CalibrationError(f"record_visits needs at least one of its {name}")
    sampled = config.samples + config.policy_samples
    if sequences > sampled:
        raise CalibrationError(f"{sequences} sequences can't be drawn from the {sampled} that the planner samples")
    drawn = _Draws(seeds, sequences, torch.Generator().manual_seed(seed))
    stds = list(islice(cycle(noise), len(seeds)))
    run_episodes(model, config, seeds, noise=stds, on_step=on_step, on_sequences=drawn.add, make=make)
    return drawn.visits(config.task, rows)


class _Draws:
    """Some of the sequences that a planner samples, of every iteration."""

    def __init__(self, seeds: Sequence[int], sequences: int, generator: torch.Generator) -> None:
        self._seeds, self._sequences, self._generator = torch.tensor(seeds), sequences, generator
        self._observations, self._actions, self._episodes = list[Tensor](), list[Tensor](), list[Tensor]()

    def add(self, observations: Tensor, actions: Tensor) -> None:
        """Draw from those of one iteration: observations (E, n), actions (H, E, S, m)."""
        _, episodes, sampled, _ = actions.shape
        weights = torch.ones(episodes, sampled)
        chosen = torch.multinomial(weights, self._sequences, generator=self._generator)
        episode = torch.arange(episodes)[:, None].expand_as(chosen).reshape(-1)
        self._observations.append(observations[episode].clone())
        self._actions.append(actions[:, episode, chosen.reshape(-1)].clone())
        self._episodes.append(episode)

    def visits(self, task: str, rows: int) -> Visits:
        """At most so many of all that was drawn, in random order."""
        visits = Visits(
            task=task,
            observations=torch.cat(self._observations),
            actions=torch.cat(self._actions, dim=1),
            seeds=self._seeds[torch.cat(self._episodes)],
        )
        return visits.take(torch.randperm(visits.rows, generator=self._generator)[:rows])
