"""Every error that is raised says what it is about and what to do; every option that is named anywhere exists."""

from __future__ import annotations

import argparse
import ast
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import typer

from architecture.test_house import ROOT, SOURCES, Function, name_of
from practise_backends import errors as backend_errors
from practise_backends.cli import _parser
from practise_backends.errors import Refusal
from practise_deploy import cli, errors

OURS = {
    name
    for module in (errors, backend_errors)
    for name, one in vars(module).items()
    if isinstance(one, type) and issubclass(one, Refusal)
}
OF_MEMORY = "OutOfMemory"
"""Is about the memory of this machine, and says so itself."""
OF_OPTIONS = {"BadParameter", "ArgumentTypeError"}
"""Are told by typer and argparse, which put the option before the message and the way to its help behind it."""
BARE = {"ValueError", "TypeError", "RuntimeError", "KeyError", "IndexError", "AttributeError", "Exception"}
ASKED_FOR = {"__getattr__", "__getitem__"}
"""Python itself wants a bare error of these where there is no such thing."""
OPTION = re.compile(r"(?<![\w-])--[a-z][a-z0-9-]*[a-z0-9](?![\w-])")


@dataclass(frozen=True)
class Source:
    """One file of ours."""

    path: Path

    @cached_property
    def tree(self) -> ast.Module:
        tree = ast.parse(self.path.read_text(encoding="utf-8"))
        for node in ast.walk(tree):
            for child in ast.iter_child_nodes(node):
                child.parent = node  # type: ignore[attr-defined]
        return tree

    @property
    def module(self) -> str:
        return name_of(self.path).removesuffix(".py").removesuffix("/__init__").replace("/", ".")

    def where(self, node: ast.AST) -> str:
        return f"{name_of(self.path)}:{getattr(node, 'lineno', 0)}"


FILES = [Source(path) for path in SOURCES]


def above(node: ast.AST) -> Iterator[ast.AST]:
    while node := getattr(node, "parent", None):  # type: ignore[assignment]
        yield node


def function_of(node: ast.AST) -> Function | None:
    return next((each for each in above(node) if isinstance(each, Function)), None)


def called(node: ast.AST) -> str:
    """The last name of what a call calls."""
    function = node.func if isinstance(node, ast.Call) else None
    return getattr(function, "id", None) or getattr(function, "attr", "")


def meanings(source: Source, text: ast.expr, depth: int = 0) -> Iterator[ast.expr]:
    """What an expression may be: names are looked up where they are given their values, calls in what they return."""
    if isinstance(text, ast.IfExp):
        yield from meanings(source, text.body, depth)
        yield from meanings(source, text.orelse, depth)
    elif isinstance(text, (ast.Name, ast.Call)) and depth < 4 and (found := list(_behind(source, text))):
        for each in found:
            yield from meanings(source, each, depth + 1)
    else:
        yield text


def _behind(source: Source, text: ast.Name | ast.Call) -> Iterator[ast.expr]:
    if isinstance(text, ast.Call):
        for function in ast.walk(source.tree):
            if isinstance(function, Function) and function.name == called(text):
                yield from (
                    node.value
                    for node in ast.walk(function)
                    if isinstance(node, ast.Return) and node.value is not None and function_of(node) is function
                )
        return
    for scope in (function_of(text), source.tree):
        found = list(_values(scope, text)) if scope is not None else []
        if found:
            yield from found
            return


def _values(scope: ast.AST, name: ast.Name) -> Iterator[ast.expr]:
    """What a scope gives a name; of a parameter, what the file's own calls pass."""
    for node in ast.walk(scope):
        if (isinstance(node, ast.Assign) and any(ast.unparse(each) == name.id for each in node.targets)) or (
            isinstance(node, ast.NamedExpr) and node.target.id == name.id
        ):
            yield node.value


def says_something(text: ast.expr) -> bool:
    """Whether a text, as far as it can be told, is not empty."""
    if isinstance(text, ast.Constant):
        return isinstance(text.value, str) and bool(text.value.strip())
    return True


def names_a_thing(text: ast.expr) -> bool:
    """Whether a message holds a value (a path, a network, a field) or names an option."""
    if isinstance(text, ast.BinOp):
        return names_a_thing(text.left) or names_a_thing(text.right)
    if isinstance(text, ast.JoinedStr):
        return any(isinstance(part, ast.FormattedValue) for part in text.values) or bool(
            OPTION.search(ast.unparse(text))
        )
    if isinstance(text, ast.Constant):
        return bool(OPTION.search(str(text.value)))
    return not isinstance(text, ast.Name) or text.id not in {"self"}


def refusals() -> Iterator[tuple[Source, ast.Call]]:
    """Every making of an error of ours, raised there or given to who raises it."""
    for source in FILES:
        for node in ast.walk(source.tree):
            if isinstance(node, ast.Call) and called(node) in OURS - {OF_MEMORY}:
                yield source, node


def test_the_refusals_are_found():
    assert len(list(refusals())) > 200


def test_every_refusal_names_what_it_is_about():
    silent = [
        f"{source.where(call)}: {ast.unparse(text)}"
        for source, call in refusals()
        for given in call.args[:1]
        for text in meanings(source, given)
        if not names_a_thing(text)
    ]
    assert not silent, "\n".join(silent)


def test_every_refusal_has_a_remedy():
    """That one is given at all, mypy and Python see to."""
    empty = [
        source.where(call)
        for source, call in refusals()
        for keyword in call.keywords
        if keyword.arg == "remedy"
        for text in meanings(source, keyword.value)
        if not says_something(text)
    ]
    assert not empty, "\n".join(empty)


# Bare errors are for our own functions: somebody above catches each and says where it was.


@dataclass(frozen=True)
class Place:
    """A function by its module and name."""

    module: str
    name: str


def catches(node: ast.AST) -> bool:
    """Whether bare errors that come from here are caught in the same function."""
    inner = node
    for each in above(node):
        if isinstance(each, Function | ast.Lambda):
            return False
        if isinstance(each, ast.Try) and any(inner is one for one in each.body):
            kinds = " ".join(ast.unparse(one.type) if one.type else "Exception" for one in each.handlers)
            if re.search(r"\b(Exception|ValueError|UNREADABLE)\b", kinds):
                return True
        inner = each
    return False


def own_functions(source: Source) -> dict[str, Place]:
    """The functions and methods of a file, by name."""
    return {node.name: Place(source.module, node.name) for node in ast.walk(source.tree) if isinstance(node, Function)}


def imported(source: Source) -> dict[str, Place]:
    """What a file takes from others of ours, by the names that it has for it; modules too."""
    return {
        one.asname or one.name: Place(str(node.module), one.name)
        for node in ast.walk(source.tree)
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("practise_")
        for one in node.names
    }


def methods() -> dict[str, Place]:
    """Methods by their names, where one class of ours alone has one of that name, and no file or text has."""
    found = [
        (node.name, Place(source.module, node.name))
        for source in FILES
        for node in ast.walk(source.tree)
        if isinstance(node, Function) and isinstance(getattr(node, "parent", None), ast.ClassDef)
    ]
    count = Counter(name for name, _ in found)
    foreign = {name for kind in (str, bytes, dict, list, set, Path) for name in dir(kind)}
    return {name: place for name, place in found if count[name] == 1 and name not in foreign}


def uses() -> Iterator[tuple[Place, Place, bool, str]]:
    """Who uses which function, called or handed on, inside a function; whether bare errors are caught there; and where."""
    anywhere = methods()
    for source in FILES:
        own, others = own_functions(source), imported(source)
        for node in ast.walk(source.tree):
            used = None
            if isinstance(node, ast.Name):
                used = own.get(node.id) or others.get(node.id)
            elif isinstance(node, ast.Attribute):
                of = others.get(node.value.id) if isinstance(node.value, ast.Name) else None
                used = (
                    Place(f"{of.module}.{of.name}", node.attr) if of else own.get(node.attr) or anywhere.get(node.attr)
                )
            if used and (user := function_of(node)) is not None:
                yield Place(source.module, user.name), used, catches(node), source.where(node)


def left_by_bare_errors() -> dict[Place, str]:
    """The functions that such an error may leave, where from, and that no function of ours uses."""
    found = {
        Place(source.module, function.name): source.where(node)
        for source in FILES
        for node in ast.walk(source.tree)
        if isinstance(node, ast.Raise) and node.exc is not None and called(node.exc) in BARE and not catches(node)
        if (function := function_of(node)) is not None
        if function.name not in ASKED_FOR
    }
    assert found
    everyone = list(uses())
    while more := {
        user: where for user, used, caught, where in everyone if used in found and not caught and user not in found
    }:
        found |= more
    used_by_us = {used for user, used, _, _ in everyone if user != used}
    return {place: where for place, where in found.items() if place not in used_by_us}


def read_by_pydantic() -> set[Place]:
    """The validators of settings, whose errors `read_settings` turns into ours."""
    return {
        Place(source.module, node.name)
        for source in FILES
        for node in ast.walk(source.tree)
        if isinstance(node, Function) and any("_validator(" in ast.unparse(each) for each in node.decorator_list)
    }


def test_bare_errors_are_caught_before_a_command_ends():
    """Readers of options give theirs to typer and argparse, validators to pydantic; all others end within our functions."""
    left = {
        place: where
        for place, where in left_by_bare_errors().items()
        if place.module not in ("practise_backends.options", "practise_backends.flags")
        and place not in read_by_pydantic()
    }
    assert not left


# Options that are named exist.


def options() -> set[str]:
    """Every option of both programs."""
    known = set[str]()
    group = typer.main.get_command(cli.app)
    for command in (group, *group.commands.values()):  # type: ignore[attr-defined]
        known |= {name for one in command.params for name in (*one.opts, *one.secondary_opts)} | {"--help"}
    waiting = [_parser()]
    while waiting:
        for action in waiting.pop()._actions:
            known |= set(action.option_strings)
            if isinstance(action, argparse._SubParsersAction):
                waiting += action.choices.values()
    return known


OF_OTHERS = {
    "docker": (
        "--build-arg",
        "--cpus",
        "--device",
        "--entrypoint",
        "--gpus",
        "--rm",
        "--runtime",
        "--target",
        "--user",
    ),
    "podman": ("--userns",),
    "pip": ("--no-deps",),
    "venv": ("--system-site-packages",),
    "nvidia-smi": ("--lock-gpu-clocks", "--persistence-mode"),
    "cpupower": ("--max",),
    "benchmarks/reliability": ("--only",),
    "benchmarks/reproduce": ("--busy", "--grid", "--images", "--paper-steps", "--steps", "--wheels"),
}
"""Options of other programs that messages and pages name."""
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "backends" / "README.md", *(ROOT / "docs").glob("*.md")]
COMMAND = re.compile(r"\b(practise-deploy|practise-measure) ([a-z]+)\b")


def texts() -> Iterator[tuple[str, str]]:
    """Every text of ours that people read, and where it is."""
    for source in FILES:
        for node in ast.walk(source.tree):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                yield source.where(node), node.value
    for page in PAGES:
        for number, line in enumerate(page.read_text(encoding="utf-8").splitlines(), 1):
            yield f"{page.name}:{number}", line


def test_every_option_that_is_named_exists():
    known = options() | {option for each in OF_OTHERS.values() for option in each}
    strangers = {
        f"{where}: {option}" for where, text in texts() for option in OPTION.findall(text) if option not in known
    }
    assert not strangers


def test_no_option_of_another_program_hides_one_of_ours():
    assert not options() & {option for each in OF_OTHERS.values() for option in each}


def test_every_command_that_a_remedy_names_exists():
    parser = next(one for one in _parser()._actions if isinstance(one, argparse._SubParsersAction))
    group = typer.main.get_command(cli.app)
    known = {"practise-deploy": set(group.commands), "practise-measure": {*parser.choices, "kit"}}  # type: ignore[attr-defined]
    named = [
        (source.where(call), program, command)
        for source, call in refusals()
        for keyword in call.keywords
        for text in meanings(source, keyword.value)
        for part in ast.walk(text)
        if isinstance(part, ast.Constant)
        for program, command in COMMAND.findall(str(part.value))
    ]
    assert named
    assert not [f"{where}: {program} {command}" for where, program, command in named if command not in known[program]]
