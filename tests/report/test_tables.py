from __future__ import annotations

from secateur.graph.describe import to_text
from secateur.report.tables import Table

TABLE = Table("Returns", ["method", "50%", "90%"], [["dense", "860", "860"], ["uniform", "850", "9"]], "Ten episodes.")


def test_markdown_has_a_rule_and_the_note_below() -> None:
    assert TABLE.as_markdown().splitlines() == [
        "### Returns",
        "",
        "| method | 50% | 90% |",
        "| --- | ---: | ---: |",
        "| dense | 860 | 860 |",
        "| uniform | 850 | 9 |",
        "",
        "Ten episodes.",
    ]


def test_without_a_note_nothing_follows_but_an_empty_line() -> None:
    assert Table("Empty", ["a"], []).as_markdown() == "### Empty\n\n| a |\n| --- |\n"


def test_the_terminal_shows_the_same_cells() -> None:
    lines = [line.split() for line in to_text([TABLE.as_rich()]).splitlines()]
    assert ["uniform", "850", "9"] in lines
    assert ["Ten", "episodes."] in lines
