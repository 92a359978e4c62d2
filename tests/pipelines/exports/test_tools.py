"""docs/tools.md: its examples run as printed, and what other tools then hold are the masks of the Parquet."""

import ast
import contextlib
import io
import json
import os
import re
import subprocess
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_mask

from annotated_run import SIZE, AnnotatedRun, annotated_run
from pipelines.files import Folder
from sgmg._torchvision import make_torchvision_importable
from sgmg.masks import rles_to_masks

ROOT = Path(__file__).resolve().parents[3]
GUIDE = (ROOT / "docs" / "tools.md").read_text(encoding="utf-8")
# pycocotools decodes by an array interface that numpy has since changed; the tools' own imports are none of ours.
pytestmark = [
    pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy keyword"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
]

Masks = dict[tuple[str, str, str], np.ndarray]
"""Masks that are not empty, by video, sentence and frame."""


def example(tool: str) -> str:
    """The Python of the guide about a tool."""
    (section,) = re.findall(rf"^## {re.escape(tool)}\n(.*?)(?=^## |\Z)", GUIDE, flags=re.DOTALL | re.MULTILINE)
    (block,) = re.findall(r"^ *```python\n(.*?)^ *```", section, flags=re.DOTALL | re.MULTILINE)
    return textwrap.dedent(block)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("tools")


@pytest.fixture(scope="module")
def run(home: Path) -> AnnotatedRun:
    made = annotated_run(home)
    (home / "out").mkdir()
    Path(made.out.path()).rename(home / "out" / "corpus")
    return AnnotatedRun(Folder(str(home / "out" / "corpus")), made.videos, made.rows)


@pytest.fixture(scope="module")
def masks(run: AnnotatedRun) -> Masks:
    """Those of the Parquet."""
    return {
        (row.video, row.text, frame): mask
        for row in run.rows
        for frame, mask in zip(row.frame_names, rles_to_masks(row.queries[0].rle, SIZE), strict=True)
        if mask.any()
    }


@pytest.fixture
def names(run: AnnotatedRun, home: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Any:
    """What the example of a tool has made."""
    assert run
    make_torchvision_importable()  # its CUDA build on a CPU build of torch, which is what some test machines have
    monkeypatch.chdir(home)
    found: dict[str, Any] = {}
    with contextlib.redirect_stdout(io.StringIO()):
        exec(compile(example(request.param), "docs/tools.md", "exec"), found)
    return found


def example_of(tool: str) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("names", [tool], indirect=True)


def same(found: Masks, masks: Masks) -> None:
    found = {key: np.asarray(mask, bool) for key, mask in found.items() if np.any(mask)}
    assert found.keys() == masks.keys()
    for key, mask in masks.items():
        np.testing.assert_array_equal(found[key], mask)


def video_and_frame(file: str) -> tuple[str, str]:
    path = Path(file)
    return path.parent.name, path.stem


def decoded(rle: str) -> np.ndarray:
    return coco_mask.decode({"size": list(SIZE), "counts": rle.encode()})  # pyright: ignore[reportArgumentType]


@example_of("pandas")
def test_pandas(names: dict[str, Any], masks: Masks) -> None:
    found = {
        (row.video, row.text, frame): decoded(rle)
        for row in names["table"].itertuples()
        for frame, rle in zip(row.frame_names, row.queries[0]["rle"], strict=True)
    }
    same(found, masks)
    assert set(names["table"].fps) == {5.0}
    np.testing.assert_array_equal(names["masks"][0], decoded(names["row"].queries[0]["rle"][0]))


@example_of("DuckDB")
def test_duckdb(names: dict[str, Any], masks: Masks, run: AnnotatedRun) -> None:
    texts = {(row.video, row.expression): row.text for row in run.rows}
    found = {(one[0], texts[one[0], one[1]], one[4]): decoded(one[6]) for one in names["frames"]}
    same(found, masks)
    assert {one[5] for one in names["frames"]} == {0.0, 0.2, 0.4, 0.6}
    assert sorted(one[4] for one in names["found"]) == [2, 2, 4, 4], "two videos, two sentences each"


@example_of("pycocotools")
def test_pycocotools(names: dict[str, Any], masks: Masks) -> None:
    coco = names["coco"]
    found = {
        (*video_and_frame(image["file_name"]), coco.cats[one["category_id"]]["name"]): coco.annToMask(one)
        for image in coco.loadImgs(coco.getImgIds())
        for one in coco.imgToAnns[image["id"]]
    }
    same({(video, text, frame): mask for (video, frame, text), mask in found.items()}, masks)
    assert len(names["sentences"]) == 2


@example_of("torchvision")
def test_torchvision(names: dict[str, Any], masks: Masks) -> None:
    dataset = names["dataset"]
    found = {}
    for number, id in enumerate(dataset.ids):
        picture, annotations = dataset[number]
        assert (picture.height, picture.width) == SIZE
        video, frame = video_and_frame(dataset.coco.imgs[id]["file_name"])
        for one in annotations:
            found[video, dataset.coco.cats[one["category_id"]]["name"], frame] = dataset.coco.annToMask(one)
    same(found, masks)
    assert len(names["masks"]) == 2


@example_of("supervision")
def test_supervision(names: dict[str, Any], masks: Masks) -> None:
    dataset, found = names["dataset"], {}
    for path, picture, detections in dataset:
        assert picture.shape == (*SIZE, 3)
        video, frame = video_and_frame(path)
        for number, mask in zip(detections.class_id, detections.mask if len(detections) else (), strict=True):
            found[video, dataset.classes[number], frame] = mask
    same(found, masks)
    assert len(names["sentences"]) == 2


@example_of("davis.zip")
def test_davis(names: dict[str, Any], masks: Masks) -> None:
    row = names["rows"][0]
    video, frame = video_and_frame(names["name"])
    other = masks[video, names["rows"][1]["text"], frame]  # of equal score, and drawn above
    np.testing.assert_array_equal(names["mask"], masks[video, row["text"], frame] & ~other)


def test_fiftyone_is_called_with_what_its_importer_documents(run: AnnotatedRun, home: Path) -> None:
    tree = ast.parse(example("FiftyOne"))
    (call,) = (node for node in ast.walk(tree) if isinstance(node, ast.Call))
    given = {one.arg: one.value.value for one in call.keywords if isinstance(one.value, ast.Constant)}
    content = json.loads((home / str(given["labels_path"])).read_text())
    assert run.out.path() == str(home / str(given["data_path"]))
    files = {one["id"]: home / str(given["data_path"]) / one["file_name"] for one in content["images"]}
    assert len(files) == len(set(files.values())) == len(content["images"]) == 6
    for image in content["images"]:
        with Image.open(files[image["id"]]) as picture:
            assert picture.size == (image["width"], image["height"])
    ids = [one["id"] for one in content["annotations"]]
    assert len(set(ids)) == len(ids)
    names = [one["name"] for one in content["categories"]]
    assert len(set(names)) == len(names)
    for one in content["annotations"]:
        rows, columns = np.nonzero(coco_mask.decode(one["segmentation"]))
        x, y, width, height = one["bbox"]
        assert (x, y, x + width, y + height) == (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
    assert {one["supercategory"] for one in content["categories"]} == {"object"}


@example_of("CVAT")
def test_cvat_gets_a_label_with_the_whole_sentence_for_each(names: dict[str, Any], run: AnnotatedRun) -> None:
    texts = sorted({row.text for row in run.rows})
    assert sorted(label["name"] for label in names["labels"]) == texts
    assert sorted(label["attributes"][0]["default_value"] for label in names["labels"]) == texts


def pythons() -> Iterator[Path]:
    """Those that may have Datumaro, which wants older versions of what we need."""
    if named := os.environ.get("SGMG_DATUMARO_PYTHON"):
        yield Path(named)
    yield ROOT / ".venv-datumaro" / "bin" / "python"


_READ = """
import json, sys
from pycocotools import mask as coco
import numpy as np
print(json.dumps([
    [item.id, dataset.categories()[dm.AnnotationType.label][one.label].name,
     coco.encode(np.asfortranarray(one.image.astype(np.uint8)))["counts"].decode(), item.media.data.shape]
    for item in dataset for one in item.annotations if isinstance(one, dm.Mask)
]))
"""


def test_datumaro(run: AnnotatedRun, masks: Masks, home: Path) -> None:
    python = next((path for path in pythons() if path.exists()), None)
    if python is None:
        said = "no Datumaro: `make datumaro` installs it into a place of its own, .venv-datumaro"
        pytest.fail(said) if os.environ.get("CI") else pytest.skip(said)
    assert run
    code = example("Datumaro") + _READ
    done = subprocess.run([python, "-c", code], cwd=home, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = {}
    for id, text, rle, shape in json.loads(done.stdout.splitlines()[-1]):
        assert tuple(shape) == (*SIZE, 3)
        video, frame = video_and_frame(f"{id}.jpg")
        found[video, text, frame] = decoded(rle)
    same(found, masks)
