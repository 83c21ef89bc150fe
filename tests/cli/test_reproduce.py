from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.cli.outcome import CommandLine, assert_one_line

QUICK = ("--seeds", "2", "--epochs", "2", "--sparsity", "0.4", "--method", "norm", "--method", "torch-l2")


def test_reproduce_writes_tables_figures_and_data(secateur: CommandLine) -> None:
    outcome = secateur("reproduce", "mnist-autoencoder", *QUICK, "--latent", "linear", "--json", "copy.json")
    assert outcome.status == 0, outcome.err
    assert "Autoencoder with a linear latent layer on digits" in outcome.out
    assert "PSNR, dB, with refit and 1 epoch of fine-tuning" in " ".join(outcome.out.split())
    assert "PyTorch, L2" in outcome.out
    out = Path("secateur-reproduce")
    for name in ("results.md", "results.json", "psnr-with-refit.png", "reconstructions-without-refit.png"):
        assert (out / name).stat().st_size > 1000
    data = json.loads(Path("copy.json").read_text(encoding="utf-8"))
    assert data == json.loads((out / "results.json").read_text(encoding="utf-8"))
    assert len(data["records"]) == 2 * 2 * 2
    assert set(data["dense"]) == {"0", "1"}
    assert "train, seed 1" in outcome.err
    assert "runs" in outcome.err


def test_a_second_time_trains_and_runs_nothing(secateur: CommandLine) -> None:
    words = ("reproduce", "mnist-autoencoder", *QUICK, "--fine-tune", "0", "--out", "kept")
    first = secateur(*words)
    again = secateur(*words)
    assert again.status == 0
    assert again.out == first.out
    assert "train" not in again.err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["cartpole"], ["cartpole", "mnist-autoencoder"]),
        ([], ["EXPERIMENT"]),
        (["mnist-autoencoder", "--sparsity", "1.2"], ["--sparsity must lie between 0 and 1; it is 1.2"]),
        (["mnist-autoencoder", "--method", "best"], ["--method 'best' is none of", "uniform", "gradient"]),
        (["mnist-autoencoder", "--drop", "nan"], ["--drop must be a finite number of dB; it is nan"]),
        (["mnist-autoencoder", "--seeds", "0"], ["--seeds"]),
        (["mnist-autoencoder", "--latent", "tanh"], ["tanh", "relu"]),
        (["mnist-autoencoder", "--data", "nowhere"], ["idx3-ubyte.gz can't be read from nowhere"]),
        (["mnist-autoencoder", "--out", "zoo.py"], ["--out", "is a file"]),
    ],
)
def test_bad_input_is_one_line_and_status_2(secateur: CommandLine, arguments: list[str], words: list[str]) -> None:
    assert_one_line(secateur("reproduce", *arguments), 2, *words)
