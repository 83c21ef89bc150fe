from __future__ import annotations

import dataclasses
import json
from typing import Any

import pytest

from secateur.errors import ControlError
from secateur.experiments.tdmpc.config import TdMpcConfig


def test_the_paper_preset_is_the_default_with_the_tasks_action_repeat() -> None:
    assert TdMpcConfig.paper("cartpole-swingup") == TdMpcConfig()
    walker = TdMpcConfig.paper("walker-walk", seed=3)
    assert (walker.task, walker.action_repeat, walker.steps, walker.seed) == ("walker-walk", 2, 250_000, 3)
    changed = {"task": "walker-walk", "action_repeat": 2, "steps": 250_000, "seed": 3}
    assert walker == dataclasses.replace(TdMpcConfig(), **changed)  # type: ignore[arg-type]


def test_what_the_cpu_presets_change() -> None:
    def changes(config: TdMpcConfig, base: TdMpcConfig) -> dict[str, Any]:
        return dict(config.as_data().items() - base.as_data().items())

    paper, cpu, quick = (make("cartpole-swingup") for make in (TdMpcConfig.paper, TdMpcConfig.cpu, TdMpcConfig.quick))
    cpu_changes = {"width": 256, "samples": 256, "iterations": 4, "elites": 32, "batch": 256, "seed_steps": 1000}
    assert changes(cpu, paper) == {**cpu_changes, "schedule_steps": 5000, "steps": 25_000}
    assert changes(quick, cpu) == {
        "samples": 128,
        "batch": 128,
        "seed_steps": 500,
        "schedule_steps": 2500,
        "steps": 5000,
    }
    assert TdMpcConfig.cpu("finger-spin", batch=7).batch == 7


def test_the_schedules_are_linear_between_their_ends() -> None:
    config = TdMpcConfig(schedule_steps=1000, std_start=0.5, std_end=0.1, horizon=5)
    assert [config.std(step) for step in (0, 250, 1000, 9999)] == pytest.approx([0.5, 0.4, 0.1, 0.1])
    assert [config.horizon_at(step) for step in (0, 249, 250, 500, 999, 1000, 9999)] == [1, 1, 2, 3, 4, 5, 5]
    at_once = TdMpcConfig(schedule_steps=0)
    assert (at_once.std(0), at_once.horizon_at(0)) == (0.05, 5)


def test_policy_samples_are_rounded_down() -> None:
    assert TdMpcConfig(samples=512).policy_samples == 25
    assert TdMpcConfig(samples=512, policy_fraction=0.0).policy_samples == 0


def test_data_survives_json() -> None:
    config = TdMpcConfig.quick("cup-catch", seed=11, discount=0.95)
    assert TdMpcConfig.from_data(json.loads(json.dumps(config.as_data()))) == config


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"rho": None}, "rho is None; it must be a number"),
        ({"rho": 2}, "rho is 2; it must be from 0 to 1"),
        ({"rho": float("nan")}, "rho is nan; it must be from 0 to 1"),
        ({"gradient_clip": float("inf")}, "gradient_clip is inf; it must be above 0"),
        ({"horizon": 2.5}, "horizon is 2.5; it must be an integer"),
        ({"horizon": True}, "horizon is True; it must be an integer"),
        ({"horizon": 0}, "horizon is 0; it must be at least 1"),
        ({"seed": -1}, "seed is -1; it must be at least 0"),
        ({"task": 3}, "task is 3; it must be text"),
        ({"learning_rate": 0.0}, "learning_rate is 0.0; it must be above 0"),
        ({"samples": 64, "elites": 68}, r"elites is 68; .* samples \+ policy_fraction \* samples = 67"),
    ],
)
def test_a_wrong_value_is_named_with_what_it_must_be(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ControlError, match=message):
        TdMpcConfig.from_data({**TdMpcConfig().as_data(), **change})


def test_every_field_is_checked() -> None:
    for field in dataclasses.fields(TdMpcConfig):
        for wrong in (None, -1 if field.type != "str" else 1):
            with pytest.raises(ControlError, match=f"^{field.name} is {wrong}; it must be "):
                TdMpcConfig.from_data({**TdMpcConfig().as_data(), field.name: wrong})


def test_all_elites_may_come_from_all_candidates() -> None:
    assert TdMpcConfig(samples=64, elites=67).elites == 67


def test_missing_and_unknown_fields_are_named() -> None:
    data = TdMpcConfig().as_data()
    missing = {name: value for name, value in data.items() if name not in ("rho", "batch")}
    with pytest.raises(ControlError, match="no 'batch', 'rho'"):
        TdMpcConfig.from_data(missing)
    with pytest.raises(ControlError, match="an unknown 'kappa'"):
        TdMpcConfig.from_data({**data, "kappa": 0.1})
    with pytest.raises(ControlError, match="list in place of an object"):
        TdMpcConfig.from_data([data])


def test_an_unknown_task_lists_those_there_are() -> None:
    with pytest.raises(ControlError, match=r"cartpole-swing'.*cartpole-swingup.*walker-walk"):
        TdMpcConfig.cpu("cartpole-swing")
