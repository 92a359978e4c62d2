"""A small folder as annotation leaves it, with every format that other tools open, made without a model or Ray."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from annotate_data import RATE, moving, write_video
from pipelines.exports.cvat import write_cvat
from pipelines.exports.frame_files import write_frames
from pipelines.exports.video_maps import write_video_maps
from pipelines.exports.youtube_vis import write_coco_frames, write_youtube_vis
from pipelines.files import Folder
from pipelines.ledger import PREDICTIONS, Entry, Ledger, Rows
from pipelines.prediction_reader import read_predictions, read_segments
from pipelines.predictions import PREDICTION_SCHEMA, Prediction, QueryTrack, mean_rate, predictions_table
from pipelines.video.listing import Video
from sgmg.masks import mask_to_xyxy, masks_to_rles

SIZE = (40, 56)
STEP = 2
"""Every second frame is predicted."""
SENTENCES = {"1": "the dog on the left", "2": 'a "red" ball & nothing else', "3": "something that is nowhere"}
FILE = "shard.parquet"


@dataclass(frozen=True, slots=True)
class AnnotatedRun:
    """A folder of annotations.

    Attributes:
        out: the folder.
        videos: by id.
        rows: of all videos and sentences.
    """

    out: Folder
    videos: dict[str, Video]
    rows: list[Prediction]

    @property
    def places(self) -> dict[str, tuple[Rows, ...]]:
        """Location of the rows of each video."""
        return {video: (Rows(FILE, number, 1),) for number, video in enumerate(self.videos)}

    @property
    def ledger(self) -> Ledger:
        """The ledger of the folder."""
        ledger = Ledger("a run")
        size = self.out.size(f"{PREDICTIONS}/{FILE}")
        for number, (id, video) in enumerate(self.videos.items()):
            fingerprint = self.rows[number * len(SENTENCES)].source_fingerprint
            sentences = tuple(SENTENCES.items())
            entry = Entry(id, video.path, "", fingerprint, sentences, first_group=number, groups=1)
            ledger.add(FILE, size, [entry])
        return ledger

    def segments(self, video: str) -> Iterator[Sequence[Prediction]]:
        """The rows of a video, segment by segment."""
        return read_segments(self.out, self.places[video])


def predicted_run(folder: Path, lengths: Sequence[int] = (7, 4)) -> AnnotatedRun:
    """Videos of so many frames, and in the folder `run` what is predicted of them: Parquet alone."""
    videos, rows = {}, []
    for number, t in enumerate(lengths):
        path = write_video(folder / "videos" / f"{number}.mp4", moving(number, t, *SIZE), codec="libx264")
        video = Video(str(path))
        videos[video.id] = video
        rows += rows_of(video, t, seed=number)
    return saved_run(Folder(str(folder / "run")), videos, rows)


def saved_run(out: Folder, videos: dict[str, Video], rows: list[Prediction]) -> AnnotatedRun:
    """Writes the rows as Parquet, a row group for each video."""
    with (
        out.output(f"{PREDICTIONS}/{FILE}") as stream,
        pq.ParquetWriter(stream, PREDICTION_SCHEMA) as writer,
    ):
        for video in videos:
            writer.write_table(predictions_table([row for row in rows if row.video == video]))
    return AnnotatedRun(out, videos, rows)


def rows_of(video: Video, t: int, seed: int = 0, fingerprint: str = "1") -> list[Prediction]:
    """A row for each sentence: boxes that move, which the second sentence's object leaves; the third has none."""
    places = range(0, t, STEP)
    times = tuple(place / RATE for place in places)
    masks = np.zeros((len(SENTENCES), len(places), *SIZE), np.bool_)
    for at in range(len(places)):
        masks[0, at, 4 + seed : 20, 2 + at : 18 + 2 * at] = True
        masks[0, at, 30:33, 40:50] = True
        masks[1, at, 15:30, 30 - at : 44] = at != 1
        masks[1, at, 20:22, 34:36] = False
    return [
        Prediction(
            dataset="videos", split="", video=video.id, expression=id, text=text, width=SIZE[1], height=SIZE[0],
            frame_names=tuple(f"{place:05d}" for place in places),
            queries=(_track(each),), score=0.75, fingerprint="a run", source=video.path,
            source_fingerprint=fingerprint, status="ok" if each.any() else "absent", fps=mean_rate(times),
            timestamps=times,
        )
        for (id, text), each in zip(SENTENCES.items(), masks, strict=True)
    ]  # fmt: skip


def annotated_run(folder: Path) -> AnnotatedRun:
    """`predicted_run` with every format."""
    return exported(predicted_run(folder))


def exported(run: AnnotatedRun) -> AnnotatedRun:
    """Writes frames, COCO, YouTube-VIS, CVAT's XML and davis.zip."""
    for id, video in run.videos.items():
        write_frames(run.out, id, video, run.segments(id))
        write_cvat(run.out, f"cvat/{id}.xml", id, run.segments(id))
    predictions, framed = read_predictions(run.out), frozenset(run.videos)
    writers: dict[str, Callable[..., int]] = {"coco.json": write_coco_frames, "youtube_vis.json": write_youtube_vis}
    for name, write in writers.items():
        write(predictions, run.out, name, framed=framed)
    write_video_maps(run.places, run.out, "davis.zip")
    return run


def _track(masks: np.ndarray) -> QueryTrack:
    boxes = tuple((float(x1), float(y1), float(x2), float(y2)) for x1, y1, x2, y2 in mask_to_xyxy(masks))
    return QueryTrack(tuple(masks_to_rles(masks)), boxes, (0.75,) * len(masks))
