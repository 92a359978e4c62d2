import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from pipelines.exports.meta import Expected, compare, read_expected, with_empty_texts
from pipelines.files import Folder
from pipelines.prediction_reader import PredictionEntry, Predictions
from pipelines.sources.base import Source
from pipelines.sources.davis import RefDavis17
from pipelines.sources.refcoco import RefCoco
from pipelines.sources.vots import Vots, result_name
from pipelines.sources.ytvos import RefYouTubeVOS
from small_layouts import vots


def predicted(source: Source) -> Predictions:
    """The index of complete predictions of a prepared dataset."""
    entries = []
    for item in source.items():
        record = source.read(item).record
        size = (record.height, record.width)
        entries += [
            PredictionEntry(
                record.video, said.id, said.text, size, record.frame_names, 0, said.external_id, said.annotator, ()
            )
            for said in record.expressions
        ]
    return Predictions(Folder("run"), source.dataset, source.split, "", tuple(entries))


def ytvos(kit: Path, split: str = "valid") -> Predictions:
    return predicted(RefYouTubeVOS(Folder(str(kit / "refytvos")), split))


@pytest.mark.parametrize("split", ["train", "valid", "test"])
@pytest.mark.parametrize("as_file", [True, False])
def test_complete_predictions_of_every_split_have_no_fault(data_kit: Path, split: str, as_file: bool) -> None:
    root = data_kit / "refytvos"
    meta = root / "meta_expressions" / split / "meta_expressions.json" if as_file else root
    predictions = ytvos(data_kit, split)
    wanted = read_expected(str(meta), "ref-youtube-vos", split)
    assert not compare(predictions, wanted)
    assert wanted.frames is not None
    assert wanted.videos.keys() == {entry.video for entry in predictions.entries}


def test_valid_is_its_file_without_the_videos_of_test(data_kit: Path, tmp_path: Path) -> None:
    kit = data_kit / "refytvos/meta_expressions"
    listed = {
        split: json.loads((kit / split / "meta_expressions.json").read_text())["videos"] for split in ("valid", "test")
    }
    wanted = read_expected(str(data_kit / "refytvos"), "ref-youtube-vos", "valid")
    assert wanted.videos.keys() == listed["valid"].keys() - listed["test"].keys()
    assert "valid without the videos that" in wanted.rule
    shutil.copytree(kit / "valid", tmp_path / "meta_expressions/valid")
    with_all = read_expected(str(tmp_path), "ref-youtube-vos", "valid")
    assert with_all.videos.keys() == listed["valid"].keys(), "nothing tells which are of test"
    (tmp_path / "valid/JPEGImages/b8b4d02d43").mkdir(parents=True)
    assert read_expected(str(tmp_path), "ref-youtube-vos", "valid").videos.keys() == {"b8b4d02d43"}


def test_what_is_missing_strange_or_of_another_size_is_listed(data_kit: Path) -> None:
    predictions = ytvos(data_kit)
    wanted = read_expected(str(data_kit / "refytvos"), "ref-youtube-vos", "valid")
    entries = list(predictions.entries)
    first, video = entries[0], entries[-1].video
    kept = [entry for entry in entries if entry.video != video]
    changed = replace(predictions, entries=tuple(kept[1:]))
    faults = compare(changed, wanted)
    assert faults.missing == [f"video {first.video}, expression 0", f"video {video}"]
    fewer = replace(first, frame_names=first.frame_names[1:], size=(1, 1))
    faults = compare(replace(predictions, entries=(*entries, fewer, replace(first, video="other"))), wanted)
    assert faults.missing == [f"video {first.video}, expression 0, frame {first.frame_names[0]}"]
    assert faults.others == ["video other"]
    assert len(faults.sizes) == 1
    assert f"video {first.video}: (1, 1) predicted, {first.size} its frames" in str(faults)


def test_ten_faults_are_listed_and_all_are_counted(data_kit: Path) -> None:
    predictions = ytvos(data_kit)
    wanted = read_expected(str(data_kit / "refytvos"), "ref-youtube-vos", "valid")
    entries = tuple(replace(entry, frame_names=entry.frame_names[:1]) for entry in predictions.entries)
    said = str(compare(replace(predictions, entries=entries), wanted))
    asked = sum(len(expressions) * (len(frames) - 1) for expressions, frames in wanted.videos.values())
    assert said.startswith(f"{asked} missing: video ")
    assert said.count("frame ") == 10
    assert said.endswith("…")


def test_the_file_of_another_dataset_is_refused(data_kit: Path) -> None:
    wanted = read_expected(str(data_kit / "refdavis"), "ref-davis17", "valid")
    with pytest.raises(ValueError, match="The predictions are of ref-youtube-vos valid: give"):
        compare(ytvos(data_kit), wanted)


@pytest.mark.parametrize("layout", ["refdavis", "refdavis_raw"])
def test_ref_davis_is_compared_with_either_layout(data_kit: Path, layout: str) -> None:
    predictions = predicted(RefDavis17(Folder(str(data_kit / layout)), "valid"))
    wanted = read_expected(str(data_kit / layout), "ref-davis17", "valid")
    assert not compare(predictions, wanted)
    assert wanted.frames is not None
    faults = compare(replace(predictions, entries=predictions.entries[:-1]), wanted)
    assert faults.missing == [f"video {predictions.entries[-1].video}, expression {predictions.entries[-1].expression}"]


def test_expressions_without_words_are_added_but_for_ref_davis_where_the_cause_is_named(data_kit: Path) -> None:
    predictions = ytvos(data_kit)
    wanted = read_expected(str(data_kit / "refytvos"), "ref-youtube-vos", "valid")
    assert wanted.wordless == ()
    gone = predictions.entries[-1]
    lacking = replace(predictions, entries=predictions.entries[:-1])
    wordless = replace(wanted, wordless=((gone.video, gone.expression), ("another", "0")))
    added = with_empty_texts(lacking, wordless)
    assert [(entry.video, entry.expression) for entry in added.entries] == [
        (entry.video, entry.expression) for entry in predictions.entries
    ]
    assert not compare(added, wordless)
    maps = replace(lacking, dataset="ref-davis17")
    assert with_empty_texts(maps, wordless) == maps
    assert compare(maps, wordless).missing == [
        f"video {gone.video}, expression {gone.expression}: its text is empty, so it was not predicted"
    ]


def test_mevis_is_compared_with_the_file_of_its_split(tmp_path: Path) -> None:
    videos = {"v": {"frames": ["00000", "00001"], "expressions": {"0": {"exp": "the one that turns"}}}}
    (tmp_path / "valid").mkdir()
    (tmp_path / "valid/meta_expressions.json").write_text(json.dumps({"videos": videos}))
    wanted = read_expected(str(tmp_path), "mevis", "valid")
    assert wanted.videos == {"v": (("0",), ("00000", "00001"))}
    assert read_expected(str(tmp_path / "valid/meta_expressions.json"), "mevis", "valid") == wanted


@pytest.mark.parametrize("folder", ["sequences", ""])
def test_vots_is_compared_with_the_sequences_of_its_workspace(tmp_path: Path, folder: str) -> None:
    vots(tmp_path / folder)
    predictions = predicted(Vots(Folder(str(tmp_path)), "valid"))
    expected = read_expected(str(tmp_path), "vots", "valid")
    assert expected.path == str(tmp_path / folder / "list.txt")
    assert expected.videos == {"v": ((result_name("v", "a dog"), result_name("v", "it")), ("00000001", "00000002"))}
    assert not compare(predictions, expected)
    first, second = predictions.entries
    other = replace(second, external_id=result_name("v", "It"))
    fewer = replace(first, frame_names=first.frame_names[:1], size=(1, 1))
    mismatch = compare(replace(predictions, entries=(fewer, other)), expected)
    assert set(mismatch.missing) == {
        f"video v, expression {result_name('v', 'a dog')}, frame 00000002",
        f"video v, expression {result_name('v', 'it')}",
    }
    assert mismatch.others == [f"video v, expression {result_name('v', 'It')}"]
    (tmp_path / folder / "list.txt").write_text("v\nw\n")
    (tmp_path / folder / "w").mkdir()
    (tmp_path / folder / "w/sequence").write_text("prompts=a cat\n")
    assert compare(predictions, read_expected(str(tmp_path), "vots", "valid")).missing == ["video w"]
    sized = replace(predictions, entries=tuple(replace(entry, size=(1, 1)) for entry in predictions.entries))
    assert compare(sized, expected).sizes == ["video v: (1, 1) predicted, (24, 32) its frames (height, width)"]


def test_a_folder_that_is_no_workspace_of_vots_is_told(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"list\.txt does not exist"):
        read_expected(str(tmp_path), "vots", "test")


@pytest.mark.parametrize("meta", ["refcoco", "refcoco/refcoco", "refcoco/refcoco/instances_refcoco_val.json"])
def test_results_are_compared_with_the_images_of_the_ground_truth(data_kit: Path, meta: str) -> None:
    predictions = predicted(RefCoco(Folder(str(data_kit / "refcoco")), "val"))
    wanted = read_expected(str(data_kit / meta), "refcoco", "val")
    assert not compare(predictions, wanted)
    first, *others = predictions.entries
    faults = compare(replace(predictions, entries=(*others[1:], replace(others[0], size=(1, 1)))), wanted)
    assert faults.missing == [f"image {first.external_id}"]
    assert faults.sizes == [f"image {others[0].external_id}"]


@pytest.mark.parametrize(
    ("dataset", "name"),
    [
        ("a2d-sentences", "a2d/a2d_sentences_test_annotations_in_coco_format.json"),
        ("jhmdb-sentences", "jhmdb/jhmdb_sentences_gt_annotations_in_coco_format.json"),
    ],
)
def test_ground_truths_are_found_in_the_folder_of_their_dataset(data_kit: Path, dataset: str, name: str) -> None:
    by_file = read_expected(str(data_kit / name), dataset, "test")
    assert by_file == read_expected(str((data_kit / name).parent), dataset, "test")
    assert {image["id"] for image in json.loads((data_kit / name).read_text())["images"]} == by_file.images.keys()


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"{", "is no JSON"),
        (b"[]", "holds a list, not an object"),
        (b"{}", 'has no object "videos"'),
        (b'{"videos": {"v": {}}}', "'frames' should be a list"),
        (b'{"videos": {"../v": {}}}', "would leave its folder"),
    ],
)
def test_a_damaged_meta_file_is_told(tmp_path: Path, content: bytes, said: str) -> None:
    (tmp_path / "meta.json").write_bytes(content)
    with pytest.raises(ValueError, match=said):
        read_expected(str(tmp_path / "meta.json"), "ref-youtube-vos", "valid")


def test_a_file_that_is_not_there_and_a_dataset_without_one_are_told(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"meta_expressions/valid/meta_expressions\.json does not exist"):
        read_expected(str(tmp_path), "ref-youtube-vos", "valid")
    with pytest.raises(FileNotFoundError, match="Give the ground truth in COCO's format"):
        read_expected(str(tmp_path / "none.json"), "refcoco", "val")
    with pytest.raises(ValueError, match="'own' has no meta file"):
        read_expected(str(tmp_path), "own", "all")
    (tmp_path / "truth.json").write_text(json.dumps({"images": [{"id": 1}]}))
    with pytest.raises(ValueError, match="no ground truth in COCO's format"):
        read_expected(str(tmp_path / "truth.json"), "refcoco", "val")


def test_a_file_that_asks_for_nothing_fits_nothing(data_kit: Path) -> None:
    with pytest.raises(ValueError, match="have nothing in common"):
        compare(ytvos(data_kit), Expected("meta.json", "all its videos"))
