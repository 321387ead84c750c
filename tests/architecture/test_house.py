"""The house rules, executable: arrows, lengths, who may print, and no path of one machine."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from fnmatch import fnmatchcase
from pathlib import Path

import pytest
from importlinter.cli import lint_imports

try:
    import tomllib
except ModuleNotFoundError:  # Python 3.10
    import tomli as tomllib

ROOT = Path(__file__).parents[2]
OURS = (ROOT / "practise_deploy", ROOT / "backends" / "practise_backends")
SOURCES = sorted(file for place in OURS for file in place.rglob("*.py"))
MAY_PRINT = {"practise_deploy/cli/app.py"}

MOST_STATEMENTS, MOST_PARAMETERS, MOST_LINES = 30, 6, 450
LONG: set[str] = set()
WIDE: set[str] = set()

Function = ast.FunctionDef | ast.AsyncFunctionDef


def name_of(file: Path) -> str:
    return str(file.relative_to(next(place.parent for place in OURS if place in file.parents)))


def functions() -> Iterator[tuple[str, Function]]:
    for file in SOURCES:
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, Function):
                yield f"{name_of(file)}:{node.name}", node


def statements_of(function: Function) -> int:
    """Its own statements and those within them; its docstring and the lines of nested functions do not count."""
    waiting, count = list(function.body), 0
    while waiting:
        node = waiting.pop()
        is_docstring = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
        count += isinstance(node, ast.stmt) and not is_docstring
        if not isinstance(node, Function | ast.ClassDef):
            waiting += [n for n in ast.iter_child_nodes(node) if isinstance(n, ast.stmt | ast.ExceptHandler)]
    return count


def parameters_of(function: Function) -> int:
    given = function.args
    names = [each.arg for each in (*given.posonlyargs, *given.args, *given.kwonlyargs)]
    return len([name for name in names if name not in ("self", "cls")])


def test_imports_keep_their_contracts(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    monkeypatch.chdir(ROOT)
    code = lint_imports(config_filename=str(ROOT / "pyproject.toml"), cache_dir=None)
    assert code == 0, capsys.readouterr().out


@pytest.mark.parametrize("package", ["practise_deploy", "practise_backends"])
def test_page_of_the_architecture_lists_the_layers_that_the_linter_checks(package: str):
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    contracts = settings["tool"]["importlinter"]["contracts"]
    layers = next(one["layers"] for one in contracts if one.get("containers") == [package])
    page = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    table = page.split(f"<!-- layers of {package} -->")[1].split("<!-- end of layers -->")[0]
    told = [name for row in table.splitlines()[3:] for name in re.findall(r"`(\w+)`", row.split("|")[1])]
    assert told == [name for layer in layers if "(" not in layer for name in layer.split(" | ")]


def test_files_beside_the_code_are_installed_with_it():
    for folder, package in ((ROOT, "practise_deploy"), (ROOT / "backends", "practise_backends")):
        settings = tomllib.loads((folder / "pyproject.toml").read_text(encoding="utf-8"))
        patterns = settings["tool"]["setuptools"]["package-data"][package]
        place = folder / package
        files = [
            file.relative_to(place)
            for file in place.rglob("*")
            if file.is_file() and file.suffix not in (".py", ".pyc")
        ]
        assert files
        assert not [str(file) for file in files if not any(fnmatchcase(str(file), pattern) for pattern in patterns)]


def test_functions_are_short():
    long = {name: n for name, function in functions() if (n := statements_of(function)) > MOST_STATEMENTS}
    assert set(long) == LONG, f"longer than {MOST_STATEMENTS} statements: {long}"


def test_functions_take_few_parameters():
    wide = {name: n for name, function in functions() if (n := parameters_of(function)) > MOST_PARAMETERS}
    assert set(wide) == WIDE, f"more than {MOST_PARAMETERS} parameters: {wide}"


def test_files_are_short():
    long = {name_of(file): n for file in SOURCES if (n := len(file.read_text().splitlines())) >= MOST_LINES}
    assert not long, f"{MOST_LINES} lines or more: {long}"


def test_only_the_command_lines_print():
    printing = {
        name_of(file)
        for file in SOURCES
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print"
    }
    assert printing == MAY_PRINT


def test_no_path_of_one_machine_in_the_tree():
    roots = tuple(f"/{name}/" for name in ("tmp", "work", "root"))
    endings = {".py", ".md", ".toml", ".json", ".yml", ".yaml", ".j2", ".txt", ".cfg", ".sh", ".in", ""}
    found = [
        f"{file.relative_to(ROOT)}:{number}"
        for file in ROOT.rglob("*")
        if file.is_file() and file.suffix in endings and not _is_made(file)
        for number, line in enumerate(file.read_text(encoding="utf-8", errors="ignore").splitlines(), 1)
        if any(root in line for root in roots)
    ]
    assert not found


def _is_made(file: Path) -> bool:
    """Made by a tool, not written by us: caches, environments, runs."""
    made = {"venv", "env", "build", "dist", "runs", "__pycache__"}
    parts = file.relative_to(ROOT).parts
    return any(p in made or p.endswith(".egg-info") or (p[0] == "." and p != ".ci") for p in parts[:-1])
