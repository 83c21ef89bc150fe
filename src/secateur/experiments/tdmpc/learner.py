"""One gradient update after another: the model, its slowly following target, and their optimisers."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass

import torch
from torch import Tensor, nn

from secateur.errors import ControlError, StorageError
from secateur.experiments.tdmpc.config import TdMpcConfig
from secateur.experiments.tdmpc.losses import policy_loss, told_loss
from secateur.experiments.tdmpc.replay import Replay
from secateur.experiments.tdmpc.tensor_names import prefixed, subset
from secateur.experiments.tdmpc.told import Told

_POLICY = "pi"
"""The component that the policy loss trains; the model's loss trains all others."""

_ADAM = "step", "exp_avg", "exp_avg_sq"
"""What Adam remembers of every parameter."""


@dataclass(frozen=True, kw_only=True)
class UpdateLosses:
    """The losses of one update, or their mean over several.

    Attributes:
        total: the weighted sum that the model descends.
        consistency: between predicted latents and the target's encodings.
        reward: squared error of the predicted rewards.
        value: squared error of both value heads.
        policy: minus the value of the policy's actions.
    """

    total: float
    consistency: float
    reward: float
    value: float
    policy: float

    @classmethod
    def mean(cls, losses: Iterable[UpdateLosses]) -> UpdateLosses:
        """The mean of several updates' losses."""
        rows = torch.tensor([list(asdict(each).values()) for each in losses], dtype=torch.float64)
        return cls(**dict(zip(cls.__dataclass_fields__, rows.mean(0).tolist(), strict=True)))


class Learner:
    """The model in training (Hansen et al., arXiv 2203.04955, Algorithm 2).

    The weights it begins with come from ``config.seed`` alone; the global random numbers are left as they were.

    Args:
        config: sizes and rates.
        observations: numbers in an observation.
        actions: numbers in an action.

    Attributes:
        model: what is trained.
        target: follows the model's weights by an exponential moving average.
        updates: how many were made.
    """

    def __init__(self, config: TdMpcConfig, observations: int, actions: int) -> None:
        self._config = config
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(config.seed)
            self.model = Told.of(config, observations, actions)
        self.target = copy.deepcopy(self.model).requires_grad_(False)
        self.updates = 0
        named = dict(self.model.named_parameters())
        self._policy = [tensor for name, tensor in named.items() if name.partition(".")[0] == _POLICY]
        self._rest = [tensor for name, tensor in named.items() if name.partition(".")[0] != _POLICY]
        self._followers: list[Tensor] = list(self.target.parameters())
        self._leaders: list[Tensor] = list(self.model.parameters())
        self._optimizers = {
            "rest": torch.optim.Adam(self._rest, lr=config.learning_rate, fused=True),
            "policy": torch.optim.Adam(self._policy, lr=config.learning_rate, fused=True),
        }

    def update(self, replay: Replay, generator: torch.Generator) -> UpdateLosses:
        """Sample a batch, take one step with the model and one with the policy, and let the target follow.

        Args:
            replay: sampled from; its priorities are updated.
            generator: draws the batch and the policy's noise.

        Raises:
            ControlError: a loss is no finite number.
        """
        config = self._config
        batch = replay.sample(config.batch, generator)
        losses = told_loss(self.model, self.target, batch, config, generator)
        self._descend("rest", self._rest, losses.total)
        replay.update(batch.indices, losses.priorities)
        policy = policy_loss(self.model, losses.latents, config, generator)
        if not math.isfinite(policy.detach()):
            raise ControlError("the policy's loss is not finite: the training has diverged")
        self._descend("policy", self._policy, policy)
        self.updates += 1
        if self.updates % config.target_every == 0:
            with torch.no_grad():
                torch._foreach_lerp_(self._followers, self._leaders, config.target_rate)
        return UpdateLosses(
            total=float(losses.total.detach()),
            consistency=float(losses.consistency),
            reward=float(losses.reward),
            value=float(losses.value),
            policy=float(policy.detach()),
        )

    def _descend(self, name: str, parameters: list[nn.Parameter], loss: Tensor) -> None:
        """One step of these parameters only: no others' gradients are worked out."""
        for parameter, gradient in zip(parameters, torch.autograd.grad(loss, parameters), strict=True):
            parameter.grad = gradient
        nn.utils.clip_grad_norm_(parameters, self._config.gradient_clip)
        self._optimizers[name].step()

    def tensors(self) -> dict[str, Tensor]:
        """All that the next update depends on, beside the replay: weights, optimisers' state and the count."""
        found = prefixed("model.", self.model.state_dict()) | prefixed("target.", self.target.state_dict())
        for name, optimizer in self._optimizers.items():
            for index, state in optimizer.state_dict()["state"].items():
                found |= prefixed(f"optimizer.{name}.{index}.", state)
        return {**found, "updates": torch.tensor(self.updates)}

    def load_tensors(self, tensors: Mapping[str, Tensor]) -> None:
        """Go on where :meth:`tensors` were taken.

        Raises:
            StorageError: a tensor is missing, or one of the weights is unknown or has another shape.
        """
        try:
            self.model.load_state_dict(subset("model.", tensors))
            self.target.load_state_dict(subset("target.", tensors))
            self.updates = int(tensors["updates"])
            for name, optimizer in self._optimizers.items():
                count = len(optimizer.param_groups[0]["params"]) if self.updates else 0
                state = {
                    index: {entry: tensors[f"optimizer.{name}.{index}.{entry}"] for entry in _ADAM}
                    for index in range(count)
                }
                optimizer.load_state_dict({**optimizer.state_dict(), "state": state})
        except KeyError as error:
            raise StorageError(f"the state of a training can't be taken up: {error} is missing") from error
        except RuntimeError as error:
            raise StorageError(f"the state of a training can't be taken up: {error}") from error
