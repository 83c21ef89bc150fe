"""What counts as a number where a user sets one."""

from __future__ import annotations

import math
from numbers import Integral, Real
from typing import Any


def is_number(value: Any) -> bool:
    """Whether it is a finite real number; True and False are none."""
    is_real = type(value) is not bool and isinstance(value, Real)
    return is_real and bool(-math.inf < value < math.inf)


def is_positive(value: Any) -> bool:
    """Whether it is a finite real number above 0."""
    return is_number(value) and bool(value > 0)


def is_whole(value: Any, least: int) -> bool:
    """Whether it is an ``int`` that is no smaller than this; True and False are none."""
    return type(value) is int and value >= least


def is_seed(value: Any) -> bool:
    """Whether it is a whole number, of numpy's too, that torch's generators take."""
    is_integral = type(value) is not bool and isinstance(value, Integral)
    return is_integral and bool(-(2**63) <= value < 2**64)
