"""What is always the same of an ATen operator, and which tensors it is given."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import nn
from torch._C import DispatchKey
from torch._ops import HigherOrderOperator

# In-place operators that change the shape they are called on.
_RESHAPING = frozenset(f"aten.{name}_" for name in ("squeeze", "unsqueeze", "transpose", "t", "swapaxes", "as_strided"))
_PLAIN = (torch.Tensor, nn.Parameter, nn.Buffer)


@dataclass(frozen=True, slots=True, eq=False)
class Operator:
    """What is always the same of an operator: looking it up anew at every call takes longer than the call.

    Attributes:
        name: without its overload.
        arguments: names of all arguments.
        defaults: values of those that have one.
        written: names of those that it writes to without changing their shape.
        reshapes: whether it changes the shape of the tensor that it is called on.
        is_prim: whether it is one of the interpreter's own, not an operator on tensors.
        is_composite: whether it is composed of others.
    """

    name: str
    arguments: tuple[str, ...]
    defaults: dict[str, Any]
    written: tuple[str, ...]
    reshapes: bool
    is_prim: bool
    is_composite: bool

    def named(self, args: Any, kwargs: Any) -> dict[str, Any]:
        """The arguments of a call by name, defaults filled in."""
        arguments = self.defaults.copy()
        arguments.update(zip(self.arguments, args, strict=False))
        arguments.update(kwargs)
        return arguments


@cache
def operator_of(func: Any) -> Operator:
    """What is known of an overload, or of a higher-order operator, which is composed of those that it calls."""
    if isinstance(func, HigherOrderOperator):
        return Operator(func.name(), (), {}, (), reshapes=False, is_prim=False, is_composite=True)
    name, arguments = str(func.overloadpacket), func._schema.arguments
    written = [a.name for a in arguments if a.alias_info is not None and a.alias_info.is_write]
    is_prim = func.namespace == "prim"
    return Operator(
        name=name,
        arguments=tuple(a.name for a in arguments),
        defaults={a.name: a.default_value for a in arguments if a.has_default_value()},
        written=() if name in _RESHAPING else tuple(written),
        reshapes=name in _RESHAPING,
        is_prim=is_prim,
        is_composite=not is_prim and _is_composite(func.name()),
    )


def _is_composite(name: str) -> bool:
    """Whether an overload is composed of others; what the dispatcher doesn't know (a nested tensor's sizes) isn't."""
    has_kernel_for = torch._C._dispatch_has_kernel_for_dispatch_key
    return torch._C._dispatch_has_kernel(name) and has_kernel_for(name, "CompositeImplicitAutograd")


def plain_code_of(func: HigherOrderOperator) -> Callable[..., Any] | None:
    """What runs a higher-order operator by calling ordinary ones, if torch has that."""
    kernel: Callable[..., Any] | None = func.py_kernels.get(DispatchKey.CompositeExplicitAutograd)
    return kernel


def flat_tensors(items: Iterable[Any]) -> list[torch.Tensor]:
    """The tensors among items, and in tuples and lists among them."""
    found: list[torch.Tensor] = []
    for item in items:
        if isinstance(item, torch.Tensor):
            found.append(item)
        elif isinstance(item, (tuple, list)) and item and type(item[0]) is not int:
            found.extend(flat_tensors(item))
    return found


def why_unfollowed(tensors: list[torch.Tensor]) -> str | None:
    """Why the indices of one of these tensors aren't followed, if there is one that isn't plain."""
    for tensor in tensors:
        if tensor.is_nested:
            return "a nested tensor, whose indices aren't followed; pad it while pruning"
        if type(tensor) not in _PLAIN and hasattr(type(tensor), "__tensor_flatten__"):
            return f"a tensor of class {type(tensor).__name__}, whose indices aren't followed; trace with plain tensors"
    return None


def is_plain(arguments: Iterable[Any]) -> bool:
    """Whether all tensors among the arguments of a call are torch's own, not of classes derived from them."""
    return all(type(item) in _PLAIN for item in arguments if isinstance(item, torch.Tensor))
