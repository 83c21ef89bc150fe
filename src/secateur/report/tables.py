"""Tables of text: for the terminal, and as Markdown for a page."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rich.table import Table as RichTable

from secateur.graph.describe import plain_table


@dataclass(frozen=True)
class Table:
    """A table of text.

    Attributes:
        title: what it shows.
        columns: their names; the first is that of the rows.
        rows: cells, shape (rows, columns).
        note: how it is to be read; stands below it. May be empty.
    """

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    note: str = ""

    def as_rich(self) -> RichTable:
        """For the terminal."""
        table = plain_table(self.title, *self.columns, numeric=self.columns[1:])
        for row in self.rows:
            table.add_row(*row)
        if self.note:
            table.caption, table.caption_justify = self.note, "left"
        return table

    def as_markdown(self) -> str:
        """For a page."""
        rule = ["---", *("---:" for _ in self.columns[1:])]
        lines = [f"| {' | '.join(cells)} |" for cells in (self.columns, rule, *self.rows)]
        return "\n".join([f"### {self.title}", "", *lines, "", *([self.note, ""] if self.note else [])])
