"""Predictions of a run or of a submission of PNGs: which videos they cover, and how a worker reads some of them."""

import re
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

from pipelines.exports.pngs import encode_object_map
from pipelines.exports.submission import submitted_files
from pipelines.files import Folder
from pipelines.images import object_map
from pipelines.prediction_reader import PredictionEntry, Predictions, read_predictions
from pipelines.predictions import Prediction, QueryTrack
from pipelines.scoring.truth import VideoTruth
from sgmg.masks import mask_to_rle, rle_union


class PredictionSource(Protocol):
    """Predictions by video."""

    @property
    def videos(self) -> frozenset[str]: ...
    @property
    def annotators(self) -> frozenset[int]: ...
    def only(self, videos: Sequence[str]) -> "PredictionSource":
        """Returns the source limited to a few videos, small enough to send to a worker."""
        ...

    def read(self, truths: Sequence[VideoTruth]) -> list[Prediction]:
        """Reads all predictions of the given videos.

        Raises:
            ValueError: a file is damaged, or a mask differs from the truth in size.
        """
        ...


@dataclass(frozen=True)
class ParquetPredictions:
    """Parquet predictions of a folder, by video."""

    predictions: Predictions = field(repr=False)  # without entries: they are in `entries`
    entries: dict[str, tuple[PredictionEntry, ...]] = field(repr=False)

    @property
    def videos(self) -> frozenset[str]:
        return frozenset(self.entries)

    @property
    def annotators(self) -> frozenset[int]:
        found = {entry.annotator for entries in self.entries.values() for entry in entries}
        return frozenset(one for one in found if one is not None)

    def only(self, videos: Sequence[str]) -> "ParquetPredictions":
        return replace(self, entries={video: self.entries[video] for video in videos if video in self.entries})

    def read(self, truths: Sequence[VideoTruth]) -> list[Prediction]:
        wanted = [entry for truth in truths for entry in self.entries.get(truth.video, ())]
        return list(self.predictions.read(sorted(wanted, key=lambda entry: entry.rows)))


@dataclass(frozen=True)
class PngPredictions:
    """PNGs of a submission, a zip or folder: the file names of each video.

    Tracks are `…/<video>/<expression>/<frame>.png`, in which non-zero is object; those of DAVIS are
    `…/anno_<k>/<video>/<number from 0>.png` with object ids.
    """

    path: str
    davis: bool
    files: dict[str, tuple[str, ...]] = field(repr=False)

    @property
    def videos(self) -> frozenset[str]:
        return frozenset(self.files)

    @property
    def annotators(self) -> frozenset[int]:
        names = {file.split("/")[-3] for files in self.files.values() for file in files}
        return frozenset(int(name.removeprefix("anno_")) for name in names) if self.davis else frozenset()

    def only(self, videos: Sequence[str]) -> "PngPredictions":
        return replace(self, files={video: self.files[video] for video in videos if video in self.files})

    def read(self, truths: Sequence[VideoTruth]) -> list[Prediction]:
        rows: list[Prediction] = []
        with submitted_files(self.path) as entries:
            load = dict(entries)
            for truth in truths:
                rows += self._of_video(truth, load)
        return rows

    def _of_video(self, truth: VideoTruth, load: Mapping[str, Callable[[], bytes]]) -> list[Prediction]:
        """Reads the PNGs of a video one at a time: together they may be larger than memory, even if they are zeros."""
        maps: dict[str, dict[str, bytes]] = {}
        tracks: dict[str, dict[str, str]] = {}
        for file in self.files.get(truth.video, ()):
            first, second, frame = file.removesuffix(".png").split("/")[-3:]
            try:
                if self.davis:
                    name = _davis_frame(truth, first, frame)
                    maps.setdefault(first, {})[name] = _map(load[file](), truth)
                else:
                    tracks.setdefault(second, {})[frame] = mask_to_rle(object_map(load[file](), truth.size) > 0)
            except ValueError as error:
                is_size = f"not {truth.size}" in str(error)
                remedy = " The truth has that size: write masks at the size of the original frames." if is_size else ""
                raise ValueError(f"{self.path}, {file}: {error}.{remedy}") from error
        found = [_davis_prediction(truth, folder, pngs) for folder, pngs in maps.items()]
        return [*found, *(track_prediction(truth, expression, rles) for expression, rles in tracks.items())]


def open_predictions(path: str) -> ParquetPredictions:
    """Opens a folder of Parquet predictions without reading masks.

    Raises:
        FileNotFoundError: the folder holds no predictions.
        ValueError: a file is damaged, or the files are of different runs.
    """
    predictions = read_predictions(Folder(path))
    entries: dict[str, list[PredictionEntry]] = {}
    for entry in predictions.entries:
        entries.setdefault(entry.video, []).append(entry)
    return ParquetPredictions(replace(predictions, entries=()), {video: tuple(some) for video, some in entries.items()})


def open_submission(path: str, davis: bool, known: Container[str] = ()) -> PngPredictions:
    """Opens a zip or folder of PNGs by its file names.

    Args:
        path: of the zip or folder.
        davis: whether it holds maps of object ids.
        known: names of the videos of the truth, which may hold `/`.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is not a zip, or holds other files than such PNGs, or two folders for one video.
    """
    form = "anno_<k>/<video>/<number>.png" if davis else "<video>/<expression>/<frame>.png"
    with submitted_files(path) as entries:
        names = [name for name, _ in entries]
    for parts, name in zip(map(_parts, names), names, strict=True):
        fits = len(parts) >= 3 and (not davis or re.fullmatch("anno_[0-3]", parts[-3]))
        if not fits or not name.endswith(".png"):
            raise ValueError(f"{path} holds {name}, but results of this benchmark are {form}. Give one of these.")
    if not davis:
        return PngPredictions(path, davis, files_by_video(path, names, 2, known))
    files: dict[str, list[str]] = {}
    for name in names:
        files.setdefault(_parts(name)[-2], []).append(name)
    return PngPredictions(path, davis, {video: tuple(found) for video, found in files.items()})


def files_by_video(path: str, names: Iterable[str], depth: int, known: Container[str]) -> dict[str, tuple[str, ...]]:
    """Groups the files of a submission by video: the longest end of the path of its folder that is known.

    >>> files_by_video("a.zip", ["Annotations/A/x/0/00000.png", "mine/y/0/00000.png"], 2, {"A/x", "x", "y"})
    {'A/x': ('Annotations/A/x/0/00000.png',), 'y': ('mine/y/0/00000.png',)}

    Args:
        path: of the submission.
        names: of its files.
        depth: number of names of a file's path that come after its video.
        known: names of the videos of the truth.

    Raises:
        ValueError: the files of a video are in two folders.
    """
    by_folder: dict[str, list[str]] = {}
    for name in names:
        by_folder.setdefault("/".join(_parts(name)[:-depth]), []).append(name)
    folders: dict[str, str] = {}
    for folder in by_folder:
        other = folders.setdefault(_video_of(folder, known), folder)
        if other != folder:
            raise ValueError(f"{path} holds {other}/ and {folder}/, which are of one video. Leave one of them out.")
    return {video: tuple(by_folder[folder]) for video, folder in folders.items()}


def _parts(name: str) -> list[str]:
    return name.split("/")


def _video_of(folder: str, known: Container[str]) -> str:
    """Returns the video of a folder: the longest end of its path that is known, else all below Annotations/."""
    parts = _parts(folder)
    ends = ("/".join(parts[start:]) for start in range(len(parts)))
    return next((end for end in ends if end in known), folder.removeprefix("Annotations/"))


def track_prediction(truth: VideoTruth, expression: str, rles: Mapping[str, str]) -> Prediction:
    """Makes the prediction of one expression from its masks by the names of their frames."""
    boxes, scores = ((0.0, 0.0, 0.0, 0.0),) * len(rles), (1.0,) * len(rles)
    return _prediction(truth, expression, tuple(rles), QueryTrack(tuple(rles.values()), boxes, scores))


def _map(png: bytes, truth: VideoTruth) -> bytes:
    """Checks a map of object ids, and returns it in few bytes, since those of a video are held together."""
    ids = object_map(png, truth.size)
    return png if len(png) <= ids.size else encode_object_map(ids)


def _davis_frame(truth: VideoTruth, folder: str, number: str) -> str:
    """Returns the name of a frame; maps are numbered from 0 in the order of frames."""
    frames = len(truth.frame_names)
    place = int(number) if number.isascii() and number.isdigit() and len(number) == 5 else frames
    if place >= frames:
        raise ValueError(f"{folder}: frame {number} is none of its {frames}. Number them from 00000")
    return truth.frame_names[place]


def _davis_prediction(truth: VideoTruth, folder: str, pngs: Mapping[str, bytes]) -> Prediction:
    """Makes the prediction of one annotator's maps."""
    annotator, t = int(folder.removeprefix("anno_")), len(pngs)
    # No mask of a single expression is in such a file: the maps are all there is.
    nothing = QueryTrack((rle_union([], truth.size),) * t, ((0.0, 0.0, 0.0, 0.0),) * t, (0.0,) * t)
    return _prediction(truth, str(annotator), tuple(pngs), nothing, annotator, tuple(pngs.values()))


def _prediction(
    truth: VideoTruth,
    expression: str,
    names: tuple[str, ...],
    track: QueryTrack,
    annotator: int | None = None,
    merged: tuple[bytes, ...] | None = None,
) -> Prediction:
    height, width = truth.size
    return Prediction(
        dataset=truth.dataset,
        split=truth.split,
        video=truth.video,
        expression=expression,
        text="",
        width=width,
        height=height,
        frame_names=names,
        queries=(track,),
        score=1.0,
        fingerprint="",
        source="",
        source_fingerprint="",
        annotator=annotator,
        merged=merged,
    )
