from __future__ import annotations

import json

from secateur.graph.cost import ComponentCost, Cost
from secateur.graph.describe import to_text
from secateur.latency import Latency
from secateur.report.comparison import Stage, comparison


def cost(encoder: int, decoder: int) -> Cost:
    parts = {"encoder": ComponentCost(encoder, 10 * encoder), "decoder": ComponentCost(decoder, 10 * decoder)}
    return Cost(encoder + decoder, 10 * (encoder + decoder), parts)


DENSE = Stage("dense", cost(1000, 3000), 22.5, {"total": Latency(2e-3, 1e-4, 30, 1)})
PRUNED = Stage("pruned", cost(500, 500), 9.75, {"total": Latency(1e-3, 5e-5, 30, 1)})


def rows(text: str) -> list[list[str]]:
    return [line.split() for line in text.splitlines()]


def test_every_component_and_the_total_with_its_change() -> None:
    lines = rows(to_text([comparison([DENSE, PRUNED], objective="PSNR, dB")]))
    assert ["PSNR,", "dB", "22.50", "9.75", "-12.75"] in lines
    assert ["parameters", "encoder", "1,000", "500", "-50.0", "%"] in lines
    assert ["decoder", "3,000", "500", "-83.3", "%"] in lines
    assert ["total", "4,000", "1,000", "-75.0", "%"] in lines
    assert ["MACs", "encoder", "10,000", "5,000", "-50.0", "%"] in lines


def test_latency_is_shown_with_spread_repeats_and_threads() -> None:
    text = to_text([comparison([DENSE, PRUNED], latency="latency, ms, 256 images")])
    assert "latency, ms, 256 images" in text
    assert "total 2.000 (0.100) 1.000 (0.050) -50.0 %" in " ".join(text.split())
    assert "quartiles of 30 measurements with 1 thread" in " ".join(text.split())


def test_without_objective_and_latency_there_are_no_such_rows() -> None:
    text = to_text([comparison([Stage("before", cost(10, 10)), Stage("after", cost(10, 5))])])
    assert "objective" not in text
    assert "latency" not in text
    assert "-25.0 %" in text


def test_a_component_without_macs_has_no_change() -> None:
    parts = {"scale": ComponentCost(4, 0)}
    text = to_text([comparison([Stage("before", Cost(4, 0, parts)), Stage("after", Cost(2, 0, parts))])])
    assert ["MACs", "scale", "0", "0"] in rows(text)


def test_a_stage_as_data_goes_through_json() -> None:
    data = json.loads(json.dumps(DENSE.as_data()))
    assert data["components"]["decoder"] == {"parameters": 3000, "macs": 30000}
    assert data["latency"]["total"] == {"median": 2e-3, "spread": 1e-4, "repeats": 30, "threads": 1}
    assert (data["parameters"], data["macs"], data["objective"]) == (4000, 40000, 22.5)


def test_a_small_objective_shows_its_digits() -> None:
    small = [Stage("before", cost(10, 10), -2.5e-4), Stage("after", cost(5, 5), -5e-5)]
    lines = rows(to_text([comparison(small)]))
    assert ["objective", "-0.0002500", "-0.0000500", "+0.0002000"] in lines
