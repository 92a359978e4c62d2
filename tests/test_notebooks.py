"""The notebooks run from top to bottom as they are, draw what they promise, and lie in the tree without outputs."""

import ast
import base64
import os
from io import BytesIO
from pathlib import Path

import nbformat
import numpy as np
import pytest
from nbclient import NotebookClient
from PIL import Image

from pack import ROOT
from patience import PATIENCE

NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
PICTURES = {"1_look_at_the_data": 3, "2_one_clip_through_the_model": 8, "3_train_track_and_compare": 3}
"""How many each draws, at least."""

each = pytest.mark.parametrize("path", NOTEBOOKS, ids=[path.stem for path in NOTEBOOKS])


def code_of(path: Path) -> list[str]:
    return [cell.source for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]


def test_there_are_three_of_them() -> None:
    assert {path.stem for path in NOTEBOOKS} == PICTURES.keys()


@each
def test_a_notebook_is_valid_and_carries_no_output(path: Path) -> None:
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            assert cell.outputs == []
            assert cell.execution_count is None


@each
def test_a_notebook_uses_public_names_only(path: Path) -> None:
    for source in code_of(path):
        for node in ast.walk(ast.parse(source)):
            match node:
                case ast.ImportFrom(module=str(module), names=names):
                    parts = [*module.split("."), *(one.name for one in names)]
                case ast.Import(names=names):
                    parts = [part for one in names for part in one.name.split(".")]
                case ast.Attribute(attr=name):
                    parts = [name]
                case _:
                    continue
            assert not [part for part in parts if part.startswith("_")], ast.unparse(node)


@each
def test_a_notebook_imports_names_that_exist(path: Path) -> None:
    nodes = [node for source in code_of(path) for node in ast.walk(ast.parse(source))]
    imports = [ast.unparse(node) for node in nodes if isinstance(node, ast.Import | ast.ImportFrom)]
    assert imports
    for statement in imports:
        exec(statement, {})


@each
def test_a_notebook_explains_each_step_before_it_is_taken(path: Path) -> None:
    cells = nbformat.read(path, as_version=4).cells
    assert cells[0].cell_type == "markdown"
    assert cells[0].source.startswith("# ")
    assert sum(cell.cell_type == "markdown" for cell in cells) >= 6


@pytest.mark.slow
@pytest.mark.xdist_group("notebooks")
@each
def test_a_notebook_runs_from_top_to_bottom_and_draws(path: Path, tmp_path: Path) -> None:
    notebook = nbformat.read(path, as_version=4)
    # Beside other tests, threads on the same cores wait for each other.
    here = {"IPYTHONDIR": str(tmp_path), "OMP_NUM_THREADS": "1"}
    client = NotebookClient(notebook, timeout=PATIENCE, resources={"metadata": {"path": str(path.parent)}})
    client.execute(env={**os.environ, **here})
    outputs = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
    assert not [output for output in outputs if output.output_type == "error"]
    pictures = [output.data["image/png"] for output in outputs if "image/png" in output.get("data", {})]
    assert len(pictures) >= PICTURES[path.stem]
    for png in pictures:
        shown = np.asarray(Image.open(BytesIO(base64.b64decode(png))).convert("RGB"))
        assert min(shown.shape[:2]) > 100
        assert shown.std() > 5  # more than an empty page
