from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipelines.files import UNFINISHED, Folder
from pipelines.prediction_reader import iter_predictions, read_predictions
from pipelines.predictions import Prediction


def names(folder: Folder) -> list[tuple[str, str]]:
    return [(found.video, found.expression) for found in iter_predictions(folder)]


def test_predictions_come_by_video_and_expression_whatever_file_they_lie_in(
    predict: Any, save: Any, blobs: Any
) -> None:
    masks = blobs()
    folder = save(
        {
            "b.parquet": [predict("a", "10", masks), predict("a", "9", masks)],
            "a.parquet": [predict("b", "0", masks), predict("-z", "x", masks), predict("-z", "0", masks)],
        }
    )
    assert names(folder) == [("-z", "0"), ("-z", "x"), ("a", "9"), ("a", "10"), ("b", "0")]


def test_a_prediction_comes_back_as_it_was(predict: Any, save: Any, blobs: Any) -> None:
    said = predict("v", "0", blobs(), blobs(seed=1), timestamps=(0.0, 0.2), merged=(b"a", b"b"), annotator=2, fps=5.0)
    assert list(iter_predictions(save({"v.parquet": [said]}))) == [said]


def segments(predict: Any, masks: np.ndarray, *starts: int, **values: Any) -> list[Prediction]:
    """One expression cut at some frames."""
    whole = [f"{frame:05d}" for frame in range(len(masks))]
    parts = []
    for number, (start, end) in enumerate(zip(starts, [*starts[1:], len(masks)], strict=True)):
        parts.append(
            predict(
                "v",
                "0",
                masks[start:end],
                frame_names=tuple(whole[start:end]),
                segment=number,
                start_frame=start,
                **values,
            )
        )
    return parts


def test_segments_are_joined_in_order_across_files_and_row_groups(predict: Any, save: Any, blobs: Any) -> None:
    masks = blobs(t=7)
    first, second, third = segments(predict, masks, 0, 3, 5, timestamps=None)
    second = replace(second, status="absent", score=0.0)
    folder = save({"2.parquet": [third, first], "1.parquet": [second]}, row_group_size=1)
    (found,) = iter_predictions(folder)
    (uncut,) = segments(predict, masks, 0)
    assert (found.frame_names, found.queries[0].rle) == (uncut.frame_names, uncut.queries[0].rle)
    assert len(found.queries[0].boxes) == len(found.queries[0].scores) == 7
    assert found.score == pytest.approx(0.75 * 5 / 7)
    assert found.status == "ok"
    assert read_predictions(folder).entries[0].frame_names == uncut.frame_names


def test_one_partial_segment_makes_the_whole_partial_and_may_leave_a_gap(predict: Any, save: Any, blobs: Any) -> None:
    parts = segments(predict, blobs(t=6), 0, 2, 4)
    folder = save({"a.parquet": [parts[0], replace(parts[2], status="partial", note="frames 2 and 3 are damaged")]})
    (found,) = iter_predictions(folder)
    assert (found.status, found.note) == ("partial", "frames 2 and 3 are damaged")
    assert found.frame_names == ("00000", "00001", "00004", "00005")


def test_a_missing_segment_and_one_there_twice_are_told(predict: Any, save: Any, blobs: Any) -> None:
    parts = segments(predict, blobs(t=6), 0, 2, 4)
    folder = save({"a.parquet": parts[:1], "c.parquet": parts[2:]})
    with pytest.raises(ValueError, match=r"v, expression 0: frames 2 … 3 are missing before c\.parquet"):
        read_predictions(folder)
    save({"b.parquet": parts[1:]})
    with pytest.raises(ValueError, match=r"b\.parquet and c\.parquet both hold frame 4"):
        read_predictions(folder)


def test_unfinished_and_hidden_files_are_passed_over(predict: Any, save: Any, blobs: Any) -> None:
    folder = save({"_davisHorse.parquet": [predict("_davisHorse", "0", blobs())]})
    for name in (f"{UNFINISHED}0-w.parquet", "._v.parquet", "notes.txt"):
        folder.folder("predictions").write(name, b"half a file")
    assert names(folder) == [("_davisHorse", "0")], "A2D has videos of such names"


def test_without_predictions_the_job_to_run_is_named(save: Any) -> None:
    with pytest.raises(FileNotFoundError, match=r"holds no predictions\. Run jobs/predict\.py"):
        iter_predictions(save({}))


@pytest.mark.parametrize("keep", [0, 100, -4])
def test_a_corrupt_file_is_named(predict: Any, save: Any, blobs: Any, keep: int) -> None:
    folder = save({"good.parquet": [predict("v", "0", blobs())], "spoilt.parquet": [predict("w", "0", blobs())]})
    inner = folder.folder("predictions")
    inner.write("spoilt.parquet", inner.read("spoilt.parquet")[:keep])
    with pytest.raises(ValueError, match=r"predictions/spoilt\.parquet is damaged .* run the job that wrote it again"):
        list(iter_predictions(folder))


def test_damage_inside_a_file_is_told_with_its_name(predict: Any, save: Any, blobs: Any) -> None:
    folder = save({"spoilt.parquet": [predict("v", "0", blobs(t=40, height=40, width=40))]})
    inner = folder.folder("predictions")
    data = bytearray(inner.read("spoilt.parquet"))
    data[4 : len(data) // 2] = bytes(len(data) // 2 - 4)  # the footer at the end stays whole
    inner.write("spoilt.parquet", bytes(data))
    with pytest.raises(ValueError, match="spoilt"):
        list(iter_predictions(folder))


def test_other_parquet_files_and_other_versions_are_refused(predict: Any, save: Any, blobs: Any) -> None:
    folder = save({"v.parquet": [predict("v", "0", blobs())]})
    path = folder.folder("predictions").path("v.parquet")
    table = pq.read_table(path)
    pq.write_table(pa.table({"video": ["v"]}), path)
    with pytest.raises(ValueError, match=r"v\.parquet: it has no column annotator, dataset"):
        read_predictions(folder)
    old = table.set_column(table.schema.get_field_index("schema_version"), "schema_version", pa.array([0], pa.int32()))
    pq.write_table(old, path)
    with pytest.raises(ValueError, match=r"v\.parquet: it has prediction version 0, this code reads 1\. Predict again"):
        read_predictions(folder)


@pytest.mark.parametrize("other", [{"dataset": "mevis"}, {"split": "train"}, {"fingerprint": "another checkpoint"}])
def test_predictions_of_two_kinds_in_one_folder_are_refused(predict: Any, save: Any, blobs: Any, other: Any) -> None:
    folder = save({"a.parquet": [predict("v", "0", blobs())], "b.parquet": [predict("w", "0", blobs(), **other)]})
    with pytest.raises(ValueError, match=rf"mixes .*b\.parquet.*{next(iter(other.values()))}"):
        read_predictions(folder)


@pytest.mark.parametrize(
    "values",
    [
        {"video": "../v"},
        {"video": "/v"},
        {"expression": "C:\\0"},
        {"frame_names": ("../../00000", "00001")},
        {"frame_names": ("", "00001")},
    ],
)
def test_names_that_would_leave_the_folder_are_refused(predict: Any, save: Any, blobs: Any, values: Any) -> None:
    folder = save({"v.parquet": [replace(predict("v", "0", blobs()), **values)]})
    with pytest.raises(ValueError, match=r"v\.parquet: The name .* would leave its folder"):
        read_predictions(folder)


def test_a_frame_named_twice_is_refused(predict: Any, save: Any, blobs: Any) -> None:
    folder = save({"v.parquet": [predict("v", "0", blobs(), frame_names=("00000", "00000"))]})
    with pytest.raises(ValueError, match="names a frame twice"):
        read_predictions(folder)
