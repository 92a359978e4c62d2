"""Predictions of submissions that are no PNGs: the text files of VOTS, and the JSON of Ref-SAV."""

from collections.abc import Container, Sequence
from dataclasses import dataclass, field, replace
from typing import IO, cast

from pipelines.exports.ref_sav import Span, places_of_results, read_result
from pipelines.exports.submission import submitted_files
from pipelines.files import Folder, parent_and_name
from pipelines.predictions import Prediction
from pipelines.scoring.prediction_source import files_by_video, track_prediction
from pipelines.scoring.truth import VideoTruth
from pipelines.sources.vots import decode_region
from sgmg.masks import mask_to_rle, rle_union


@dataclass(frozen=True)
class VotsPredictions:
    """Results of the referring track of VOTS, a zip or folder: the file names of each video.

    They are `…/<video>/<video>_<hash of the sentence>.txt`, with a line for each frame: a mask, or `0` if it is empty.
    """

    path: str
    files: dict[str, tuple[str, ...]] = field(repr=False)

    @property
    def videos(self) -> frozenset[str]:
        return frozenset(self.files)

    @property
    def annotators(self) -> frozenset[int]:
        return frozenset()

    def only(self, videos: Sequence[str]) -> "VotsPredictions":
        return replace(self, files={video: self.files[video] for video in videos if video in self.files})

    def read(self, truths: Sequence[VideoTruth]) -> list[Prediction]:
        rows: list[Prediction] = []
        with submitted_files(self.path) as entries:
            load = dict(entries)
            for truth in truths:
                expressions = {expression.external_id: expression.id for expression in truth.expressions}
                for file in self.files.get(truth.video, ()):
                    expression = expressions.get(file.rpartition("/")[2].removesuffix(".txt"))
                    if expression is not None:
                        rows.append(self._prediction(truth, expression, file, load[file]()))
        return rows

    def _prediction(self, truth: VideoTruth, expression: str, file: str, data: bytes) -> Prediction:
        lines, names, size = data.decode("ascii", "replace").splitlines(), truth.frame_names, truth.size
        if not 0 < len(lines) <= len(names):
            raise ValueError(f"{self.path}, {file} has {len(lines)} lines for {len(names)} frames. Write one a frame.")
        rles: dict[str, str] = {}
        for number, (name, line) in enumerate(zip(names, map(str.strip, lines), strict=False), start=1):
            try:
                rles[name] = rle_union([], size) if line == "0" else mask_to_rle(decode_region(line, size))
            except ValueError as error:
                raise ValueError(f"{self.path}, {file}, line {number}: {error}. Write it again.") from error
        return track_prediction(truth, expression, rles)


@dataclass(frozen=True)
class RefSavPredictions:
    """Results of Ref-SAV, a JSON file: the part of it that holds each expression of each video."""

    path: str
    places: dict[str, dict[str, Span]] = field(repr=False)

    @property
    def videos(self) -> frozenset[str]:
        return frozenset(self.places)

    @property
    def annotators(self) -> frozenset[int]:
        return frozenset()

    def only(self, videos: Sequence[str]) -> "RefSavPredictions":
        return replace(self, places={video: self.places[video] for video in videos if video in self.places})

    def read(self, truths: Sequence[VideoTruth]) -> list[Prediction]:
        rows: list[Prediction] = []
        folder, name = parent_and_name(self.path)
        with Folder(folder).open(name) as stream:
            for truth in truths:
                names = truth.frame_names
                for expression, place in self.places.get(truth.video, {}).items():
                    try:
                        rles = read_result(cast(IO[bytes], stream), place, truth.size, len(names))
                    except ValueError as error:
                        where = f"{self.path}, {truth.video}, expression {expression}"
                        raise ValueError(f"{where}: {error}. Write it again.") from error
                    rows.append(track_prediction(truth, expression, dict(zip(names, rles, strict=True))))
        return rows


def open_vots(path: str, known: Container[str]) -> VotsPredictions:
    """Opens results of VOTS by their file names.

    Args:
        path: of the zip or folder.
        known: names of the videos of the truth.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is not a zip, or holds no results, or two folders for one video.
    """
    with submitted_files(path) as entries:
        names = [name for name, _ in entries]
    files = [name for name in names if name.endswith(".txt") and "/" in name]
    if not files:
        raise ValueError(
            f"{path} holds {names[0]}, but results of this benchmark are <video>/<video>_<hash of the sentence>.txt. "
            f"Give one of these."
        )
    return VotsPredictions(path, files_by_video(path, files, 1, known))


def open_ref_sav(path: str) -> RefSavPredictions:
    """Opens results of Ref-SAV; no masks are kept.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file holds no such results, or is cut short.
    """
    folder, name = parent_and_name(path)
    return RefSavPredictions(path, places_of_results(Folder(folder), name))
