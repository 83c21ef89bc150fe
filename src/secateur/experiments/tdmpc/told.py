"""TOLD, the task-oriented latent dynamics model of TD-MPC: five parts that meet in a latent vector."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from secateur.experiments.tdmpc.config import TdMpcConfig

_LARGEST_NOISE = 0.3
_LARGEST_ACTION = 1 - 1e-6


class Told(nn.Module):
    """Encoder, latent dynamics, reward, policy ``pi`` and two Q heads (arXiv 2203.04955).

    There is no forward pass: a controller calls the methods. Nothing but the layers holds a size, so that a pruned
    model works as it is. All tensors may have any leading dimensions, here written ``...``.

    Args:
        observations: length of an observation.
        actions: length of an action.
        encoder_width: width of the encoder's hidden layer.
        width: width of the hidden layers of the other parts.
        latent: length of the latent vector.
    """

    def __init__(self, observations: int, actions: int, *, encoder_width: int, width: int, latent: int) -> None:
        super().__init__()
        both = latent + actions
        self.encoder = nn.Sequential(nn.Linear(observations, encoder_width), nn.ELU(), nn.Linear(encoder_width, latent))
        self.dynamics = _perceptron(both, width, latent)
        self.reward = _perceptron(both, width, 1)
        self.pi = _perceptron(latent, width, actions)
        self.q1 = _q_head(both, width)
        self.q2 = _q_head(both, width)
        self._initialise()

    @classmethod
    def of(cls, config: TdMpcConfig, observations: int, actions: int) -> Told:
        """The untrained model of a configuration, for observations and actions of these lengths."""
        return cls(observations, actions, encoder_width=config.encoder_width, width=config.width, latent=config.latent)

    def _initialise(self) -> None:
        """Orthogonal weights and zero biases; rewards and values begin at zero."""
        for layer in self.modules():
            if isinstance(layer, nn.Linear):
                nn.init.orthogonal_(layer.weight)
                nn.init.zeros_(layer.bias)
        for part in (self.reward, self.q1, self.q2):
            *_, last_weight, _ = part.parameters()
            nn.init.zeros_(last_weight)

    def encode(self, observation: Tensor) -> Tensor:
        """The latent vectors (..., latent) of observations (..., observations)."""
        latent: Tensor = self.encoder(observation)
        return latent

    def next(self, latent: Tensor, action: Tensor) -> tuple[Tensor, Tensor]:
        """The latent vectors (..., latent) that follow, and the rewards (...,), of latents and actions."""
        both = torch.cat((latent, action), -1)
        return self.dynamics(both), self.reward(both).squeeze(-1)

    def act(self, latent: Tensor) -> Tensor:
        """The policy's actions (..., actions) in (-1, 1), without noise."""
        return torch.tanh(self.pi(latent))

    def q(self, latent: Tensor, action: Tensor) -> tuple[Tensor, Tensor]:
        """Both estimates (...,) of the discounted return of an action followed by the policy's."""
        both = torch.cat((latent, action), -1)
        return self.q1(both).squeeze(-1), self.q2(both).squeeze(-1)


def explore(action: Tensor, std: float, generator: torch.Generator) -> Tensor:
    """Actions with normal noise, cut off at 0.3, the sum cut off just inside [-1, 1].

    The paper's code does the same. The gradient passes through as if nothing were cut off, so that a saturated
    policy still learns.

    Args:
        action: of shape (..., actions), in [-1, 1].
        std: standard deviation of the noise before it is cut off.
        generator: of the noise.
    """
    noise = torch.randn(action.shape, generator=generator, dtype=action.dtype, device=action.device)
    noisy = action.detach() + (std * noise).clamp_(-_LARGEST_NOISE, _LARGEST_NOISE)
    return action + (noisy.clamp_(-_LARGEST_ACTION, _LARGEST_ACTION) - action.detach())


def _perceptron(inputs: int, width: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(inputs, width), nn.ELU(), nn.Linear(width, width), nn.ELU(), nn.Linear(width, outputs)
    )


def _q_head(inputs: int, width: int) -> nn.Sequential:
    first = (nn.Linear(inputs, width), nn.LayerNorm(width), nn.Tanh())
    return nn.Sequential(*first, nn.Linear(width, width), nn.ELU(), nn.Linear(width, 1))
