import ast
import importlib.metadata
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PYPROJECT = (ROOT / "pyproject.toml").read_text()
PROJECT = tomllib.loads(PYPROJECT)["project"]
REQUIREMENTS: list[str] = [*PROJECT["dependencies"], *PROJECT["optional-dependencies"]["dev"]]


@pytest.mark.parametrize("requirement", REQUIREMENTS)
def test_every_dependency_has_its_reason_beside_it(requirement: str) -> None:
    (line,) = [line for line in PYPROJECT.splitlines() if line.strip().startswith(f'"{requirement}",')]
    assert re.search(r'",  # \w.{10,}', line), f"{line.strip()} needs a comment that says what it is for"


def test_the_installed_package_is_this_one() -> None:
    assert importlib.metadata.version("sgmg") == PROJECT["version"], "run `make setup` again"


def imported_packages(folder: Path) -> Iterator[tuple[str, Path]]:
    for path in folder.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                yield from ((alias.name.split(".")[0], path) for alias in node.names)
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                yield node.module.split(".")[0], path


def names_of(requirements: Sequence[str]) -> set[str]:
    """Names of the distributions that are required."""
    return {re.split(r"[\[<>=!~; ]", one)[0].lower().replace("_", "-") for one in requirements}


@pytest.mark.parametrize("package", ["sgmg", "pipelines", "jobs"])
def test_whatever_is_imported_is_a_declared_dependency(package: str) -> None:
    declared = names_of(PROJECT["dependencies"])
    of_service = declared | names_of(PROJECT["optional-dependencies"]["serve"])
    distributions = importlib.metadata.packages_distributions()
    ours = {"sgmg", "pipelines", "jobs"} | sys.stdlib_module_names
    ours |= {"triton"}  # comes with the builds of torch for GPUs, which are what it is imported for
    undeclared = {
        f"{name} in {path.relative_to(ROOT)}"
        for name, path in imported_packages(ROOT / package)
        if name not in ours
        and not (of_service if "serve" in path.parts else declared)
        & {found.lower().replace("_", "-") for found in distributions.get(name, [])}
    }
    assert not undeclared, "declare them in pyproject.toml, with their reason"


def docstrings(package: str) -> Iterator[tuple[str, bool, str]]:
    """Where each docstring of a package stands, whether it is that of a function to call, and its first word."""
    for path in (ROOT / package).rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef):
                continue
            if text := ast.get_docstring(node):
                line = 1 if isinstance(node, ast.Module) else node.lineno
                called = isinstance(node, ast.FunctionDef) and not any(
                    "property" in ast.unparse(decorator) for decorator in node.decorator_list
                )
                yield f"{path.relative_to(ROOT)}:{line}", called, text.split()[0].strip(".,:;")


@pytest.mark.parametrize("package", ["sgmg", "pipelines", "jobs"])
def test_docstrings_begin_with_a_verb_for_functions_and_with_a_noun_for_the_rest(package: str) -> None:
    riddles = {"What", "Who", "Whose", "Where", "When", "How", "Which", "That", "It", "They", "This", "There", "Its"}
    odd = [
        f"{place}: {word}"
        for place, called, word in docstrings(package)
        if (not re.fullmatch(r"[A-Z][a-z-]*s", word) if called else word in riddles) or word in {"This", "Its"}
    ]
    assert not odd, "write `Returns …`, `Writes …` for functions, and a noun for classes, modules and properties"


@pytest.mark.parametrize(("package", "most"), [("pipelines", 10), ("jobs", 12)])
def test_a_package_is_no_flat_drawer_of_modules(package: str, most: int) -> None:
    modules = {path.stem for path in (ROOT / package).glob("*.py")} - {"__init__"}
    assert len(modules) <= most, "what belongs together has a package of its own"


@pytest.mark.parametrize("target", ["setup", "demo", "test", "check", "bench", "ui"])
def test_every_promised_make_target_can_be_made(target: str) -> None:
    made = subprocess.run(["make", "--dry-run", target], cwd=ROOT, capture_output=True, text=True, check=False)
    assert made.returncode == 0, made.stderr


def test_make_says_what_to_do_when_python_is_too_old(tmp_path: Path) -> None:
    old = tmp_path / "python3"
    old.write_text('#!/bin/sh\n[ "$1" = --version ] && echo "Python 3.9.1"\nexit 1\n')
    old.chmod(0o755)
    command = ["make", "--always-make", "setup", f"PYTHON={old}"]
    made = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert made.returncode != 0
    assert "is Python 3.9.1, but sgmg needs Python 3.11 or later" in made.stdout


@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="not a clone: only git can tell what .gitignore covers")
@pytest.mark.parametrize("path", [".venv/bin/python", "data/a.zip", "runs/mlflow.db", "outputs/x", "a.pth"])
def test_what_is_large_or_made_by_a_run_stays_out_of_git_and_of_submitted_jobs(path: str) -> None:
    ignored = subprocess.run(["git", "check-ignore", "--quiet", "--no-index", path], cwd=ROOT, check=False)
    assert ignored.returncode == 0
