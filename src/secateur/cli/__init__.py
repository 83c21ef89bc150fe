"""The command line. Exit status: 0, 1 (a bound was not met) or 2 (bad input, one clear line on stderr)."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Sequence
from typing import Annotated, Any

import typer

import secateur
from secateur.cli.demo import demo
from secateur.cli.inspect import inspect
from secateur.cli.prune import prune
from secateur.cli.reproduce import app as reproduce
from secateur.cli.search import app as search
from secateur.cli.status import BAD_INPUT, fail, one_line, status_of
from secateur.cli.train import app as train
from secateur.errors import SecateurError

app = typer.Typer(
    name="secateur",
    help="Make multi-component PyTorch networks smaller: prune, prove, repair.",
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)
for command in (demo, inspect, prune):
    app.command()(command)
app.add_typer(reproduce, name="reproduce")
app.add_typer(search, name="search")
app.add_typer(train, name="train")


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and end the process with its exit status."""
    with warnings.catch_warnings():
        warnings.showwarning = _show_warning
        sys.exit(_status(arguments))


def _status(arguments: Sequence[str] | None) -> int:
    try:
        return app(arguments, standalone_mode=False) or 0
    except typer.TyperException as error:
        return fail(error.format_message(), BAD_INPUT)
    except SecateurError as error:
        return fail(str(error), status_of(error))


def _show_warning(message: Warning | str, *_details: Any, **_more: Any) -> None:
    print(f"secateur: warning: {one_line(str(message))}", file=sys.stderr)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"secateur {secateur.__version__}")
        raise typer.Exit


@app.callback(invoke_without_command=True)
def _options(
    context: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and stop.")
    ] = False,
) -> None:
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())
