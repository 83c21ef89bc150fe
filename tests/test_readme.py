"""What README and the contributors' pages show is true: the Python runs, the commands run, the make targets exist."""

from __future__ import annotations

import re
import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from secateur import cli
from secateur.experiments import images
from secateur.graph.own_sizes import REGISTERED
from secateur.graph.rules import RULES

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
README = PAGES[0].read_text(encoding="utf-8")


def blocks(text: str, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", text, flags=re.DOTALL)


def commands(program: str) -> list[list[str]]:
    lines = [line for block in blocks(README, "sh") for line in block.splitlines()]
    words = [shlex.split(line, comments=True) for line in lines]
    return [w for w in words if w and w[0] == program]


@pytest.fixture
def own_rules() -> Iterator[None]:
    """Take back the operator rules, and the modules that keep their sizes, that a page registers."""
    before = [(table, dict(table)) for table in (RULES, REGISTERED)]
    yield
    for table, entries in before:
        table.clear()
        table.update(entries)  # type: ignore[arg-type]


def test_there_is_something_to_run() -> None:
    assert blocks(README, "python")
    assert commands("make")
    assert commands("secateur")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
@pytest.mark.usefixtures("own_rules")
def test_the_python_blocks_run_one_after_the_other(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    namespace: dict[str, object] = {"__name__": page.stem}
    for block in blocks(page.read_text(encoding="utf-8"), "python"):
        exec(compile(block, page.name, "exec", dont_inherit=True), namespace)


@pytest.mark.parametrize("words", commands("make"), ids=" ".join)
def test_make_targets_exist(words: list[str]) -> None:
    done = subprocess.run([*words, "--dry-run"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("words", commands("secateur"), ids=" ".join)
def test_commands_run(words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "agent.py").write_text(blocks(README, "python")[0], encoding="utf-8")
    # Some noise in place of MNIST: no download here, and no minute of training.
    noise = images.Images("mnist", torch.rand(600, 784), torch.rand(20, 784), (28, 28))
    monkeypatch.setattr(images, "download_mnist", lambda _folder, *, on_file: on_file("all"))
    monkeypatch.setattr(images, "load_mnist", lambda _folder: noise)
    with pytest.raises(SystemExit) as ended:
        cli.main(words[1:])
    assert ended.value.code == 0


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_and_named_files_exist(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    links = [page.parent / link for link in re.findall(r"\]\((?!https?:)([^)#]+)\)", text)]
    named = [ROOT / name for name in re.findall(r"`((?:src|tests|docs|benchmarks)/[^`\s]*)`", text)]
    assert [str(path) for path in links + named if not path.exists()] == []
