from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from secateur import cli
from tests.cli.outcome import CommandLine, Outcome

MODELS = """
import warnings
from torch import nn
import torch

class Pair(nn.Module):
    def __init__(self):
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(8, 6), nn.ReLU(), nn.Linear(6, 4))
        self.decoder = nn.Linear(4, 8)

    def forward(self, x):
        return self.decoder(self.encoder(x))

class Tokens(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed, self.head = nn.Embedding(10, 4), nn.Linear(4, 2)

    def forward(self, tokens):
        return self.head(self.embed(tokens))

class Heads(nn.Module):
    def __init__(self):
        super().__init__()
        self.heads = 2
        self.q, self.k, self.v, self.out = nn.Linear(8, 8), nn.Linear(8, 8), nn.Linear(8, 8), nn.Linear(8, 3)

    def forward(self, x):
        q, k, v = (part(x).unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in (self.q, self.k, self.v))
        return self.out(((q @ k.mT).softmax(-1) @ v).transpose(1, 2).flatten(2))

class Factories:
    @staticmethod
    def nested():
        return Pair()

model = Pair()
number = 7

def with_inputs(): return Pair(), torch.zeros(1, 8)
def with_named_inputs(): return Pair(), {"x": torch.zeros(1, 8)}
def with_heads(): return Heads(), torch.zeros(1, 5, 8)
def with_run(): return Pair(), rollout
def rollout(model): return model.decoder(torch.relu(model.encoder(torch.zeros(2, 8))))
def broken(): raise OSError("the weights are\\nnot here")
def no_model(): return 3
"""

SHOP = """
from pathlib import Path
import torch
from torch import nn

spread = torch.diag(torch.tensor([3, 2, 2, 1, 1, 1, 0.3, 0.1]))
rows = torch.randn(96, 8, generator=torch.Generator().manual_seed(1)) @ spread
inputs = [rows[:48], rows[48:]]

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(8, 24), nn.ReLU(), nn.Linear(24, 12))
        self.decoder = nn.Sequential(nn.ReLU(), nn.Linear(12, 24), nn.ReLU(), nn.Linear(24, 8))

    def forward(self, x):
        return self.decoder(self.encoder(x))

def trained():
    model = Net()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
    for _ in range(60):
        optimizer.zero_grad()
        error(model).backward()
        optimizer.step()
    return model, rows[:1]

def error(model): return ((model(rows) - rows) ** 2).mean()
def exercise(model): return model(rows)
def make_inputs(): return inputs
def loss(model, batch): return ((model(batch) - batch) ** 2).mean()

def quality(model):
    with Path("calls").open("a") as calls:
        calls.write("x")
    if Path("stop").exists() and Path("calls").stat().st_size > int(Path("stop").read_text()):
        raise KeyboardInterrupt
    with torch.no_grad():
        return -error(model)

def not_a_number(model): return float("nan")
def nothing(model): return None
def broken(model): raise OSError("the simulator\\nis not there")
"""


@pytest.fixture
def secateur(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[CommandLine]:
    """The command line, run in this process and in an empty folder with two modules of models: ``zoo``, and
    ``shop`` with a trained one, its metrics and its data."""
    (tmp_path / "zoo.py").write_text(MODELS, encoding="utf-8")
    (tmp_path / "shop.py").write_text(SHOP, encoding="utf-8")
    (tmp_path / "broken_zoo.py").write_text("import not_installed_anywhere", encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.delenv("SECATEUR_DATA", raising=False)
    monkeypatch.setattr(sys, "path", list(sys.path))

    def call(*arguments: str) -> Outcome:
        with pytest.raises(SystemExit) as ended:
            cli.main(arguments)
        captured = capsys.readouterr()
        assert isinstance(ended.value.code, int)
        return Outcome(ended.value.code, captured.out, captured.err)

    yield call
    for module in ("zoo", "shop"):
        sys.modules.pop(module, None)
