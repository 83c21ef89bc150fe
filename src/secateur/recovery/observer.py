"""What a run of a model makes: the outputs of its components, call by call, and what the run returns."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from types import TracebackType
from typing import Any

from torch import Tensor, nn

from secateur.calibration.runs import Run
from secateur.graph.components import ComponentMap
from secateur.graph.entry_point import tensors_in

RETURNED = "return value"
"""Stands for a module's path in the names of what a run returns."""

Look = Callable[[Tensor], Any]
"""What is kept of a tensor: it is called at once, before the code that follows may write into the tensor."""


class Observer:
    """Watches the modules of a model's components, inside a ``with`` block only.

    Of a component's modules, only the outermost that a run calls counts: the component itself where it is called, else
    those of its children that are, as for a list of networks, or an object whose other methods are used.

    Args:
        model: what runs.
        components: the owner of every path; modules outside all components aren't watched.

    Attributes:
        reached: indices of the components of which some module was called, in any run so far.
    """

    def __init__(self, model: nn.Module, components: ComponentMap) -> None:
        self.model = model
        self.reached: set[int] = set()
        self._owners = _owners(model, components)
        self._inside = [0] * len(components.names)
        self._made: list[tuple[str, Any]] = []
        self._look: Look = Tensor.clone
        self._hooks = ExitStack()

    def __enter__(self) -> Observer:
        for path, component in self._owners.items():
            module = self.model.get_submodule(path)
            enter, leave = self._hooks_of(path, component)
            self._hooks.callback(module.register_forward_pre_hook(enter).remove)
            self._hooks.callback(module.register_forward_hook(leave, always_call=True).remove)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._hooks.close()

    def observe(self, run: Run, look: Look) -> list[tuple[str, Any]]:
        """Run the model, and look at every floating-point tensor that its components and the run itself make.

        Returns:
            The names of the tensors with what was made of them, in order. A name is a module's path, or
            ``RETURNED``; with a number where there are several tensors: ``lstm[1]``.
        """
        self._made, self._look = [], look
        self._inside = [0] * len(self._inside)
        self._take(RETURNED, run(self.model))
        return self._made

    def _hooks_of(self, path: str, component: int) -> tuple[Any, Any]:
        def enter(_module: nn.Module, _args: Any) -> None:
            self.reached.add(component)
            self._inside[component] += 1

        def leave(_module: nn.Module, _args: Any, output: Any) -> None:
            self._inside[component] -= 1
            if self._inside[component] == 0:
                self._take(path, output)

        return enter, leave

    def _take(self, name: str, made: Any) -> None:
        tensors = list(tensors_in(made))
        names = [name] if len(tensors) == 1 else [f"{name}[{position}]" for position in range(len(tensors))]
        for full_name, tensor in zip(names, tensors, strict=True):
            if tensor.is_floating_point() and tensor.numel():
                self._made.append((full_name, self._look(tensor)))


def _owners(model: nn.Module, components: ComponentMap) -> dict[str, int]:
    """Path to component, of all modules below the model; what only the model itself owns is left out."""
    root = components.owner.get("")
    found = {path: components.of(path) for path, _ in model.named_modules() if path}
    return {path: owner for path, owner in found.items() if owner is not None and owner != root}
