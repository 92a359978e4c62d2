"""What annotation exports comes back through prepare as it was: masks pixel for pixel, sentences, ids; odd videos."""

from pathlib import Path

import numpy as np
import pytest

from annotated_run import AnnotatedRun, exported, saved_run
from pipelines.files import Folder
from pipelines.predictions import Prediction, QueryTrack, mean_rate
from pipelines.sources.video_files import decode_video
from pipelines.video.listing import Video
from sgmg.masks import mask_to_xyxy, masks_to_rles, rles_to_masks
from tool_files import masks_of, opened, read_all

VIDEOS = (
    "constructed__odd_427x241_mpeg4.mp4",
    "constructed__odd_427x241_vp9.webm",
    "constructed__rot90_tagged.mp4",
    "constructed__vfr_known_pts.mp4",
    "mp4parse__sar_16_9.mp4",
)
SENTENCES = {"left": "the dog on the left", "2": 'a "red" ball & nothing else', "10": "the first to come"}
MOST = 8
"""Frames of a video that are predicted, every second one."""


@pytest.fixture(scope="module")
def run(data_kit: Path, tmp_path_factory: pytest.TempPathFactory) -> AnnotatedRun:
    videos = [Video(str(data_kit / "videos" / name)) for name in VIDEOS]
    rows = [row for number, video in enumerate(videos) for row in rows_of(video, number)]
    out = Folder(str(tmp_path_factory.mktemp("run")))
    return exported(saved_run(out, {video.id: video for video in videos}, rows))


def rows_of(video: Video, seed: int) -> list[Prediction]:
    """A row for each sentence, about ragged areas that do not overlap; the last one is in the first frame only."""
    decoded = decode_video(Path(video.path).read_bytes())
    places = range(0, min(len(decoded.frames), 2 * MOST), 2)
    size = (decoded.height, decoded.width)
    ids = np.random.default_rng(seed).integers(0, 1 + len(SENTENCES), (len(places), *size), np.uint8)
    ids[:, : size[0] // 2, : size[1] // 3] = 1
    ids[1:][ids[1:] == len(SENTENCES)] = 0
    times = decoded.timestamps and tuple(decoded.timestamps[place] for place in places)
    return [
        Prediction(
            dataset="videos", split="", video=video.id, expression=id, text=text, width=size[1], height=size[0],
            frame_names=tuple(f"{place:05d}" for place in places), queries=(track(ids == number),), score=0.75,
            fingerprint="a run", source=video.path, source_fingerprint="1", status="ok",
            fps=mean_rate(times) if times else None, timestamps=times,
        )
        for number, (id, text) in enumerate(SENTENCES.items(), start=1)
    ]  # fmt: skip


def track(masks: np.ndarray) -> QueryTrack:
    boxes = tuple((float(x1), float(y1), float(x2), float(y2)) for x1, y1, x2, y2 in mask_to_xyxy(masks))
    return QueryTrack(tuple(masks_to_rles(masks)), boxes, (0.75,) * len(masks))


@pytest.mark.parametrize(
    ("dataset", "raw", "frames"),
    [
        ("coco", "coco.json", None),
        ("youtube-vis", "youtube_vis.json", None),
        ("cvat", "cvat", "frames"),
        ("davis-folder", "davis.zip", "frames"),
    ],
)
def test_what_was_exported_comes_back_as_it_was(dataset: str, raw: str, frames: str | None, run: AnnotatedRun) -> None:
    out = Path(run.out.path())
    readings = read_all(opened(dataset, out / raw, out / frames if frames else None))
    assert {one.record.video for one in readings} == set(run.videos)
    for reading in readings:
        record = reading.record
        asked = {row.expression: row for row in run.rows if row.video == record.video}
        assert {one.id: one.text for one in record.expressions} == SENTENCES, "verdicts name them by these ids"
        places = {track.id: place for place, track in enumerate(record.objects)}
        for one in record.expressions:
            row, (object_id,) = asked[one.id], one.targets
            assert record.frame_names == row.frame_names
            assert (record.height, record.width) == (row.height, row.width)
            expected = rles_to_masks(row.queries[0].rle, (row.height, row.width))
            for found, mask in zip(masks_of(record, places[object_id]), expected, strict=True):
                np.testing.assert_array_equal(np.zeros_like(mask) if found is None else found, mask)
