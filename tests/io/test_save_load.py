from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

import secateur
from secateur import io
from secateur.errors import PlanError, StorageError
from secateur.plan import PruningPlan, plan
from secateur.surgery import apply
from tests.handmade import Chain, keeping, linear_chain, random_scores

WIDTHS = [5, 8, 6, 3]


def chain_plan() -> PruningPlan:
    graph = linear_chain(WIDTHS).graph()
    return plan(graph, random_scores(graph), 0.5)


def small_chain() -> Chain:
    return apply(Chain(WIDTHS), chain_plan())


def dense_chain() -> Chain:
    return Chain(WIDTHS)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "pruned"


def state(model: nn.Module) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def assert_same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> None:
    assert a.keys() == b.keys()
    for name, tensor in a.items():
        assert tensor.dtype == b[name].dtype
        assert torch.equal(tensor, b[name])


def test_what_was_saved_comes_back(folder: Path) -> None:
    small, x = small_chain(), torch.randn(4, 5)
    io.save(small, chain_plan(), folder)
    again = io.load(folder, dense_chain)
    assert_same(state(again), state(small))
    assert torch.equal(again(x), small(x))
    again(x).sum().backward()
    assert sorted(os.listdir(folder)) == ["model.safetensors", "plan.json"]
    assert os.listdir(folder.parent) == ["pruned"]
    assert PruningPlan.from_json((folder / "plan.json").read_text()) == chain_plan()


def test_dtypes_come_from_the_file(folder: Path) -> None:
    small = small_chain().to(torch.bfloat16)
    io.save(small, chain_plan(), folder)
    assert_same(state(io.load(folder, dense_chain)), state(small))


def test_buffers_and_views_are_stored(folder: Path) -> None:
    def factory() -> Any:
        model: Any = nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6))
        model.register_buffer("window", torch.zeros(3, 2))
        model.register_buffer("passing", torch.arange(6.0), persistent=False)
        return model

    names = ("0.weight", "0.bias", "1.weight", "1.bias", "1.running_mean", "1.running_var", "passing")
    made = keeping(factory(), {(name, 0): [1, 2, 5] for name in names})
    small = apply(factory(), made)
    small.window = torch.arange(12.0).reshape(2, 6)[:, ::2].T
    small(torch.randn(8, 4))
    io.save(small, made, folder)
    again = io.load(folder, factory)
    assert_same(state(again), state(small))
    assert again.passing.tolist() == [1, 2, 5]
    assert "passing" not in load_file(folder / "model.safetensors")


def tied_by_object() -> Any:
    model: Any = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    model[1].weight = model[0].weight
    return model


def tied_by_memory() -> Any:
    model: Any = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    model[1].weight = nn.Parameter(model[0].weight.data)
    return model


@pytest.mark.parametrize("factory", [tied_by_object, tied_by_memory])
def test_tied_tensors_are_stored_once_and_stay_tied(factory: Callable[[], Any], folder: Path) -> None:
    made = keeping(factory(), {("0.weight", 1): [0, 3]})
    small = apply(factory(), made)
    io.save(small, made, folder)
    assert set(load_file(folder / "model.safetensors")) == {"0.weight", "0.bias", "1.bias"}
    again = io.load(folder, factory)
    assert_same(state(again), state(small))
    assert again[0].weight.data_ptr() == again[1].weight.data_ptr()
    assert (again[0].weight is again[1].weight) == (factory is tied_by_object)


def test_ties_are_restored_where_the_factory_has_none(folder: Path) -> None:
    made = keeping(tied_by_object(), {("0.weight", 1): [0, 3]})
    io.save(apply(tied_by_object(), made), made, folder)
    again: Any = io.load(folder, lambda: nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4)))
    assert again[0].weight.data_ptr() == again[1].weight.data_ptr()


def test_the_loaded_values_do_not_depend_on_the_file(folder: Path) -> None:
    small = small_chain()
    io.save(small, chain_plan(), folder)
    again = io.load(folder, dense_chain)
    (folder / "model.safetensors").write_bytes(b"")
    assert_same(state(again), state(small))


def test_an_earlier_save_is_replaced(folder: Path) -> None:
    io.save(small_chain(), chain_plan(), folder)
    second = small_chain()
    io.save(second, chain_plan(), folder)
    assert_same(state(io.load(folder, dense_chain)), state(second))
    assert os.listdir(folder.parent) == ["pruned"]


def test_an_empty_folder_is_filled_and_parents_are_made(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    io.save(small_chain(), chain_plan(), tmp_path / "empty")
    io.save(small_chain(), chain_plan(), str(tmp_path / "a" / "b"))
    io.load(str(tmp_path / "a" / "b"), dense_chain)


@pytest.mark.parametrize("failing", ["write", "rename"])
@pytest.mark.parametrize("existing", [False, True])
def test_a_failing_save_leaves_what_was_there(
    failing: str, existing: bool, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = small_chain()
    if existing:
        io.save(first, chain_plan(), folder)
    replace = os.replace

    def full_disk(*_: Any, **__: Any) -> None:
        raise OSError("no space left")

    def refuse_the_new_plan(source: Path, target: Path) -> None:
        if target == folder / "plan.json" and not source.parent.samefile(folder) and next(refusals, False):
            raise OSError("no space left")
        replace(source, target)

    refusals = iter([True])

    if failing == "write":
        monkeypatch.setattr(PruningPlan, "to_json", full_disk)
    else:
        monkeypatch.setattr(os, "replace", refuse_the_new_plan)
        monkeypatch.setattr(Path, "rename", full_disk)
    with pytest.raises(StorageError, match="pruned can't be written: no space left"):
        io.save(small_chain(), chain_plan(), folder)
    monkeypatch.undo()
    assert os.listdir(folder.parent) == (["pruned"] if existing else [])
    if existing:
        assert_same(state(io.load(folder, dense_chain)), state(first))


# Wrong input: saving


def test_a_folder_with_other_files_is_left_alone(folder: Path) -> None:
    folder.mkdir()
    (folder / "thesis.tex").write_text("years of work")
    with pytest.raises(StorageError, match=r"pruned holds other files \(thesis\.tex, \.\.\.\)"):
        io.save(small_chain(), chain_plan(), folder)
    assert os.listdir(folder) == ["thesis.tex"]


def test_a_file_is_no_folder(folder: Path) -> None:
    folder.write_text("")
    with pytest.raises(StorageError, match="pruned is a file"):
        io.save(small_chain(), chain_plan(), folder)
    with pytest.raises(StorageError, match="b can't be written"):
        io.save(small_chain(), chain_plan(), folder / "b")


def test_a_model_that_the_plan_did_not_make(folder: Path) -> None:
    with pytest.raises(
        PlanError, match=r"not made with this plan: c0\.0\.weight has shape \(8, 5\); the plan leaves \(4, 5\)"
    ):
        io.save(Chain(WIDTHS), chain_plan(), folder)
    with pytest.raises(PlanError, match=r"c0\.0\.weight is missing; the plan leaves \(4, 5\)"):
        io.save(nn.Linear(2, 2), chain_plan(), folder)
    assert not folder.exists()


def test_a_type_that_safetensors_does_not_have(folder: Path) -> None:
    model = nn.Sequential(nn.Linear(4, 4))
    model.register_buffer("phases", torch.ones(3, dtype=torch.complex128))
    made = keeping(model, {("0.weight", 1): [0]})
    with pytest.raises(StorageError, match=r"phases is of torch\.complex128, which safetensors .* convert it first"):
        io.save(apply(model, made), made, folder)
    assert not folder.exists()


def test_state_that_is_no_tensor(folder: Path) -> None:
    class Counting(nn.Linear):
        def get_extra_state(self) -> Any:
            return {"calls": 3}

    model = nn.Sequential(Counting(4, 4))
    made = keeping(model, {("0.weight", 1): [0]})
    with pytest.raises(StorageError, match="Counting at '0' has extra state of its own"):
        io.save(apply(model, made), made, folder)


# Wrong input: loading


@pytest.mark.parametrize("name", ["model.safetensors", "plan.json"])
@pytest.mark.parametrize("damage", ["missing", "truncated", "empty", "foreign"])
def test_a_damaged_file_is_named(name: str, damage: str, folder: Path) -> None:
    io.save(small_chain(), chain_plan(), folder)
    file = folder / name
    if damage == "missing":
        file.unlink()
    else:
        content = file.read_bytes()
        file.write_bytes({"truncated": content[: len(content) // 2], "empty": b"", "foreign": b"\x80\x04" * 99}[damage])
    with pytest.raises(StorageError, match=rf"pruned.{name} can't be read"):
        io.load(folder, dense_chain)


def test_a_folder_that_is_not_there(folder: Path) -> None:
    with pytest.raises(StorageError, match=r"pruned.plan\.json can't be read"):
        io.load(folder, dense_chain)


def rewrite(folder: Path, tensors: dict[str, torch.Tensor], **metadata: str) -> None:
    save_file(tensors, folder / "model.safetensors", metadata={"format": "secateur-model", "tied": "{}"} | metadata)


def test_tensors_written_by_something_else(folder: Path) -> None:
    io.save(small_chain(), chain_plan(), folder)
    tensors = load_file(folder / "model.safetensors")
    rewrite(folder, tensors, format="pt")
    with pytest.raises(StorageError, match=r"model\.safetensors was not written by Secateur"):
        io.load(folder, dense_chain)
    for tied in ("", "[1]", '{"a": 1}'):
        rewrite(folder, tensors, tied=tied)
        with pytest.raises(
            StorageError, match=r"model\.safetensors can't be read: its list of tied tensors is damaged"
        ):
            io.load(folder, dense_chain)


def test_json_that_is_no_plan(folder: Path) -> None:
    io.save(small_chain(), chain_plan(), folder)
    (folder / "plan.json").write_text(json.dumps({"format": "other"}))
    with pytest.raises(StorageError, match=r"plan\.json can't be read: not a pruning plan"):
        io.load(folder, dense_chain)


def test_tensors_of_another_plan(folder: Path) -> None:
    io.save(small_chain(), chain_plan(), folder)
    tensors = load_file(folder / "model.safetensors")
    del tensors["c0.0.bias"]
    tensors["c0.0.weight"] = torch.zeros(3, 5)
    tensors["c7.weight"] = torch.zeros(3)
    rewrite(folder, tensors)
    with pytest.raises(
        StorageError,
        match=r"model\.safetensors doesn't fit its plan: c0\.0\.weight has shape \(3, 5\), the plan leaves \(4, 5\); "
        r"c0\.0\.bias is missing; c7\.weight is unknown$",
    ):
        io.load(folder, dense_chain)
    rewrite(folder, {"x": torch.zeros(1)}, tied='{"y": "z"}')
    with pytest.raises(StorageError, match=r"c1\.0\.weight is missing; and 5 more"):
        io.load(folder, dense_chain)


def test_tensors_tied_in_the_model_but_not_in_the_file(folder: Path) -> None:
    made = keeping(tied_by_object(), {("0.weight", 1): [0, 3]})
    io.save(apply(tied_by_object(), made), made, folder)
    tensors = load_file(folder / "model.safetensors")
    rewrite(folder, tensors | {"1.weight": torch.zeros(4, 2)})
    with pytest.raises(StorageError, match=r"1\.weight and 0\.weight are tied in the factory's model, not in the file"):
        io.load(folder, tied_by_object)


@pytest.mark.parametrize(
    ("factory", "message"),
    [
        (lambda: Chain([5, 9, 6, 3]), r"another model than this Chain: c0\.0\.weight has shape \(9, 5\)"),
        (lambda: Chain, "the factory must return the dense model; it returned type"),
        (lambda: Chain(WIDTHS).to("meta"), "the factory's model is on the meta device"),
    ],
)
def test_a_factory_of_something_else(factory: Callable[[], Any], message: str, folder: Path) -> None:
    io.save(small_chain(), chain_plan(), folder)
    with pytest.raises(PlanError, match=message):
        io.load(folder, factory)


def test_the_working_folder_can_be_saved_into(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for _ in range(2):
        io.save(small_chain(), chain_plan(), ".")
        assert Path.cwd() == tmp_path
        io.load(".", dense_chain)
    modes = {(tmp_path / name).stat().st_mode for name in ("model.safetensors", "plan.json")}
    assert len(modes) == 1


def test_a_model_is_no_factory(folder: Path) -> None:
    io.save(small_chain(), chain_plan(), folder)
    with pytest.raises(PlanError, match="a function that builds the dense model"):
        io.load(folder, dense_chain())


class Tabled(nn.Module):
    """Makes its table of positions anew for inputs of another length."""

    table: torch.Tensor

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(4, 8), nn.Linear(8, 2)
        self.register_buffer("table", torch.zeros(1, 1))

    def forward(self, x: torch.Tensor) -> Any:
        if len(self.table) != len(x):
            self.table = torch.arange(float(len(x)))[:, None]
        return self.second(torch.relu(self.first(x)) * (1 + self.table))


def test_buffers_that_a_run_makes_anew(tmp_path: Path) -> None:
    model, x = Tabled(), torch.randn(5, 4)
    model(x)
    result = secateur.prune(model, x, target=0.4, tolerance=0.1)
    result.save(tmp_path / "small")
    read = secateur.load(tmp_path / "small", Tabled)
    assert torch.equal(read(x), result.model(x))
    assert torch.equal(read.get_buffer("table"), result.model.get_buffer("table"))


class LateTabled(nn.Module):
    """Registers a table when it first runs, for the length of its inputs."""

    def __init__(self, persistent: bool) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(4, 16), nn.Linear(16, 2)
        self.persistent = persistent
        self.table: torch.Tensor | None
        self.register_buffer("table", None, persistent=persistent)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.table is None or self.table.shape[0] != x.shape[1]:
            table = torch.arange(x.shape[1], dtype=torch.float)[:, None]
            self.register_buffer("table", table, persistent=self.persistent)
        out: torch.Tensor = self.last((self.first(x) + self.table).relu())
        return out


@pytest.mark.parametrize("persistent", [False, True])
def test_a_buffer_that_is_registered_while_the_model_runs(folder: Path, persistent: bool) -> None:
    model, x = LateTabled(persistent), torch.randn(3, 5, 4)
    model(x)
    result = secateur.prune(model, x, target=secateur.Sparsity(0.4, tolerance=0.1))
    result.save(folder)
    again = io.load(folder, lambda: LateTabled(persistent))
    assert (again.table is not None) == persistent
    assert torch.equal(again(x), result.model(x))


def test_a_parameter_that_the_new_model_lacks_is_still_an_error(folder: Path) -> None:
    model, x = LateTabled(persistent=False), torch.randn(3, 5, 4)
    model(x)
    secateur.prune(model, x, target=secateur.Sparsity(0.4, tolerance=0.1)).save(folder)

    def factory() -> LateTabled:
        made = LateTabled(persistent=False)
        made.last.register_parameter("bias", None)
        return made

    with pytest.raises(PlanError, match=r"last\.bias \(2,\) of the plan is not in the model"):
        io.load(folder, factory)
