"""Prune your own controller: a policy trained with stable-baselines3, judged by the return of its episodes.

    pip install 'secateur[examples]'
    python examples/prune_your_controller.py                          # trains SAC on Pendulum-v1, prunes its actor
    python examples/prune_your_controller.py --sparsity 0.5 0.9 --seed 1 --json result.json
    python examples/prune_your_controller.py --policy my_sac.zip --task MountainCarContinuous-v0

Five steps, each a function below:

1. ``train``: a controller. Yours comes from somewhere else: ``--policy`` loads one that ``SAC.save`` wrote.
2. ``visited_states``: what it meets in use, from several starts and off its usual path. The repair needs this.
3. ``EpisodeReturn``: what it is good for, as a function of a model and a seed. ``secateur.metrics.Repeats`` makes an
   objective of it: the same starts for every candidate, a mean with its interval, or the worst episode.
4. ``prune_actor``: the actor alone is what drives, so that it alone is pruned for deployment.
5. ``prune_for_training``: actor and critic as two components with a target each, for a policy that goes on learning.

Which function of the policy to run matters more than anything else here. ``policy.forward`` of SAC runs the actor and
nothing else: pruned through it, both critics stay whole, and half of the *policy's* parameters can't leave. So either
hand over the part that is to shrink (4), or a run that reaches every part (5).

The seeds of the search, of the calibration and of the reported episodes are different ones. The dense actor of seed 0
returns -146.5 on average and -322.8 in its worst episode. With 90 % of its parameters gone it is at -559.2 and -866.5
without the repair, and at -146.1 and -315.4 with it; the smallest has 172 of 17,282 parameters, and -146.4 and -320.5.
"""

from __future__ import annotations

import argparse
import copy
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import torch
from gymnasium.wrappers import RescaleAction
from rich.console import Console
from rich.table import Table
from stable_baselines3 import SAC
from torch import Tensor, nn

import secateur
from secateur.latency import Latency, measure_latency
from secateur.metrics import Estimate, Repeats

SEARCH_SEEDS = range(1000, 1008)
"""Starts on which a search compares candidates."""

CALIBRATION_SEEDS = range(2000, 2010)
"""Starts of the episodes that the repair learns from."""

BATCH = 1024
"""Observations per call in the second latency column."""

SMALLEST = "the smallest"
"""What the last row is called."""


def make_environment(task: str) -> gymnasium.Env[Any, Any]:
    """The task with actions in [-1, 1]: what SAC's actor puts out, and ``controller.predict`` would scale back."""
    return RescaleAction(gymnasium.make(task), np.float32(-1), np.float32(1))


def train(task: str, *, seed: int, steps: int, width: int) -> SAC:
    """A controller: SAC with two hidden layers, its learning rate falling to zero."""
    controller = SAC(
        "MlpPolicy",
        gymnasium.make(task),
        seed=seed,
        learning_rate=lambda remaining: 3e-3 * remaining,
        batch_size=128,
        gamma=0.95,
        tau=0.02,
        learning_starts=min(200, steps // 2),
        policy_kwargs={"net_arch": [width, width]},
        device="cpu",
    )
    return controller.learn(steps)


def act(actor: nn.Module, observation: Any, *, deterministic: bool = True) -> Any:
    """One observation in, one action out, both numpy arrays; not deterministic: the actor's own exploration."""
    with torch.no_grad():
        return actor(torch.as_tensor(observation, dtype=torch.float32)[None], deterministic)[0].numpy()


def visited_states(actor: nn.Module, task: str, seeds: Sequence[int] = CALIBRATION_SEEDS) -> Tensor:
    """Observations of one episode per seed, shape (steps, observation).

    Every second episode explores, so that the data also holds states from which the controller has to recover: those
    that a slightly different, smaller controller will meet.
    """
    environment, visited = make_environment(task), []
    for episode, seed in enumerate(seeds):
        torch.manual_seed(seed)  # of the exploration
        observation, done = environment.reset(seed=seed)[0], False
        while not done:
            visited.append(observation)
            action = act(actor, observation, deterministic=episode % 2 == 0)
            observation, _, terminated, truncated, _ = environment.step(action)
            done = terminated or truncated
    return torch.as_tensor(np.array(visited), dtype=torch.float32)


@dataclass(frozen=True)
class EpisodeReturn:
    """The sum of an episode's rewards, as a function of the actor and a seed that fixes the start.

    Attributes:
        task: gymnasium's name of the task.
    """

    task: str

    def __call__(self, actor: nn.Module, seed: int) -> float:
        """Drive one episode."""
        environment, total = make_environment(self.task), 0.0
        observation, done = environment.reset(seed=seed)[0], False
        while not done:
            observation, reward, terminated, truncated, _ = environment.step(act(actor, observation))
            total += float(reward)
            done = terminated or truncated
        return total


def prune_actor(
    actor: nn.Module,
    states: Tensor,
    target: float | secateur.Smallest,
    *,
    repair: bool = True,
    objective: Repeats | None = None,
    constraints: Sequence[secateur.Constraint] = (),
    evaluations: int = 12,
) -> secateur.PruningResult:
    """The actor alone, for deployment; with an objective or constraints, its widths are searched by them.

    ``(states, True)`` are the arguments of ``actor(observations, deterministic)``: without the True it would sample.
    """
    searched = objective is not None or constraints
    return secateur.prune(
        actor,
        (states[:1], True),
        target=target,
        calibration=[(states, True)] if repair else None,
        strategy=secateur.Sensitivity(evaluations=evaluations) if searched else secateur.Uniform(),
        objective=objective,
        constraints=constraints,
    )


def smallest_actor(actor: nn.Module, states: Tensor, task: str, evaluations: int) -> secateur.PruningResult:
    """The smallest actor that loses next to nothing: at most 2 % of the mean return and 5 % of the worst episode's.

    The worst episode is bounded, too: a controller that is too small fails in some episodes, not a little in all.
    """
    mean = Repeats(EpisodeReturn(task), SEARCH_SEEDS)
    worst = Repeats(EpisodeReturn(task), SEARCH_SEEDS, aggregate="lowest")
    bounds = [(mean, 0.02, "mean return"), (worst, 0.05, "worst return")]
    constraints = []
    for metric, loss, name in bounds:
        dense = metric(actor).value
        constraints.append(secateur.Constraint(metric, at_least=dense - loss * abs(dense), name=name))
    target = secateur.Smallest(resolution=0.005, largest=0.995)
    return prune_actor(actor, states, target, constraints=constraints, evaluations=evaluations)


def prune_for_training(controller: SAC, states: Tensor, targets: Mapping[str, float]) -> secateur.PruningResult:
    """Shrink actor and critic in place, each to its own target, so that ``controller.learn`` can go on.

    Actor and critic never call each other, and nobody needs a module that holds both: a ``ModuleDict`` has no forward
    at all. Its children are the components, and ``both`` is the run that reaches them. It takes whatever it runs from
    its argument: a run that called ``controller.actor`` would exercise the dense one beside the smaller.
    """
    with torch.no_grad():
        actions = controller.actor(states, True)

    def both(parts: Any, rows: int = len(states)) -> tuple[Any, ...]:
        return (parts["actor"](states[:rows], True), *parts["critic"](states[:rows], actions[:rows]))

    parts = nn.ModuleDict({"actor": controller.actor, "critic": controller.critic})
    one = partial(both, rows=1)  # what multiply-adds are counted of
    result = secateur.prune(parts, run=one, target=secateur.Sparsity(components=targets), calibration=both)
    small: Any = result.model
    small["target"] = copy.deepcopy(small["critic"])  # the target network must keep the same channels
    for name, part in (("actor", small["actor"]), ("critic", small["critic"]), ("critic_target", small["target"])):
        part.optimizer = torch.optim.Adam(part.parameters())  # stable-baselines3 sets the learning rate
        setattr(controller.policy, name, part)
        setattr(controller, name, part)
    return result


@dataclass(frozen=True)
class Row:
    """One controller in the table.

    Attributes:
        name: what was done to it.
        parameters: of the actor.
        macs: multiply-adds of one action.
        mean: return over the reported episodes, with its 95 % interval.
        worst: the lowest return among them.
        single: latency of one action, in seconds.
        batch: latency of ``BATCH`` actions at once.
    """

    name: str
    parameters: int
    macs: int
    mean: Estimate
    worst: float
    single: Latency
    batch: Latency


def compare(
    results: Mapping[str, secateur.PruningResult], dense: nn.Module, states: Tensor, task: str, episodes: int
) -> list[Row]:
    """Measure the dense actor and every result, all on the same episodes and interleaved on the same clock."""
    before = next(iter(results.values())).before
    sizes = {"dense": (before.parameters, before.macs)}
    sizes |= {name: (result.after.parameters, result.after.macs) for name, result in results.items()}
    actors = {"dense": dense} | {name: result.model for name, result in results.items()}
    many = states[torch.arange(BATCH) % len(states)]
    single, batch = (
        measure_latency({name: partial(actor, rows, True) for name, actor in actors.items()}, repeats=100)
        for rows in (many[:1], many)
    )
    mean = Repeats(EpisodeReturn(task), episodes)
    worst = Repeats(EpisodeReturn(task), episodes, aggregate="lowest")
    return [
        Row(name, *sizes[name], mean(actor), worst(actor).value, single[name], batch[name])
        for name, actor in actors.items()
    ]


def table(rows: Sequence[Row], task: str, episodes: int) -> Table:
    """The comparison as a table for the terminal."""
    caption = f"µs: one action; batch: {BATCH:,} at once, on one thread"
    shown = Table(title=f"{task}, {episodes} episodes, the same starts for all", caption=caption, box=None)
    shown.add_column("actor")
    for column in ("parameters", "MACs", "return, 95 %", "worst", "µs", "µs, batch"):
        shown.add_column(column, justify="right")
    for row in rows:
        interval = f"{row.mean.value:.1f} ± {row.mean.high - row.mean.value:.1f}"
        times = [f"{1e6 * latency.median:.0f}" for latency in (row.single, row.batch)]
        shown.add_row(row.name, f"{row.parameters:,}", f"{row.macs:,}", interval, f"{row.worst:.1f}", *times)
    return shown


def options(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--task", default="Pendulum-v1", help="a gymnasium task with continuous actions")
    parser.add_argument("--policy", type=Path, help="a controller that SAC.save wrote, instead of training one")
    parser.add_argument("--sparsity", type=float, nargs="+", default=[0.5, 0.75, 0.9], help="fractions to remove")
    parser.add_argument("--episodes", type=int, default=20, help="episodes that are reported")
    parser.add_argument("--evaluations", type=int, default=12, help="candidates per search, at least 8")
    parser.add_argument("--steps", type=int, default=4000, help="environment steps of training")
    parser.add_argument("--more", type=int, default=1000, help="steps to go on training the pruned policy")
    parser.add_argument("--width", type=int, default=128, help="of the hidden layers")
    parser.add_argument("--seed", type=int, default=0, help="of the training")
    parser.add_argument("--save", type=Path, help="folder for the smallest actor; secateur.load reads it back")
    parser.add_argument("--json", type=Path, help="file for the table as data")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> None:
    """Train, prune, compare."""
    chosen, console = options(arguments), Console()
    torch.set_num_threads(1)
    task: str = chosen.task
    if chosen.policy is None:
        started = time.perf_counter()
        controller = train(task, seed=chosen.seed, steps=chosen.steps, width=chosen.width)
        console.print(f"{chosen.steps:,} steps of SAC on {task} in {time.perf_counter() - started:.0f} s")
    else:
        controller = SAC.load(chosen.policy, env=gymnasium.make(task), device="cpu")
    actor = controller.actor
    states = visited_states(actor, task)
    objective = Repeats(EpisodeReturn(task), SEARCH_SEEDS)
    results = {}
    for sparsity in chosen.sparsity:
        name = f"{100 * sparsity:g} %"
        results[f"{name}, unrepaired"] = prune_actor(actor, states, sparsity, repair=False)
        results[f"{name}, refitted"] = prune_actor(actor, states, sparsity)
        results[f"{name}, searched"] = prune_actor(
            actor, states, sparsity, objective=objective, evaluations=chosen.evaluations
        )
    results[SMALLEST] = smallest_actor(actor, states, task, chosen.evaluations)
    rows = compare(results, actor, states, task, chosen.episodes)
    console.print(table(rows, task, chosen.episodes))
    if chosen.save is not None:
        results[SMALLEST].save(chosen.save)
    if chosen.json is not None:
        chosen.json.write_text(json.dumps([asdict(row) for row in rows], indent=2) + "\n", encoding="utf-8")
    whole = prune_for_training(controller, states, {"actor": 0.9, "critic": 0.5})
    console.print("\nActor and critic as components, for training on:", str(whole), sep="\n")
    reported = Repeats(EpisodeReturn(task), chosen.episodes)
    before = reported(controller.actor).value
    controller.learn(chosen.more, reset_num_timesteps=False)
    console.print(f"return {before:.1f}; after {chosen.more} more steps of SAC {reported(controller.actor).value:.1f}")


if __name__ == "__main__":
    main()
