"""Imports go only downwards through the layers, and the operator rules never see a module class."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

SOURCE = Path(__file__).parent.parent / "src" / "secateur"

# Lowest first. A module may import from its own layer and from those before it.
LAYERS = (
    "secateur.errors",
    "secateur.extras",
    "secateur.latency",
    "secateur.graph",
    "secateur.calibration",
    "secateur.importance",
    "secateur.plan",
    "secateur.surgery",
    "secateur.recovery",
    "secateur.masking",
    "secateur.verify",
    "secateur.metrics",
    "secateur.allocation",
    "secateur.io",
    "secateur.report",
    "secateur.api",
    "secateur.tradeoff",
    "secateur",  # the public names, gathered
    "secateur.experiments",
    "secateur.cli",
    "secateur.__main__",
)


def module_name(path: Path, root: Path) -> str:
    parts = path.relative_to(root.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def layer_of(module: str) -> int:
    top = ".".join(module.split(".")[:2])
    if top not in LAYERS:
        raise AssertionError(f"{module} is in no layer; add {top} to LAYERS")
    return LAYERS.index(top)


def imported_names(path: Path, module: str) -> Iterator[tuple[int, str]]:
    """Line and dotted name of every import in a file, relative ones resolved, wherever it stands."""
    package = module if path.stem == "__init__" else module.rpartition(".")[0]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = ".".join(package.split(".")[: len(package.split(".")) - node.level + 1]) if node.level else ""
            source = ".".join(filter(None, (base, node.module)))
            yield from ((node.lineno, f"{source}.{alias.name}") for alias in node.names)


def resolve(name: str, modules: set[str]) -> str | None:
    """The longest prefix of an imported name that is a module of the package."""
    while name and name not in modules:
        name = name.rpartition(".")[0]
    return name or None


def violations(root: Path) -> list[str]:
    paths = {module_name(path, root): path for path in sorted(root.rglob("*.py"))}
    found = []
    for module, path in paths.items():
        for line, name in imported_names(path, module):
            target = resolve(name, set(paths))
            if target is not None and layer_of(target) > layer_of(module):
                found.append(f"{path.relative_to(root)}:{line} ({module}) imports {target}, which is above it")
    return found


def module_class_imports(root: Path) -> list[str]:
    """Imports of ``torch.nn`` and its children, but for its functions, in the files under ``root``."""
    return [
        f"{path.relative_to(root)}:{line} imports {name}"
        for path in sorted(root.rglob("*.py"))
        for line, name in imported_names(path, "rules")
        if name.startswith("torch.nn") and not name.startswith("torch.nn.functional")
    ]


def test_imports_go_down() -> None:
    assert violations(SOURCE) == []


def test_rules_see_no_modules() -> None:
    assert list((SOURCE / "graph" / "rules").glob("*.py"))
    assert module_class_imports(SOURCE / "graph" / "rules") == []


@pytest.mark.parametrize(
    ("file", "text", "target"),
    [
        ("errors.py", "import secateur.plan", "secateur.plan"),
        ("plan.py", "from secateur.api import prune", "secateur.api"),
        ("plan.py", "from secateur import api", "secateur.api"),
        ("plan.py", "from secateur import prune", "secateur"),
        ("graph/deep/labels.py", "from ...plan import plan", "secateur.plan"),
        ("graph/__init__.py", "from ..plan import plan", "secateur.plan"),
        ("graph/tracer.py", "def f():\n    from secateur.api import prune", "secateur.api"),
    ],
)
def test_the_walk_catches_an_upward_import(tmp_path: Path, file: str, text: str, target: str) -> None:
    root = small_package(tmp_path)
    (root / file).write_text(text, encoding="utf-8")
    (found,) = violations(root)
    assert f"imports {target}, which is above it" in found
    assert found.startswith(file)


def test_the_walk_lets_downward_imports_pass(tmp_path: Path) -> None:
    root = small_package(tmp_path)
    (root / "api.py").write_text("import torch\nfrom secateur.plan import plan\nfrom . import errors", encoding="utf-8")
    (root / "graph" / "deep" / "labels.py").write_text("from ..tracer import trace", encoding="utf-8")
    assert violations(root) == []


def test_the_walk_wants_every_file_in_a_layer(tmp_path: Path) -> None:
    root = small_package(tmp_path)
    (root / "helpers.py").write_text("import secateur.plan", encoding="utf-8")
    with pytest.raises(AssertionError, match=r"secateur\.helpers is in no layer"):
        violations(root)


def small_package(tmp_path: Path) -> Path:
    root = tmp_path / "secateur"
    (root / "graph" / "deep").mkdir(parents=True)
    for file in ("__init__", "errors", "plan", "api", "graph/__init__", "graph/tracer", "graph/deep/__init__"):
        (root / f"{file}.py").write_text("", encoding="utf-8")
    return root
