"""Predictions of a run or of a submission file: which videos they cover, and how a worker reads some of them."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

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
        make = _davis_prediction if self.davis else _track_prediction
        with submitted_files(self.path) as entries:
            load = dict(entries)
            for truth in truths:
                by_track: dict[str, dict[str, bytes]] = {}
                for file in self.files.get(truth.video, ()):
                    first, second, frame = file.removesuffix(".png").split("/")[-3:]
                    try:
                        by_track.setdefault(first if self.davis else second, {})[frame] = load[file]()
                    except ValueError as error:
                        raise ValueError(f"{self.path}, {file}: {error}. Make it again.") from error
                rows += [make(truth, track, pngs) for track, pngs in by_track.items()]
        return rows


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


def open_submission(path: str, davis: bool) -> PngPredictions:
    """Opens a zip or folder of PNGs by its file names.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is not a zip, or holds other files than such PNGs.
    """
    form = "anno_<k>/<video>/<number>.png" if davis else "<video>/<expression>/<frame>.png"
    files: dict[str, list[str]] = {}
    with submitted_files(path) as entries:
        for name, _ in entries:
            parts = name.split("/")
            fits = len(parts) >= 3 and (not davis or parts[-3].removeprefix("anno_").isdecimal())
            if not fits or not name.endswith(".png"):
                raise ValueError(f"{path} holds {name}, but results of this benchmark are {form}. Give one of these.")
            files.setdefault(parts[-2] if davis else parts[-3], []).append(name)
    return PngPredictions(path, davis, {video: tuple(found) for video, found in files.items()})


def _track_prediction(truth: VideoTruth, expression: str, pngs: dict[str, bytes]) -> Prediction:
    rles = [_mask(truth, f"expression {expression}, frame {frame}", png) for frame, png in pngs.items()]
    boxes, scores = ((0.0, 0.0, 0.0, 0.0),) * len(pngs), (1.0,) * len(pngs)
    return _prediction(truth, expression, tuple(pngs), QueryTrack(tuple(rles), boxes, scores))


def _mask(truth: VideoTruth, what: str, png: bytes) -> str:
    try:
        mask = object_map(png) > 0
    except ValueError as error:
        raise ValueError(f"{truth.video}, {what}: {error}. Make the file again.") from error
    if mask.shape != truth.size:
        raise ValueError(
            f"{truth.video}, {what}: the mask has height, width {mask.shape}, the truth {truth.size}. Write masks at "
            f"the size of the original frames."
        )
    return mask_to_rle(mask)


def _davis_prediction(truth: VideoTruth, folder: str, pngs: dict[str, bytes]) -> Prediction:
    """Makes the prediction of one annotator's maps, which are numbered from 0 in the order of frames."""
    annotator = int(folder.removeprefix("anno_"))
    numbered = {f"{number:05d}": name for number, name in enumerate(truth.frame_names)}
    if strange := sorted(set(pngs) - set(numbered)):
        raise ValueError(
            f"{truth.video}, {folder}: frame {strange[0]} is none of its {len(numbered)}. Number them from 00000."
        )
    t = len(pngs)
    # No mask of a single expression is in such a file: the maps are all there is.
    nothing = QueryTrack((rle_union([], truth.size),) * t, ((0.0, 0.0, 0.0, 0.0),) * t, (0.0,) * t)
    names = tuple(numbered[frame] for frame in pngs)
    return _prediction(truth, str(annotator), names, nothing, annotator, tuple(pngs.values()))


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
