"""The image cannot be built in CI: it is read instruction by instruction, and its pins are those of pyproject.toml."""

import importlib.util
import re
import tomllib
from fnmatch import fnmatch
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
TEXT = (ROOT / "cluster/Dockerfile").read_text(encoding="utf-8")
KNOWN = {"FROM", "ARG", "ENV", "RUN", "USER", "WORKDIR", "COPY", "CMD"}


def instructions(text: str) -> list[tuple[str, str]]:
    """Word and rest of every instruction, continued lines joined.

    Raises:
        ValueError: a line starts with no instruction.
    """
    lines = [line for line in text.splitlines() if not re.match(r"\s*(#|$)", line)]
    found = []
    for line in re.sub(r"\\\n\s*", "", "\n".join(lines)).splitlines():
        word, _, rest = line.partition(" ")
        if word not in KNOWN or not rest.strip():
            raise ValueError(f"{line!r} is no instruction")
        found.append((word, rest.strip()))
    return found


def filled(text: str, arguments: dict[str, str]) -> str:
    return re.sub(r"\$\{(\w+)\}", lambda match: arguments[match[1]], text)


INSTRUCTIONS = instructions(TEXT)
FIRST = next(place for place, (word, _) in enumerate(INSTRUCTIONS) if word == "FROM")
GLOBAL = dict(rest.split("=", 1) for _, rest in INSTRUCTIONS[:FIRST])


def stages() -> dict[str, tuple[str, list[tuple[str, str]]]]:
    """Base and instructions of every stage, by name."""
    found: dict[str, tuple[str, list[tuple[str, str]]]] = {}
    name = ""
    for word, rest in INSTRUCTIONS[FIRST:]:
        if word == "FROM":
            base, name = rest.split(" AS ")
            found[name] = (base, [])
        else:
            found[name][1].append((word, rest))
    return found


STAGES = stages()


def test_before_the_first_stage_there_are_only_arguments_with_defaults() -> None:
    assert {word for word, _ in INSTRUCTIONS[:FIRST]} == {"ARG"}
    assert GLOBAL["DEVICE"] == "cpu"


def test_a_line_that_is_no_instruction_is_found() -> None:
    with pytest.raises(ValueError, match="RUNN"):
        instructions(TEXT.replace("\nRUN ", "\nRUNN ", 1))


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_the_device_picks_a_stage_of_one_ray_and_python(device: str) -> None:
    picked = filled(STAGES["sgmg"][0], {**GLOBAL, "DEVICE": device})
    assert picked in STAGES
    base = filled(STAGES[picked][0], GLOBAL)
    (pin,) = [line for line in PROJECT["dependencies"] if line.startswith("ray[")]
    release = re.escape(pin.partition("==")[2].removesuffix("*")) + r"\d+"
    python = re.sub(r"[^\d.]", "", PROJECT["requires-python"])
    kind = {"cpu": "cpu", "cuda": "gpu"}[device]
    assert re.fullmatch(rf"rayproject/ray:{release}-py{python.replace('.', '')}-{kind}", base)
    assert python == GLOBAL["PYTHON_VERSION"]


def test_another_device_has_no_stage() -> None:
    assert filled(STAGES["sgmg"][0], {**GLOBAL, "DEVICE": "tpu"}) not in STAGES
    assert {name for name in STAGES if name.startswith("base-")} == {"base-cpu", "base-cuda"}


@pytest.mark.parametrize("stage", STAGES)
def test_what_is_pinned_is_pinned_as_in_pyproject(stage: str) -> None:
    runs = " ".join(rest for word, rest in STAGES[stage][1] if word == "RUN")
    pinned = re.findall(r'"([\w-]+(?:==|>=)[^"]+)"', runs)
    assert set(pinned) <= set(PROJECT["dependencies"])
    named = {re.split("[=<>]", pin)[0] for pin in pinned}
    assert named == {"mlflow": {"mlflow"}, "sgmg": set()}.get(stage, {"torch", "torchvision"})


def test_the_rest_is_installed_by_pyproject_with_what_the_service_needs() -> None:
    runs = [rest for word, rest in STAGES["sgmg"][1] if word == "RUN"]
    assert 'pip install --no-cache-dir --editable ".[serve]"' in runs
    assert "serve" in PROJECT["optional-dependencies"]


def test_an_image_in_which_a_job_or_the_service_cannot_start_is_not_made() -> None:
    (check,) = [rest for word, rest in STAGES["sgmg"][1] if word == "RUN" and rest.startswith("python -c ")]
    imported, _, condition = check.removeprefix('python -c "import ').partition(";")
    assert {"pipelines.serve.application", "jobs.impl.serve", "jobs.impl.predict"} <= set(imported.split(", "))
    assert all(importlib.util.find_spec(name) for name in imported.split(", "))
    compile(f"import {imported};{condition.removesuffix(chr(34))}", "Dockerfile", "exec")


@pytest.mark.parametrize("stage", ["mlflow", "sgmg"])
def test_an_image_that_runs_is_not_root(stage: str) -> None:
    users = [rest for word, rest in STAGES[stage][1] if word == "USER"]
    assert users == ["1000"]


def test_the_jobs_lie_where_the_cluster_files_call_them() -> None:
    assert ("WORKDIR", "/home/ray/sgmg") in STAGES["sgmg"][1]
    copied = [rest.split()[1:] for word, rest in STAGES["sgmg"][1] if word == "COPY"]
    assert copied[1:] == [["sgmg", "sgmg"], ["pipelines", "pipelines"], ["jobs", "jobs"]]
    assert all((ROOT / name).exists() for names in copied for name in names[:-1])


def test_the_build_sees_what_it_copies_and_nothing_else() -> None:
    rules = (ROOT / "cluster/Dockerfile.dockerignore").read_text(encoding="utf-8").splitlines()
    rules = [rule for rule in rules if rule and not rule.startswith("#")]

    def seen(name: str) -> bool:
        hidden = False
        for rule in rules:
            if fnmatch(name, rule.removeprefix("!")):
                hidden = not rule.startswith("!")
        return not hidden

    copied = [name for word, rest in STAGES["sgmg"][1] if word == "COPY" for name in rest.split()[1:-1]]
    assert all(seen(name) for name in copied)
    assert not any(seen(name) for name in (".venv", ".git", "data", "runs", "weights", "tests", "outputs"))
