from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from importlib import resources
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from secateur.errors import SecateurError, StorageError
from secateur.experiments.tdmpc import checkpoints
from secateur.experiments.tdmpc.checkpoints import Agent, load_agent, pretrained, pretrained_tasks, save_agent
from secateur.experiments.tdmpc.config import TdMpcConfig
from secateur.experiments.tdmpc.told import Told


def agent(task: str = "cartpole-swingup", notes: Mapping[str, Any] = MappingProxyType({})) -> Agent:
    config = TdMpcConfig.quick(task, encoder_width=12, width=16, latent=5)
    torch.manual_seed(0)
    return Agent(model=Told.of(config, 7, 2), config=config, notes=notes)


def test_an_agent_comes_back_as_it_was(tmp_path: Path) -> None:
    saved = agent(notes={"command": "secateur train tdmpc", "return": {"mean": 812.25}})
    assert save_agent(saved, tmp_path / "new") == tmp_path / "new" / "cartpole-swingup.json"
    assert sorted(file.name for file in (tmp_path / "new").iterdir()) == [
        "cartpole-swingup.json",
        "cartpole-swingup.safetensors",
    ]
    loaded = load_agent(tmp_path / "new")
    assert loaded.config == saved.config
    assert loaded.notes == saved.notes
    assert not loaded.model.training
    assert (loaded.observations, loaded.actions) == (7, 2)
    assert loaded.parameters == sum(parameter.numel() for parameter in saved.model.parameters())
    expected = saved.model.state_dict()
    assert loaded.model.state_dict().keys() == expected.keys()
    for name, tensor in loaded.model.state_dict().items():
        assert torch.equal(tensor, expected[name])
    for parameter in loaded.model.parameters():
        parameter.data.add_(1)  # its own memory, not a window into the file
    assert torch.equal(load_agent(tmp_path / "new").model.state_dict()["pi.0.weight"], expected["pi.0.weight"])


def test_the_json_says_what_it_is(tmp_path: Path) -> None:
    data = json.loads(save_agent(agent(notes={"command": "made by hand"}), tmp_path).read_text(encoding="utf-8"))
    assert data["notes"] == {"command": "made by hand"}
    assert data["config"]["latent"] == 5
    assert (data["observations"], data["actions"], data["parameters"]) == (7, 2, agent().parameters)


def test_a_folder_may_hold_several_agents(tmp_path: Path) -> None:
    for task in ("cartpole-swingup", "walker-walk"):
        save_agent(agent(task), tmp_path)
    assert load_agent(tmp_path, "walker-walk").config.task == "walker-walk"
    with pytest.raises(StorageError, match=r"several agents \(cartpole-swingup, walker-walk\); say for which task"):
        load_agent(tmp_path)
    with pytest.raises(StorageError, match="no agent for 'cup-catch'; it has cartpole-swingup, walker-walk"):
        load_agent(tmp_path, "cup-catch")


def test_a_renamed_agent_is_one_clear_error(tmp_path: Path) -> None:
    save_agent(agent("walker-walk"), tmp_path)
    for file in list(tmp_path.iterdir()):
        file.rename(file.with_stem("cup-catch"))
    with pytest.raises(StorageError, match=r"cup-catch\.json is the agent for 'walker-walk'; its files must have that"):
        load_agent(tmp_path, "cup-catch")


def test_a_folder_without_an_agent_is_one_clear_error(tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "not there"):
        with pytest.raises(StorageError, match=f"{folder} holds no agent"):
            load_agent(folder)


def test_a_config_that_does_not_fit_names_the_first_tensor_and_both_shapes(tmp_path: Path) -> None:
    file = save_agent(agent(), tmp_path)
    data = json.loads(file.read_text(encoding="utf-8"))
    data["config"]["latent"] = 6
    file.write_text(json.dumps(data), encoding="utf-8")
    message = r"encoder\.2\.weight is \(5, 12\), and the config asks for \(6, 12\)"
    with pytest.raises(StorageError, match=message):
        load_agent(tmp_path)


def test_a_model_that_does_not_fit_its_config_is_not_saved(tmp_path: Path) -> None:
    other = agent()
    with pytest.raises(StorageError, match=r"encoder\.0\.weight is \(12, 7\), and the config asks for \(99, 7\)"):
        save_agent(replace(other, config=replace(other.config, encoder_width=99)), tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_missing_and_an_unknown_tensor_are_clear_errors(tmp_path: Path) -> None:
    save_agent(agent(), tmp_path)
    file = tmp_path / "cartpole-swingup.safetensors"
    tensors = load_file(file)
    save_file({**tensors, "more": torch.zeros(2)}, file)
    with pytest.raises(StorageError, match=r"more is \(2,\), and the config asks for no such tensor"):
        load_agent(tmp_path)
    del tensors["q1.0.bias"]
    save_file(tensors, file)
    with pytest.raises(StorageError, match=r"q1\.0\.bias is missing, and the config asks for \(16,\)"):
        load_agent(tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda data: data.update(format="other"), "no format 'secateur-tdmpc-agent'"),
        (lambda data: data.update(version=2), "version 2 of the format; this Secateur reads 1"),
        (lambda data: data.update(actions=0), "lacks observations, actions or notes"),
        (lambda data: data.pop("notes"), "lacks observations, actions or notes"),
        (lambda data: data["config"].pop("latent"), "no 'latent'"),
        (lambda data: data["config"].update(latent="wide"), "latent is 'wide'"),
        (lambda data: data.pop("config"), "not the configuration"),
    ],
)
def test_a_wrong_description_is_one_clear_error(
    tmp_path: Path, change: Callable[[dict[str, Any]], object], message: str
) -> None:
    file = save_agent(agent(), tmp_path)
    data = json.loads(file.read_text(encoding="utf-8"))
    change(data)
    file.write_text(json.dumps(data), encoding="utf-8")
    with pytest.raises(StorageError, match=message) as error:
        load_agent(tmp_path)
    assert "cartpole-swingup" in str(error.value)


def test_damaged_files_are_clear_errors(tmp_path: Path) -> None:
    file = save_agent(agent(), tmp_path)
    weights = file.with_suffix(".safetensors")
    weights.write_bytes(weights.read_bytes()[:-10])
    with pytest.raises(StorageError, match="cartpole-swingup can't be read"):
        load_agent(tmp_path)
    save_agent(agent(), tmp_path)
    file.write_text("[]", encoding="utf-8")
    with pytest.raises(StorageError, match="no agent of Secateur"):
        load_agent(tmp_path)
    file.write_bytes(b"\xff{")
    with pytest.raises(StorageError, match="cartpole-swingup can't be read"):
        load_agent(tmp_path)


def test_pretrained_agents_come_from_the_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resources, "files", lambda _package: tmp_path)
    assert pretrained_tasks() == []
    with pytest.raises(SecateurError, match="'walker-walk' comes with Secateur; there are none"):
        pretrained("walker-walk")
    for task in ("walker-walk", "cartpole-swingup"):
        save_agent(agent(task), tmp_path / "pretrained")
    assert pretrained_tasks() == ["cartpole-swingup", "walker-walk"]
    assert pretrained("walker-walk").config.task == "walker-walk"
    there = "'cup-catch' comes with Secateur; there are cartpole-swingup, walker-walk"
    other = (
        "Train one (secateur train tdmpc --task cup-catch) and name its folder: --checkpoint DIR, or load_agent(DIR)"
    )
    with pytest.raises(SecateurError, match=re.escape(f"{there}. {other}")):
        pretrained("cup-catch")


def test_those_that_come_with_secateur_are_whole_small_and_say_how_they_were_made() -> None:
    folder = Path(checkpoints.__file__).parent / "pretrained"
    for task in pretrained_tasks():
        found = pretrained(task)
        assert found.config.task == task
        assert found.notes["command"].startswith(f"secateur train tdmpc --task {task} ")
        assert found.notes["return"]["mean"] > 0
        assert (folder / f"{task}.safetensors").stat().st_size < 2_000_000
