from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path
from typing import Any

import pytest

import secateur as library
from secateur.cli.choices import CriterionName, StrategyName
from tests.cli.outcome import CommandLine, assert_one_line

SEARCHED = ("shop:trained", "--calibration", "inputs", "--maximize", "quality")


def result(folder: Path = Path("pruned")) -> dict[str, Any]:
    data: dict[str, Any] = json.loads((folder / "result.json").read_text(encoding="utf-8"))
    return data


def calls() -> int:
    """How often the metric has been called."""
    path = Path("calls")
    return len(path.read_text(encoding="utf-8")) if path.exists() else 0


def test_a_model_and_its_inputs_are_enough(secateur: CommandLine) -> None:
    outcome = secateur("prune", "shop:Net", "--input-shape", "1,8")
    assert outcome.status == 0, outcome.err
    assert outcome.err == ""
    for words in ("Before and after", "Pruning coefficients", "encoder.2", "proof: 3 groups: pruned equals masked"):
        assert words in outcome.out
    assert "pruned/model, which secateur.load('pruned/model', Net) reads" in outcome.out
    data = result()
    small = library.load("pruned/model", sys.modules["shop"].Net)
    parameters = sum(p.numel() for p in small.parameters())
    assert data["after"]["parameters"] == parameters
    assert data["sparsity"] == pytest.approx(1 - parameters / data["before"]["parameters"])
    assert abs(data["sparsity"] - 0.5) <= 0.01
    assert data["storage"] is None
    assert not Path("pruned/search.db").exists()


def test_the_best_metric_at_a_size(secateur: CommandLine) -> None:
    words = (*SEARCHED, "--target", "0.6", "--strategy", "black-box", "--evaluations", "8", "--seed", "1")
    outcome = secateur("prune", *words, "--out", "new/small", "--json", "copy.json")
    assert outcome.status == 0, outcome.err
    assert "quality" in outcome.out
    assert "candidates: 8 measured" in outcome.out
    assert "8/8" in outcome.err
    assert "best -0." in outcome.err
    data = result(Path("new/small"))
    assert json.loads(Path("copy.json").read_text(encoding="utf-8")) == data
    measured = [evaluation["objective"] for evaluation in data["history"]]
    assert len(measured) == 8
    assert data["after"]["objective"] == pytest.approx(max(measured), abs=1e-6)
    assert data["before"]["objective"] > data["after"]["objective"]
    assert abs(data["sparsity"] - 0.6) <= 0.01


def test_a_search_that_is_run_again_measures_nothing_twice(secateur: CommandLine) -> None:
    words = ("prune", *SEARCHED, "--strategy", "black-box", "--evaluations", "6")
    assert secateur(*words).status == 0
    first, before = result(), calls()
    assert Path("pruned/search.db").exists()
    assert secateur(*words).status == 0
    # The dense and the finished model are measured for the report.
    assert calls() == before + 2
    assert result()["coefficients"] == first["coefficients"]
    assert secateur(*words, "--seed", "5").status == 0
    assert calls() > before + 4


def test_the_smallest_model_within_bounds(secateur: CommandLine) -> None:
    module = importlib.import_module("shop") if "shop" in sys.modules else None
    assert module is None
    words = ("shop:trained", "--calibration", "exercise", "--target", "smallest", "--tolerance", "0.02")
    outcome = secateur("prune", *words, "--constraint", "error <= 0.4", "--constraint", "error>=0")
    assert outcome.status == 0, outcome.err
    assert "0 <= error <= 0.4" in outcome.out
    data = result()
    assert data["constraints"]["error"] <= 0.4
    assert data["sparsity"] > 0.3


def test_the_smallest_model_is_decided_by_what_is_measured_in_full(secateur: CommandLine) -> None:
    words = ("--calibration", "inputs", "--target", "smallest", "--tolerance", "0.1", "--refit-steps", "0")
    outcome = secateur("prune", "shop:trained", *words, "--constraint", "error <= 0.4", "--study", "quick")
    assert outcome.status == 0, outcome.err
    history = result()["history"]
    in_full = [e for e in history if e["full"]]
    assert f"candidates: {len(history)} measured, {len(in_full)} in full\n" in outcome.out
    assert in_full[-1]["constraints"].keys() == {"error"}
    assert result()["constraints"] in [e["constraints"] for e in in_full]
    assert "quick (in full)" in secateur("search", "status", "--storage", "pruned/search.db").out


def test_components_targets_caps_and_whole_parts(secateur: CommandLine) -> None:
    outcome = secateur(
        "prune", "shop:trained", "--component", "front=encoder", "--component", "back=decoder", "--component",
        "front=0.4", "--cap", "back=0.5", "--of", "macs", "--whole", "decoder.1", "--tolerance", "0.05",
    )  # fmt: skip
    assert outcome.status == 0, outcome.err
    data = result()
    assert abs(data["component_sparsities"]["front"] - 0.4) <= 0.05
    assert data["coefficients"]["decoder.1"] == 0
    assert data["coefficients"]["encoder.2"] == 0


def test_a_coefficient_for_an_interface(secateur: CommandLine) -> None:
    outcome = secateur("prune", "shop:trained", "--interface", "encoder.2=0.25")
    assert outcome.status == 0, outcome.err
    assert result()["coefficients"] == pytest.approx({"encoder.0": 0, "encoder.2": 0.25, "decoder.1": 0})


def test_protected_modules_multiples_and_widths(secateur: CommandLine) -> None:
    words = ("--protect", "encoder.2", "--round-to", "4", "--minimum-width", "8", "--tolerance", "0.1")
    outcome = secateur("prune", "shop:trained", "--target", "0.4", *words)
    assert outcome.status == 0, outcome.err
    kept = [round((1 - c) * 24) for c in result()["coefficients"].values()]
    assert "encoder.2" not in result()["coefficients"]
    assert all(k % 4 == 0 and k >= 8 for k in kept)


@pytest.mark.parametrize("strategy", [name.value for name in StrategyName])
def test_every_strategy(secateur: CommandLine, strategy: str) -> None:
    words = ("--loss", "loss", "--batches", "inputs", "--tolerance", "0.03", "--evaluations", "20")
    outcome = secateur("prune", *SEARCHED, "--strategy", strategy, *words)
    assert outcome.status == 0, outcome.err
    assert abs(result()["sparsity"] - 0.5) <= 0.03


def test_weights_may_be_trained_along(secateur: CommandLine) -> None:
    with Path("shop.py").open("a", encoding="utf-8") as file:
        file.write("\nbatches = [rows] * 40\n")
    errors = {}
    for strategy in ("gradient", "gradient-weights"):
        words = ("--strategy", strategy, "--loss", "loss", "--batches", "batches", "--minimize", "error")
        outcome = secateur("prune", "shop:trained", "--target", "0.6", *words, "--out", strategy)
        assert outcome.status == 0, outcome.err
        errors[strategy] = result(Path(strategy))["after"]["objective"]
    assert errors["gradient-weights"] < 0.5 * errors["gradient"]


@pytest.mark.parametrize("criterion", [name.value for name in CriterionName])
def test_every_criterion(secateur: CommandLine, criterion: str) -> None:
    words = ("--loss", "shop:loss", "--batches", "make_inputs", "--calibration", "shop:exercise")
    outcome = secateur("prune", "shop:trained", "--criterion", criterion, *words)
    assert outcome.status == 0, outcome.err


def test_to_keep_a_metric_low(secateur: CommandLine) -> None:
    words = ("--minimize", "error", "--strategy", "random", "--evaluations", "6", "--calibration", "inputs")
    outcome = secateur("prune", "shop:trained", *words)
    assert outcome.status == 0, outcome.err
    data = result()
    assert data["after"]["objective"] == pytest.approx(min(e["objective"] for e in data["history"]), abs=1e-5)


def test_candidates_measured_in_processes(secateur: CommandLine) -> None:
    words = ("--strategy", "random", "--evaluations", "2", "--jobs", "2")
    outcome = secateur("prune", *SEARCHED, *words)
    assert outcome.status == 0, outcome.err
    assert len(result()["history"]) == 2


def test_a_metric_that_fails_now_and_then_is_counted(secateur: CommandLine) -> None:
    with Path("shop.py").open("a", encoding="utf-8") as file:
        file.write(
            "\ndef moody(model):\n    if model.encoder[0].out_features % 2: raise OSError('odd')\n    return 1.0\n"
        )
    outcome = secateur(
        "prune", "shop:trained", "--maximize", "moody", "--strategy", "random", "--evaluations", "10"
    )  # fmt: skip
    assert outcome.status == 0, outcome.err
    failed = [e["error"] for e in result()["history"] if e["error"]]
    assert f"candidates: 10 measured, {len(failed)} failed" in outcome.out
    assert all("OSError: odd" in error for error in failed)


# --- bounds that are not met ------------------------------------------------------------------------------------------


def test_a_target_that_whole_channels_can_not_meet_is_status_1(secateur: CommandLine) -> None:
    assert_one_line(secateur("prune", "shop:Net", "--input-shape", "1,8", "--target", "0.999"), 1, "can't be met")
    assert not Path("pruned").exists()


def test_constraints_that_nothing_satisfies_are_status_1(secateur: CommandLine) -> None:
    words = ("--strategy", "random", "--evaluations", "5", "--constraint", "error<=0.001")
    outcome = secateur("prune", *SEARCHED, "--target", "0.7", *words)
    assert outcome.status == 1
    line = outcome.err.splitlines()[-1]
    assert line.startswith("secateur: error: no candidate satisfies every constraint; the nearest miss")
    assert "error <= 0.001" in line
    assert not Path("pruned/model").exists()


# --- wrong input ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["shop:trained", "--target", "half"], ["--target 'half'", "not a number"]),
        (["shop:trained", "--target", "1.5"], ["must lie in (0, 1)", "1.5"]),
        (["shop:trained", "--tolerance", "-1"], ["tolerance", "-1"]),
        (["shop:trained", "--of", "flops"], ["flops", "params", "macs", "latency"]),
        (["shop:trained", "--strategy", "best"], ["best", "black-box"]),
        (["shop:trained", "--component", "encoder"], ["'encoder' is not of the form name=module,module or name=0.5"]),
        (["shop:trained", "--component", "encoder=1.5"], ["must lie in (0, 1)", "'encoder'"]),
        (["shop:trained", "--component", "encodr=0.5"], ["no component is called 'encodr'", "encoder"]),
        (["shop:trained", "--component", "front=encodr"], ["the model has no module or parameter 'encodr'"]),
        (["shop:trained", "--component", "encoder=0.5", "--target", "smallest"], ["can't be joined"]),
        (["shop:trained", "--cap", "encoder"], ["--cap 'encoder' is not of the form name=0.5"]),
        (["shop:trained", "--cap", "encoder=much"], ["--cap 'encoder=much'", "'much' is not a number"]),
        (["shop:trained", "--cap", "encodr=0.5"], ["no component or group is called 'encodr'"]),
        (["shop:trained", "--whole", "encodr"], ["no component or group is called 'encodr'"]),
        (["shop:trained", "--interface", "latent=0.5"], ["no channel group is called 'latent'"]),
        (["shop:trained", "--protect", "encodr"], ["encodr"]),
        (["shop:trained", "--maximize", "quality", "--minimize", "error"], ["--minimize are both given"]),
        (["shop:trained", "--maximize", "psnr"], ["shop has no psnr"]),
        (["shop:trained", "--maximize", "rows"], ["rows is a Tensor, not a function"]),
        (["shop:trained", "--maximize", "shop:not_a_number"], ["'not_a_number' must return a finite number"]),
        (["shop:trained", "--maximize", "nothing"], ["'nothing' must return a number for a model; it returned None"]),
        (["shop:trained", "--constraint", "quality"], ["--constraint 'quality' is not of the form"]),
        (["shop:trained", "--constraint", "quality>=high"], ["'high' is not a number"]),
        (["shop:trained", "--constraint", "quality>1"], ["is not of the form"]),
        (["shop:trained", "--constraint", "error<=1", "--constraint", "error<=2"], ["bounds error a second time"]),
        (["shop:trained", "--constraint", "error>=2", "--constraint", "error<=1"], ["nothing satisfies"]),
        (["shop:trained", "--target", "smallest"], ["give", "constraints="]),
        (["shop:trained", "--strategy", "gradient"], ["gradient"]),
        (["shop:trained", "--strategy", "gradient", "--loss", "loss"], ["--loss needs --batches"]),
        (["shop:trained", "--strategy", "gradient", "--batches", "inputs"], ["--batches needs --loss"]),
        (["shop:trained", "--strategy", "gradient-weights"], ["--strategy gradient-weights needs --loss"]),
        (["shop:trained", "--strategy", "gradient-weights", "--loss", "loss"], ["gradient-weights needs --batches"]),
        (["shop:trained", "--criterion", "taylor"], ["--criterion taylor needs --loss"]),
        (["shop:trained", "--criterion", "activation"], ["--criterion activation needs --calibration"]),
        (["shop:trained", "--calibration", "rows"], ["calibration is a single Tensor", "calibration=[inputs]"]),
        (["shop:trained", "--calibration", "broken"], ["calibration failed on the model: OSError"]),
        (["shop:trained", "--strategy", "sensitivity"], ["objective=, or constraints="]),
        (["shop:trained", "--out", "zoo.py"], ["--out", "is a file"]),
        (["shop:trained", "--maximize", "broken"], ["the metric 'broken' failed: OSError", "is not there"]),
        (["shop:trained", "--strategy", "gradient", "--loss", "quality", "--batches", "rows"], ["quality failed: Ty"]),
        (["shop:trained", "--criterion", "taylor", "--loss", "quality", "--batches", "rows"], ["quality failed: Ty"]),
        ([*SEARCHED, "--strategy", "random", "--seed", "-1"], ["--seed", "greater than or equal to 0"]),
        ([*SEARCHED, "--strategy", "random", "--out", "deep/down", "--maximize", "psnr"], ["shop has no psnr"]),
        ([*SEARCHED, "--strategy", "random", "--storage", "nowhere://x"], ["nowhere"]),
        ([*SEARCHED, "--strategy", "random", "--storage", "."], ["can't be reached"]),
    ],
)  # fmt: skip
def test_bad_input_is_one_line_and_status_2(secateur: CommandLine, arguments: list[str], words: list[str]) -> None:
    assert_one_line(secateur("prune", *arguments), 2, *words)
    assert not Path("pruned").exists()
    assert not Path("deep").exists()


def test_a_metric_that_fails_for_the_dense_model_ends_it_before_the_search(secateur: CommandLine) -> None:
    outcome = secateur("prune", "shop:trained", "--maximize", "broken", "--strategy", "random", "--evaluations", "3")
    reason = "fails for the dense model, so nothing is searched: the metric 'broken' failed: OSError: the simulator is"
    assert_one_line(outcome, 2, reason)
    assert not Path("pruned").exists()


def test_a_metric_that_fails_for_every_candidate_is_an_error_with_its_reason(secateur: CommandLine) -> None:
    with Path("shop.py").open("a", encoding="utf-8") as file:
        file.write("\ndef large(model):\n    if model.encoder[0].out_features < 24: broken(model)\n    return 1.0\n")
    words = ("--maximize", "large", "--strategy", "random", "--evaluations", "3", "--target", "0.8")
    outcome = secateur("prune", "shop:trained", *words)
    assert outcome.status == 2
    assert "measuring failed for every one of 3 candidates" in outcome.err.splitlines()[-1]
    assert "is not there" in outcome.err.splitlines()[-1]


def in_the_way(where: str) -> Path:
    """A file where the result can't be written."""
    path = Path(where)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("mine", encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("obstacle", "options", "words"),
    [
        ("notes", ["--json", "notes/result.json"], ["--json", "notes/result.json can't be written: Not a directory"]),
        ("notes", ["--json", "notes/deep/down.json"], ["--json", "can't be written: Not a directory"]),
        ("notes/a", ["--json", "notes"], ["--json", "'notes' is a directory"]),
        ("notes", ["--json", f"{'n' * 300}.json"], ["--json", "can't be written: File name too long"]),
        ("notes", ["--out", "notes/deep"], ["notes/deep can't be made: "]),
        ("pruned/model", [], ["pruned/model is a file, where the folder of the smaller model goes"]),
        ("pruned/model/notes", [], ["pruned/model holds other files (notes, ...); choose another folder"]),
        ("pruned/result.json/notes", [], ["pruned/result.json is a folder; name a file"]),
    ],
)
def test_what_can_not_be_written_is_refused_before_the_search(
    secateur: CommandLine, obstacle: str, options: list[str], words: list[str]
) -> None:
    path = in_the_way(obstacle)
    assert_one_line(secateur("prune", *SEARCHED, "--strategy", "random", "--evaluations", "3", *options), 2, *words)
    assert calls() == 0
    assert path.read_text(encoding="utf-8") == "mine"
    assert list(Path().rglob(".*")) == list(Path().rglob("search.db")) == []


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="needs a folder in which nobody can make a file")
@pytest.mark.parametrize("option", ["--json", "--out"])
def test_a_folder_that_nobody_can_write_to(secateur: CommandLine, option: str) -> None:
    outcome = secateur("prune", *SEARCHED, "--strategy", "random", "--evaluations", "3", option, "/proc/self/result")
    assert_one_line(outcome, 2, "/proc/self/result can't be")
    assert calls() == 0


def test_every_command_checks_where_its_json_goes(secateur: CommandLine) -> None:
    in_the_way("notes")
    outcome = secateur("inspect", "zoo:with_inputs", "--json", "notes/graph.json")
    assert_one_line(outcome, 2, "--json", "notes/graph.json can't be written: Not a directory")


def test_a_study_of_another_model_is_refused(secateur: CommandLine) -> None:
    words = ("--strategy", "random", "--evaluations", "3", "--storage", "s.db", "--study", "mine")
    assert secateur("prune", *SEARCHED, *words).status == 0
    outcome = secateur("prune", *SEARCHED, *words, "--seed", "4")
    assert outcome.status == 2
    assert "belongs to another search" in outcome.err.splitlines()[-1]


def test_prune_by_whole_heads(secateur: CommandLine) -> None:
    coefficients = []
    for granularity in ("auto", "heads"):
        words = ("--target", "0.45", "--tolerance", "0.1", "--granularity", granularity, "--out", granularity)
        outcome = secateur("prune", "zoo:with_heads", *words)
        assert outcome.status == 0, outcome.err
        coefficients.append(json.loads(Path(granularity, "result.json").read_text(encoding="utf-8"))["coefficients"])
    assert coefficients == [{"q": 0.5, "v": 0.5}, {"q": 0.5}]
    assert_one_line(secateur("prune", "zoo:with_heads", "--granularity", "half"), 2, "auto", "width", "heads")
