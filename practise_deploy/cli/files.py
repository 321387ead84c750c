"""The commands over files and finished runs: compare, report, doctor, and bench of a file or run. None needs torch."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from practise_backends.cli.result import put
from practise_backends.flags import option_flags
from practise_backends.options import BenchOptions, CompareOptions, flags_of
from practise_backends.terminal import clean
from practise_deploy.cli.app import JSON, QUIET, Arguments, Parameter, add, options_of, parameters_of
from practise_deploy.errors import InputError
from practise_deploy.settings import Settings, cores, flag_of, read_settings

if TYPE_CHECKING:
    from practise_deploy.outcome import Release

_NETWORKS = (".onnx", ".ort")
_MODEL, _ORIGINAL = "model.onnx", "original.onnx"
_OF_A_FILE = (
    *(flag.name for flag in flags_of(BenchOptions) if flag.name in Settings.model_fields),
    *(flag.name for flag in option_flags()),
)
_QUIET = Parameter("quiet", QUIET, False)


def is_target(name: str | None) -> bool:
    """Whether this names a network's file or a folder, rather than a network to load."""
    if name is None:
        return False
    if name.lower().endswith(_NETWORKS) or os.path.isdir(name):
        return True
    from practise_backends.runtimes.catalog import engine_suffixes

    return name.lower().endswith(tuple(engine_suffixes()))


@dataclass(frozen=True, slots=True)
class OverFiles:
    """A stage's command over files or a finished run instead of a network.

    parameters: its further flags; those of `stays` are the stage's too. run: takes the common flags, the settings
    and the further flags. takes: whether these flags select it.
    """

    target: str
    parameters: Sequence[Parameter]
    run: Callable[[Arguments, Arguments, Arguments], int]
    takes: Callable[[Arguments, Arguments], bool] = lambda common, extra: is_target(common["network"])
    stays: tuple[str, ...] = ()

    def refuse(self, extra: Arguments) -> None:
        """Refuse the further flags if neither a file nor a run was given.

        Raises: InputError.
        """
        flags = [name for name, value in extra.items() if value not in (None, []) and name not in self.stays]
        if flags:
            raise InputError(f"{flag_of(flags[0])} is for a file or a finished run", remedy=f"name {self.target}")


def register() -> None:
    """Every command over files."""
    file, folders = "ONNX file, or a finished run: its model.onnx", "folders of finished builds"
    add(
        "compare",
        "Measure two networks in paired rounds: faster, slower, or cannot tell. Exit code 1 where the requirement "
        "is not met at the lower bound.",
        _compare,
        [
            Parameter("before", Annotated[Path, typer.Argument(help=file)], ...),
            Parameter("after", Annotated[Path | None, typer.Argument(help=f"{file}; left out, A's own model")]),
            *parameters_of(CompareOptions),
            _QUIET,
        ],
    )
    add(
        "report",
        "Render the report of a finished run again, or several runs on one page.",
        _report,
        [
            Parameter("runs", Annotated[list[Path], typer.Argument(help=folders)], ...),
            Parameter("out", Annotated[Path | None, typer.Option("--out", help=_OUT, metavar="FILE.html")]),
            Parameter("json", JSON, False),
            _QUIET,
        ],
    )
    add(
        "doctor",
        "Look at this machine: is anything missing, and can its figures be believed?",
        _doctor,
        [
            Parameter("backend", Annotated[str | None, typer.Option("--backend", help="look at this backend")]),
            Parameter("json", JSON, False),
            _QUIET,
        ],
    )


_OUT = "where the page goes, Markdown beside it (default: report.html in the run; runs.html for several)"


def _compare(arguments: Arguments) -> int:
    from practise_backends.cli.commands import compare_files
    from practise_backends.results.documents import to_json
    from practise_deploy.cli.screen import Screen

    before, after = _pair(arguments["before"], arguments["after"])
    options, screen = options_of(CompareOptions, arguments), Screen(quiet=arguments["quiet"])
    if arguments["after"] is None:
        requested = {name: value for name, value in arguments.items() if value is not None}
        built = _as_built(arguments["before"], requested)
        options = replace(options, **built | {"options": {**built.get("options", {}), **options.options}})
    with screen.progress("Measuring both") as progress:
        comparison, requirement = compare_files(before, after, options, progress)
    if options.json:
        put(to_json(comparison, requirement=requirement))
    else:
        screen.show_comparison(comparison)
        screen.show_requirement(requirement)
    return 0 if requirement.kept else 1


def _pair(first: Path, second: Path | None) -> tuple[Path, Path]:
    """The two networks: a run means its model.onnx; a run alone, its original.onnx against that."""
    if second is not None:
        return _network(first), _network(second)
    if not os.path.isdir(first):
        raise InputError(f"{first} has nothing to be compared with", remedy="name a second file, or a run folder alone")
    return _network(first, _ORIGINAL), _network(first)


def _network(path: Path, name: str = _MODEL) -> Path:
    from practise_deploy.pipeline.results import network_file

    return network_file(path, name)


def _bench(common: Arguments, settings: Arguments, extra: Arguments) -> int:
    """Benchmark a file, or a run's model against its original."""
    from practise_backends.cli.commands import bench_file
    from practise_backends.files import write_file
    from practise_backends.results.documents import to_json
    from practise_deploy.cli.screen import Screen

    _refuse_settings(common, settings)
    target = Path(common["network"])
    options, screen = _bench_options(target, settings, extra), Screen(quiet=common["quiet"])
    with screen.progress(f"Measuring {target}") as progress:
        benchmark = bench_file(_network(target), options, progress)
        if target.is_dir():
            write_file(target / "bench.json", to_json(benchmark))
    if common["json"]:
        put(to_json(benchmark))
    else:
        screen.show_benchmark(benchmark)
    return 0


def _bench_options(target: Path, settings: Arguments, extra: Arguments) -> BenchOptions:
    """The requested options; for a run they default to its build's conditions."""
    options, requested = options_of(BenchOptions, extra), _requested(settings)
    if not target.is_dir():
        return replace(options, **requested)
    built = _as_built(target, requested)
    backend_options = {**built.get("options", {}), **requested.get("options", {})}
    options = replace(options, **built | requested | {"options": backend_options})
    threads = options.thread_counts or tuple(sorted({options.threads, 1, cores()}))
    return replace(options, against=options.against or _network(target, _ORIGINAL), thread_counts=threads)


def _requested(settings: Arguments) -> Arguments:
    """The settings that apply to a file, under the names of `BenchOptions`, validated as for a build.

    Raises: InputError.
    """
    requested = {name: value for name, value in settings.items() if value is not None}
    checked = read_settings(requested)
    values = {name: getattr(checked, name) for name in requested if name in Settings.model_fields}
    return values | ({"options": checked.backend_options} if checked.backend_options else {})


def _as_built(run: Path, requested: Arguments) -> Arguments:
    """The conditions of a finished run that were not requested otherwise; backend options only for the same backend."""
    from practise_deploy.pipeline.results import read_release

    built, kept = read_release(run).bench, run / "settings.json"
    if built is None:
        raise InputError(
            f"{run} holds an engine that was built ahead for another device", remedy="measure it on that device"
        )
    conditions = built.conditions
    defaults: Arguments = {name: getattr(conditions, name) for name in ("batch", "threads", "precision")}
    defaults["backend"] = built.backend
    if requested.get("backend", built.backend) == built.backend:
        defaults |= {"clock": conditions.clock, "cuda_graph": conditions.cuda_graph}
        defaults["options"] = read_settings({}, file=kept).backend_options if kept.is_file() else {}
    return {name: value for name, value in defaults.items() if name == "options" or name not in requested}


def _refuse_settings(common: Arguments, settings: Arguments) -> None:
    """Refuse settings that do not apply to a file, rather than ignore them."""
    flags = [name for name, value in settings.items() if value is not None and name not in _OF_A_FILE]
    flags += [name for name in ("config", "explain", "fresh") if common[name]]
    if flags:
        raise InputError(
            f"{flag_of(flags[0])} says nothing about {common['network']}, which is built already",
            remedy=f"leave it out; a file takes {', '.join(map(flag_of, _OF_A_FILE))}",
        )


def _report(arguments: Arguments) -> int:
    from practise_deploy.report import render_html, render_markdown, render_runs_html, render_runs_markdown
    from practise_deploy.run import write_atomically

    releases = _releases(arguments["runs"])
    if len(releases) == 1:
        (release,) = releases.values()
        page = arguments["out"] or arguments["runs"][0] / "report.html"
        html, markdown = render_html(release), render_markdown(release)
    else:
        page = arguments["out"] or Path("runs.html")
        html, markdown = render_runs_html(releases), render_runs_markdown(releases)
    if page.suffix.lower() not in (".html", ".htm"):
        raise InputError(f"--out {page} is no page", remedy="give a name that ends in .html")
    markdown_file = page.with_suffix(".md")
    write_atomically(page, html)
    write_atomically(markdown_file, markdown)
    if arguments["json"]:
        put(
            json.dumps(
                {"schema": 1, "html": str(page), "markdown": str(markdown_file), "runs": list(releases)}, indent=1
            )
        )
    elif not arguments["quiet"]:
        put(clean(f"{page}\n{markdown_file}"))
    return 0


def _releases(folders: Sequence[Path]) -> dict[str, Release]:
    """Releases by the names of their folders, or by their paths if two names are equal."""
    from practise_deploy.pipeline.results import read_release

    paths = list(dict.fromkeys(folders))
    names = [path.resolve().name for path in paths]
    shown = names if len(set(names)) == len(names) else [str(path) for path in paths]
    return {name: read_release(path) for name, path in zip(shown, paths, strict=True)}


def _doctor(arguments: Arguments) -> int:
    from practise_backends.cli.program import users_variables
    from practise_backends.results.doctor import examine, exit_code, render
    from practise_backends.results.documents import to_json
    from practise_deploy.cli.screen import Screen

    screen = Screen(quiet=arguments["quiet"])
    with screen.progress("Looking at the machine") as progress:
        checkup = examine(arguments["backend"], variables=users_variables(), progress=progress)
    if arguments["json"]:
        put(to_json(checkup))
    elif sys.stdout.isatty():
        screen.show_checkup(checkup)
    elif not arguments["quiet"]:
        put(clean(render(checkup)))
    return exit_code(checkup)


BENCH = OverFiles(
    "FILE.onnx, FILE.ort, FILE.engine, a run folder",
    parameters_of(BenchOptions, without=("json", *_OF_A_FILE, *Settings.model_fields)),
    _bench,
)
