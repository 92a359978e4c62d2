import json
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pipelines.errors import LayoutError
from pipelines.files import Folder
from pipelines.sources.refcoco_files import Listing, list_converted, list_refs

CONVERTED = "instances_refcoco_train.json"


@pytest.fixture
def root(data_kit: Path, tmp_path: Path) -> Path:
    """The annotation files of RefCOCO, raw and converted, in a folder where tests may damage them."""
    (tmp_path / "refcoco").mkdir()
    for name in ("refs(unc).p", "instances.json", CONVERTED):
        shutil.copy(data_kit / "refcoco" / "refcoco" / name, tmp_path / "refcoco")
    return tmp_path


def refs(root: Path) -> Listing:
    return list_refs(Folder(str(root)), "refcoco/refs(unc).p", "refcoco/instances.json", "train")


def change_instances(root: Path, change: Callable[[Any], object], name: str = "instances.json") -> None:
    path = root / "refcoco" / name
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def change_refs(root: Path, change: Callable[[Any], object]) -> None:
    path = root / "refcoco" / "refs(unc).p"
    content = pickle.loads(path.read_bytes())
    change(content)
    path.write_bytes(pickle.dumps(content, protocol=2))


def annotation(coco: Any, number: int) -> Any:
    return next(one for one in coco["annotations"] if one["id"] == number)


def test_a_split_keeps_only_what_its_sentences_speak_of(root: Path) -> None:
    listing = refs(root)
    assert [sentence.id for sentence in listing.sentences] == list(range(1, 29))
    assert set(listing.images) == {sentence.image for sentence in listing.sentences}
    assert set(listing.annotations) == {sentence.annotation for sentence in listing.sentences}


def test_both_layouts_list_the_same(root: Path) -> None:
    converted = list_converted(Folder(str(root)), f"refcoco/{CONVERTED}", "refcoco")
    raw = refs(root)
    assert (converted.sentences, converted.images) == (raw.sentences, raw.images)
    assert converted.annotations == raw.annotations


def test_an_instances_file_of_something_else_is_refused(root: Path) -> None:
    change_instances(root, lambda coco: coco.update(images=[]))
    with pytest.raises(LayoutError, match=r"instances\.json describes nothing that .*refs\(unc\)\.p speaks of"):
        refs(root)


@pytest.mark.parametrize("key", ["images", "annotations", "categories"])
def test_an_instances_file_without_a_key_names_it(root: Path, key: str) -> None:
    change_instances(root, lambda coco: coco.pop(key))
    with pytest.raises(LayoutError, match=rf"instances\.json needs a '{key}' \(list\), but has none"):
        refs(root)


def test_an_image_without_width_names_it(root: Path) -> None:
    change_instances(root, lambda coco: coco["images"][0].pop("width"))
    with pytest.raises(LayoutError, match=r"instances\.json.* needs a 'width' \(int\), but has none"):
        refs(root)


@pytest.mark.parametrize("data", [b"{", b'{"images": "caf\xe9"}'])
def test_an_instances_file_that_is_no_json_names_it(root: Path, data: bytes) -> None:
    (root / "refcoco" / "instances.json").write_bytes(data)
    with pytest.raises(LayoutError, match=r"instances\.json.* (no JSON|not utf-8)"):
        refs(root)


def test_two_descriptions_of_one_annotation_are_refused(root: Path) -> None:
    change_instances(root, lambda coco: coco["annotations"].append(annotation(coco, 36154) | {"bbox": [0, 0, 1, 1]}))
    with pytest.raises(LayoutError, match="annotation 36154 is described twice, and differently"):
        refs(root)


@pytest.mark.parametrize("key", ["split", "image_id", "ann_id", "sentences"])
def test_a_ref_without_a_key_names_it(root: Path, key: str) -> None:
    change_refs(root, lambda found: found[3].pop(key))
    with pytest.raises(LayoutError, match=rf"refs\(unc\)\.p: refs\[3\] needs a '{key}'"):
        refs(root)


def test_a_sentence_without_text_names_its_ref(root: Path) -> None:
    change_refs(root, lambda found: found[3]["sentences"][1].pop("sent"))
    with pytest.raises(LayoutError, match=r"refs\[3\], a sentence, needs a 'sent' \(str\)"):
        refs(root)


def test_a_refs_file_without_the_split_lists_its_splits(root: Path) -> None:
    change_refs(root, lambda found: found.__setitem__(slice(None), [ref for ref in found if ref["split"] == "val"]))
    with pytest.raises(LayoutError, match=r"has no sentence of split 'train'; its splits are \['val'\]"):
        refs(root)


def test_a_refs_file_that_is_no_list_is_refused(root: Path) -> None:
    (root / "refcoco" / "refs(unc).p").write_bytes(pickle.dumps({"refs": []}))
    with pytest.raises(LayoutError, match=r"refs\(unc\)\.p holds a dict, not a list of refs"):
        refs(root)


def test_a_refs_file_that_wants_a_class_is_refused(root: Path) -> None:
    (root / "refcoco" / "refs(unc).p").write_bytes(pickle.dumps(Path("x")))
    with pytest.raises(LayoutError, match=r"/refcoco/refs\(unc\)\.p wants pathlib\."):
        refs(root)


def test_a_missing_instances_file_is_named(root: Path) -> None:
    (root / "refcoco" / "instances.json").unlink()
    with pytest.raises(LayoutError, match=r"/refcoco/instances\.json does not exist"):
        refs(root)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda coco: coco["images"][1].update(id=1), "uses an image id twice"),
        (lambda coco: coco["images"][1].pop("caption"), r"images\[1\] needs a 'caption' \(str\)"),
        (lambda coco: coco["images"][0].update(dataset_name="refcocog"), "is of 'refcocog', not of 'refcoco'"),
        (lambda coco: coco["annotations"].pop(0), "has no annotation with image_id 1"),
        (lambda coco: coco["annotations"][0].pop("original_id"), "image_id 1 needs a 'original_id'"),
        (lambda coco: coco["images"][1].update(width=3), "original image 41888 is described twice"),
        (lambda coco: coco.update(images=[]), "has no images"),
    ],
)
def test_a_broken_converted_file_says_what_is_wrong(root: Path, change: Callable[[Any], object], reason: str) -> None:
    change_instances(root, change, CONVERTED)
    with pytest.raises(LayoutError, match=reason) as error:
        list_converted(Folder(str(root)), f"refcoco/{CONVERTED}", "refcoco")
    assert str(root / "refcoco" / CONVERTED) in str(error.value)
