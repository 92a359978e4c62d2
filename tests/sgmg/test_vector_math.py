"""MKL's vector functions are settled before a tensor can be large enough for two threads."""

import ast
import re
from pathlib import Path

import torch

import sgmg
from sgmg import vector_math

HOME = Path(sgmg.__file__).parent
OF_TENSORS = re.compile(r"(?<!math)(?<!np)(?<!numpy)\.(" + "|".join(vector_math._FUNCTIONS) + r")\(")


def source(module: str) -> Path:
    path = HOME / module.replace(".", "/")
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")


def imported(module: str, seen: set[str]) -> set[str]:
    """The modules of the package that come with one, at its import."""
    if module not in seen and source(module).exists():
        seen.add(module)
        for node in ast.parse(source(module).read_text()).body:
            if isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] == "sgmg":
                home = str(node.module).removeprefix("sgmg").removeprefix(".")
                for name in (home, *(f"{home}.{one.name}".strip(".") for one in node.names)):
                    imported(name, seen)
    return seen


def test_whoever_calls_a_vector_function_has_settled_them() -> None:
    modules = (path.relative_to(HOME).with_suffix("") for path in HOME.rglob("*.py"))
    names = [".".join(path.parts) for path in modules if path.name != "__init__"]
    callers = [name for name in names if OF_TENSORS.search(source(name).read_text())]
    callers.remove("precision")  # whose log writes lines
    assert {"positions", "boxes", "spectrum", "roberta"} <= set(callers)
    assert [name for name in callers if "vector_math" not in imported(name, set())] == []


def test_it_is_done_with_one_number_each(monkeypatch) -> None:
    called = []
    for name in vector_math._FUNCTIONS:
        monkeypatch.setattr(torch, name, lambda x, name=name: called.append((name, x.numel())))
    vector_math.settle()
    assert called == [(name, 1) for name in vector_math._FUNCTIONS]
