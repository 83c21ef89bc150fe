"""The options of ``secateur prune``, one type each, in the order of its help."""

from __future__ import annotations

from enum import Enum
from functools import partial
from pathlib import Path
from typing import Annotated, TypeAlias

import typer

from secateur.cli.choices import CriterionName, StrategyName
from secateur.cli.options import GRANULARITY_HELP, Blocks

_what = partial(typer.Option, rich_help_panel="What to remove")
_how = partial(typer.Option, rich_help_panel="How to find it")
_where = partial(typer.Option, rich_help_panel="Where it goes")


class Cost(str, Enum):
    """What a target is of."""

    PARAMS = "params"
    MACS = "macs"
    LATENCY = "latency"


Target: TypeAlias = Annotated[
    str | None,
    _what(metavar="FRACTION", help="To remove, in (0, 1); 0.5 if not given. Or: smallest."),
]
Of: TypeAlias = Annotated[Cost, _what(help="Parameters, multiply-adds or measured time.")]
Tolerance: TypeAlias = Annotated[
    float | None,
    _what(help="How far from the target the result may be; 0.01 if not given."),
]
Component: TypeAlias = Annotated[
    list[str] | None,
    _what(
        metavar="NAME=MODULE,...|FRACTION",
        help="A component and its modules; or, with a decimal point, its own target. May be repeated.",
    ),
]
Interface: TypeAlias = Annotated[
    list[str] | None,
    _what(metavar="GROUP=FRACTION", help="Of a channel group's channels to remove."),
]
Cap: TypeAlias = Annotated[
    list[str] | None,
    _what(metavar="NAME=FRACTION", help="The most a component or group may lose."),
]
Whole: TypeAlias = Annotated[
    list[str] | None,
    _what(metavar="NAME", help="A component or channel group that stays whole."),
]
Protect: TypeAlias = Annotated[
    list[str] | None,
    _what(metavar="NAME", help="A module or parameter whose outputs stay."),
]
Granularity: TypeAlias = Annotated[Blocks, _what(help=GRANULARITY_HELP)]
RoundTo: TypeAlias = Annotated[int, _what(min=1, help="A group keeps a multiple of this.")]
MinimumWidth: TypeAlias = Annotated[int, _what(min=1, help="Channels that every group keeps.")]
Strategy: TypeAlias = Annotated[
    StrategyName,
    _how(help="How the coefficients are found; gradient-weights trains the weights along, once over --batches."),
]
Maximize: TypeAlias = Annotated[str | None, _how(metavar="METRIC", help="To keep high.")]
Minimize: TypeAlias = Annotated[str | None, _how(metavar="METRIC", help="To keep low.")]
Constraint: TypeAlias = Annotated[
    list[str] | None,
    _how(metavar="'METRIC>=NUMBER'", help="A bound, >= or <=, that the result keeps. May be repeated."),
]
Calibration: TypeAlias = Annotated[
    str | None,
    _how(metavar="DATA", help="Inputs to refit on; channels are ranked by it too."),
]
Criterion: TypeAlias = Annotated[
    CriterionName | None,
    _how(help="Ranks channels; reconstruction with calibration data, else magnitude."),
]
Loss: TypeAlias = Annotated[
    str | None,
    _how(metavar="FUNCTION", help="Takes the model and a batch; for gradients."),
]
Batches: TypeAlias = Annotated[str | None, _how(metavar="DATA", help="What --loss is given.")]
Evaluations: TypeAlias = Annotated[int | None, _how(min=1, help="Candidates to measure, at most.")]
Batch: TypeAlias = Annotated[
    int | None,
    _how(min=1, help="Candidates that black-box proposes at a time; as many as --jobs."),
]
RefitSteps: TypeAlias = Annotated[
    int,
    _how(min=0, help="Of a candidate's refit; 0 is faster, and ranks nearly alike."),
]
Seed: TypeAlias = Annotated[int, _how(min=0, max=2**32 - 1, help="Of whatever is drawn.")]
Jobs: TypeAlias = Annotated[int, _how(min=1, help="Candidates measured at once, in processes.")]
Out: TypeAlias = Annotated[Path, _where(metavar="DIR", file_okay=False, help="Gets the smaller model.")]
Storage: TypeAlias = Annotated[
    str | None,
    _where(metavar="PATH|URL", help="Keeps what was measured; search.db in --out if not given."),
]
Study: TypeAlias = Annotated[
    str | None,
    _where(metavar="NAME", help="Of the search in the storage; made of the options."),
]
