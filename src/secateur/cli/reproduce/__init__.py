"""``secateur reproduce``: the papers' tables and figures."""

from __future__ import annotations

from typing import Any

import typer
from typer.core import TyperGroup

from secateur.cli.reproduce.autoencoder import mnist_autoencoder
from secateur.cli.reproduce.control import tdmpc


class _Experiments(TyperGroup):
    """A command that is named after an experiment; another name is an error that lists those there are."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        if args and not args[0].startswith("-") and args[0] not in self.commands:
            raise typer.BadParameter(f"there is no experiment {args[0]!r}; there are {', '.join(self.commands)}")
        return super().resolve_command(ctx, args)


app = typer.Typer(
    cls=_Experiments, help="Reproduce the papers' experiments, and go past them.", subcommand_metavar="EXPERIMENT ..."
)
app.command("mnist-autoencoder")(mnist_autoencoder)
app.command("tdmpc")(tdmpc)


@app.callback(invoke_without_command=True)
def _reproduce(context: typer.Context) -> None:
    """Reproduce the papers' experiments, and go past them."""
    if context.invoked_subcommand is None:
        raise typer.BadParameter("name an EXPERIMENT: mnist-autoencoder or tdmpc; --help says more")
