"""``secateur inspect``: a model's components, channel groups, and what can't be pruned."""

from __future__ import annotations

from typing import Annotated

import typer

import secateur
from secateur.cli.names import model_and_inputs
from secateur.cli.options import GRANULARITY_HELP, Blocks, Factory, InputShape, Json, Run, write_json
from secateur.graph.describe import as_data, describe


def inspect(
    factory: Factory,
    input_shape: InputShape = None,
    run: Run = None,
    component: Annotated[
        list[str] | None, typer.Option(metavar="NAME=MODULE,...", help="A component and its modules; may be repeated.")
    ] = None,
    protect: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="A module or parameter whose outputs stay; may be repeated."),
    ] = None,
    granularity: Annotated[Blocks, typer.Option(help=GRANULARITY_HELP)] = Blocks.AUTO,
    json_path: Json = None,
) -> None:
    """Print a model's components, channel groups, and what can't be pruned.

    MODULE:FACTORY names a function without arguments, or a class, in a module
    that Python can import from here. It returns the model; or the model and
    its example inputs (a tensor, tuple or mapping); or the model and a
    function that takes it and exercises it.

    Examples:
      secateur inspect my_package.models:make_autoencoder --input-shape 1,784
      secateur inspect agent:make --run agent:rollout --component latent=encoder,dynamics
      secateur inspect my_package.models:model_and_inputs --json graph.json
    """
    model, inputs, entry = model_and_inputs(factory, input_shape or [], run)
    parts = dict(_component(text) for text in component) if component else None
    graph = secateur.trace(
        model, inputs, run=entry, components=parts, protect=protect or (), granularity=granularity.value
    )
    print(describe(graph))
    write_json(json_path, as_data(graph))


def _component(text: str) -> tuple[str, list[str]]:
    name, _, modules = text.partition("=")
    if not name or not modules:
        raise typer.BadParameter(f"--component {text!r} is not of the form name=module,module")
    return name, modules.split(",")
