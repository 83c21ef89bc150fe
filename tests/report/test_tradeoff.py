from __future__ import annotations

import sys
from typing import Any

import numpy as np
import pytest
from matplotlib.figure import Figure

from secateur.errors import SecateurError
from secateur.report.tradeoff import TradeOff, TradeOffPoint
from tests.report.test_figures import pixels

FOUND = TradeOff(
    "PSNR",
    "macs",
    22.5312,
    (22.4, 22.6),
    (
        TradeOffPoint("uniform", 0.5, 0.4987, 21.25, None, seconds=1.25, evaluations=1),
        TradeOffPoint("uniform", 0.7, 0.7041, 18.5, None, seconds=1.0, evaluations=1),
        TradeOffPoint("sensitivity", 0.7, 0.6996, 21.125, (21.0, 21.25), seconds=61.0, evaluations=1076),
        TradeOffPoint("sensitivity", 0.99, failure="can't be met", seconds=0.1),
    ),
)

TABLE = """\
PSNR against the fraction of multiply-adds removed; dense: 22.53
strategy      asked      removed            PSNR   to dense   evaluations   seconds
-----------------------------------------------------------------------------------
uniform       50.0%        49.9%           21.25      -1.28             1       1.2
uniform       70.0%        70.4%           18.50      -4.03             1       1.0

sensitivity   70.0%        70.0%   21.12 +- 0.12      -1.41         1,076      61.0
sensitivity   99.0%   none found                                        0       0.1
sensitivity at 99.0%: can't be met"""


def test_the_table() -> None:
    assert str(FOUND) == TABLE


def test_one_line_for_each_strategy_and_one_for_the_dense_model(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[Figure] = []
    save = Figure.savefig

    def keep(figure: Figure, *args: Any, **kwargs: Any) -> None:
        drawn.append(figure)
        save(figure, *args, **kwargs)

    monkeypatch.setattr(Figure, "savefig", keep)
    picture = pixels(FOUND.figure(title="Trade-off"))
    (axes,) = drawn[0].axes
    lines = {line.get_label(): (np.array(line.get_xdata()), np.array(line.get_ydata())) for line in axes.lines}
    assert list(lines) == ["uniform", "sensitivity", "dense"]
    assert np.array_equal(lines["uniform"], [[0.4987, 0.7041], [21.25, 18.5]])
    assert np.array_equal(lines["sensitivity"], [[0.6996], [21.125]])
    assert np.array_equal(lines["dense"][1], [22.5312, 22.5312])
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("multiply-adds removed", "PSNR")
    assert axes.get_title(loc="left") == "Trade-off"
    (band,) = axes.collections
    limits = band.get_datalim(axes.transData)
    assert (limits.y0, limits.y1) == pytest.approx((21.0, 21.25))
    assert picture.shape[0] > 400


def test_the_same_points_give_the_same_bytes() -> None:
    assert FOUND.figure() == FOUND.figure()


def test_without_matplotlib_the_error_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    class NoMatplotlib:
        def find_spec(self, name: str, path: Any = None, target: Any = None) -> None:
            if name.partition(".")[0] == "matplotlib":
                raise ModuleNotFoundError(f"No module named {name!r}", name=name)

    for name in [n for n in sys.modules if n.partition(".")[0] == "matplotlib" or n == "secateur.report.figures"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(sys, "meta_path", [NoMatplotlib(), *sys.meta_path])
    with pytest.raises(SecateurError, match=r"this needs matplotlib: pip install 'secateur\[demo\]'"):
        FOUND.figure()
