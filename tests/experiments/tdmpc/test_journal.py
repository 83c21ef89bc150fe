from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from secateur.errors import StorageError
from secateur.experiments.tdmpc.config import TdMpcConfig
from secateur.experiments.tdmpc.journal import CHECKPOINT, EpisodeRecord, Journal, read_state, write_state
from secateur.experiments.tdmpc.learner import UpdateLosses

CONFIG = TdMpcConfig.quick("cartpole-swingup")
LOSSES = UpdateLosses(total=1.5, consistency=0.1, reward=0.2, value=0.3, policy=-4)


def record(steps: int, evaluation: float | None = None, losses: UpdateLosses | None = LOSSES) -> EpisodeRecord:
    return EpisodeRecord(steps=steps, episode_return=0.1 * steps, losses=losses, evaluation=evaluation, seconds=2)


JOURNAL = Journal((record(10, losses=None), record(20, 3.0), record(30, 5.0), record(40), record(50, 5.0)))


def test_a_journal_sums_up_its_episodes() -> None:
    assert (Journal().steps, Journal().seconds, Journal().best) == (0, 0, None)
    assert (JOURNAL.steps, JOURNAL.seconds) == (50, 10)
    assert JOURNAL.best is JOURNAL.episodes[-1]  # the later of two equals
    assert JOURNAL.plus(record(60, 4.0)).best is JOURNAL.episodes[-1]
    assert Journal(JOURNAL.episodes[:1]).best is None


def test_a_state_comes_back_as_it_was(tmp_path: Path) -> None:
    assert read_state(tmp_path, CONFIG) is None
    tensors = {"a": torch.arange(6.0).reshape(2, 3).t(), "count": torch.tensor(3)}
    write_state(tmp_path, CONFIG, JOURNAL, tensors)
    found = read_state(tmp_path, CONFIG)
    assert found is not None
    journal, read = found
    assert journal == JOURNAL
    assert read.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert torch.equal(read[name], tensor)
        assert read[name].dtype == tensor.dtype
    assert [file.name for file in tmp_path.iterdir()] == [CHECKPOINT]


def test_more_steps_are_no_other_training_and_all_else_is(tmp_path: Path) -> None:
    write_state(tmp_path, CONFIG, JOURNAL, {})
    longer = TdMpcConfig.quick("cartpole-swingup", steps=CONFIG.steps + 1)
    assert read_state(tmp_path, longer) is not None
    other = TdMpcConfig.quick("cartpole-swingup", batch=7)
    with pytest.raises(StorageError, match=f"begun with batch = {CONFIG.batch}, and now it is 7; choose another"):
        read_state(tmp_path, other)


def test_files_that_are_no_training_are_clear_errors(tmp_path: Path) -> None:
    file = tmp_path / CHECKPOINT
    save_file({"a": torch.zeros(1)}, file)
    with pytest.raises(StorageError, match=r"training\.safetensors is no training of this version"):
        read_state(tmp_path, CONFIG)
    write_state(tmp_path, CONFIG, JOURNAL, {"a": torch.zeros(100)})
    file.write_bytes(file.read_bytes()[:-50])
    with pytest.raises(StorageError, match=r"training\.safetensors can't be read: .*; delete it to train from the"):
        read_state(tmp_path, CONFIG)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("journal", "[{}]", "losses"),
        ("journal", "{", "Expecting property name"),
        ("config", "{}", "no 'action_repeat'"),
        ("config", None, "config"),
    ],
)
def test_damaged_metadata_are_clear_errors(tmp_path: Path, key: str, value: str | None, message: str) -> None:
    good = {
        "format": "secateur-tdmpc-training",
        "version": "1",
        "journal": "[]",
        "config": json.dumps(CONFIG.as_data()),
    }
    metadata = {name: text for name, text in {**good, key: value}.items() if text is not None}
    save_file({"a": torch.zeros(1)}, tmp_path / CHECKPOINT, metadata)
    with pytest.raises(StorageError, match=message):
        read_state(tmp_path, CONFIG)
