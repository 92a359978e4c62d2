"""Pictures of the worst and the best scored expressions: a few frames, truth outlined, prediction tinted."""

import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import ray
from jaxtyping import Bool, UInt8
from PIL import Image

from pipelines.drawing.overlay import TRUTH_COLOUR, colour_of, frame_strip, spotlight
from pipelines.files import Folder
from pipelines.images import opened_image
from pipelines.manifest import read_rows
from pipelines.predictions import Prediction
from pipelines.scoring.davis import merged_of, result_maps, truth_maps
from pipelines.scoring.prediction_source import PredictionSource
from pipelines.scoring.rows import PictureRow, Row, TrackRow
from pipelines.scoring.tracks import track_results
from pipelines.scoring.truth import VideoTruth
from pipelines.scoring.truth_parts import PreparedPart, TruthPart
from sgmg.masks import rle_to_mask
from sgmg.referring import best_candidate

FRAMES = 4
"""Frames a picture shows, spread evenly over those that are asked."""

_WIDE = 1200  # pixels of the four frames of one of several runs


@dataclass(frozen=True, slots=True)
class Case:
    """A row to draw; `name` is the file name of its picture."""

    name: str
    row: Row


@dataclass(frozen=True, slots=True)
class Difference:
    """Rows of one expression, of several runs by name; `name` is the file name of their picture."""

    name: str
    rows: Mapping[str, Row]

    @property
    def video(self) -> str:
        return next(iter(self.rows.values())).video


def named_differences(names: Sequence[str], rows: Sequence[Sequence[Row]]) -> list[Difference]:
    """Returns the rows, one of each run, with the file names of their pictures."""
    return [
        Difference(f"difference-{place:02d}-{_file_name(some[0])}.png", dict(zip(names, some, strict=True)))
        for place, some in enumerate(rows, start=1)
    ]


def worst_and_best(rows: Sequence[Row], count: int) -> list[Case]:
    """Returns the `count` rows with the lowest and the highest score, each once; of DAVIS only unsupervised rows."""
    ranked = sorted(
        (row for row in rows if not isinstance(row, TrackRow) or row.protocol != "strict-id"),
        key=lambda row: (row.figure, row.video, row.expression),
    )
    worst = ranked[:count]
    best = ranked[max(count, len(ranked) - count) :][::-1]
    return [
        Case(f"{kind}-{place:02d}-{_file_name(row)}.png", row)
        for kind, some in (("worst", worst), ("best", best))
        for place, row in enumerate(some, start=1)
    ]


def draw_cases(
    cases: Sequence[Case],
    parts: Sequence[TruthPart],
    frames: Sequence[TruthPart],
    source: PredictionSource,
    out: Folder,
) -> list[str]:
    """Draws each case in a Ray task, writes the pictures into a folder, and returns their names.

    Args:
        parts: the truth that the rows were scored against.
        frames: prepared data with the frames of the same videos.

    Raises:
        ValueError: the prepared data lack the frames of a video.
    """
    return draw_differences([Difference(case.name, {"": case.row}) for case in cases], parts, frames, {"": source}, out)


def draw_differences(
    differences: Sequence[Difference],
    parts: Sequence[TruthPart],
    frames: Sequence[TruthPart],
    sources: Mapping[str, PredictionSource],
    out: Folder,
) -> list[str]:
    """Draws what each run found of an expression, one below the other, as `draw_cases` draws those of a single run.

    Args:
        parts, frames: as in `draw_cases`.
        sources: the predictions of each run, by its name.

    Raises:
        ValueError: the prepared data lack the frames of a video.
    """
    truth_of = {video: part for part in parts for video in part.videos}
    frames_of = {video: part for part in frames if isinstance(part, PreparedPart) for video in part.videos}
    if absent := sorted({one.video for one in differences} - set(frames_of)):
        raise ValueError(
            f"There are no frames of {absent[0]} to draw on. Give --frames the prepared data of the same split, or "
            f"leave --pictures out."
        )
    drawn = [
        _draw.remote(
            one,
            truth_of[one.video],
            frames_of[one.video],
            {name: source.only([one.video]) for name, source in sources.items()},
        )
        for one in differences
    ]
    for one, task in zip(differences, drawn, strict=True):
        out.write(one.name, ray.get(task))
    return [one.name for one in differences]


@ray.remote(num_cpus=1)
def _draw(one: Difference, part: TruthPart, frames: PreparedPart, sources: Mapping[str, PredictionSource]) -> bytes:
    truth = next(truth for truth in part.read() if truth.video == one.video)
    images = _read_frames(frames, truth)
    strips = []
    for name, row in one.rows.items():
        predictions = [found for found in sources[name].read([truth]) if found.video == truth.video]
        strips.append(_strip(row, truth, predictions, images, name))
    return _png(np.concatenate(strips))


def draw_case(row: Row, truth: VideoTruth, predictions: Sequence[Prediction], frames: dict[str, bytes]) -> bytes:
    """Draws one row as a PNG. `frames` maps frame names to encoded images.

    Raises:
        ValueError: a frame is missing.
    """
    return _png(_strip(row, truth, predictions, frames))


def _strip(
    row: Row, truth: VideoTruth, predictions: Sequence[Prediction], frames: Mapping[str, bytes], run: str = ""
) -> UInt8[np.ndarray, "height width 3"]:
    """Returns a few frames of a row above what they show; those of one of several runs stand in one line."""
    height, width = truth.size
    pictures: list[UInt8[np.ndarray, "h w 3"]] = []
    for frame in _shown(row, truth):
        name = truth.frame_names[frame]
        if name not in frames:
            raise ValueError(f"{truth.video} has no frame {name} to draw on. Give --frames data of the same split.")
        with opened_image(frames[name]) as image:
            coloured = image.convert("RGB")
        # Frames may have been prepared smaller than they were.
        picture = np.asarray(coloured if coloured.size == (width, height) else coloured.resize((width, height)))
        predicted, true = _masks(row, truth, predictions, frame)
        pictures.append(spotlight(picture, predicted, true))
    what = "J&F" if isinstance(row, TrackRow) else "IoU"
    figure = f"{what} {100 * row.figure:.1f}"
    if run:
        return frame_strip(pictures, [(f"{run} · {figure}", colour_of(0))], columns=FRAMES, width=_WIDE)
    title = f"{row.text or 'object'} · {figure} · {row.video}, expression {row.expression}"
    return frame_strip(pictures, [(title, colour_of(0)), ("truth", TRUTH_COLOUR)])


def _png(image: UInt8[np.ndarray, "height width 3"]) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "png")
    return buffer.getvalue()


def _shown(row: Row, truth: VideoTruth) -> list[int]:
    if isinstance(row, PictureRow):
        return [truth.frame_names.index(row.frame)]
    expression = next((one for one in truth.expressions if one.id == row.expression), None)
    frames = (
        truth.scored_frames(expression)
        if expression and row.protocol == "expression"
        else range(len(truth.frame_names))
    )
    indices = np.linspace(0, len(frames) - 1, min(FRAMES, len(frames))).round().astype(int)
    return [frames[i] for i in indices]


def _masks(
    row: Row, truth: VideoTruth, predictions: Sequence[Prediction], frame: int
) -> tuple[Bool[np.ndarray, "h w"], Bool[np.ndarray, "h w"]]:
    """Returns the predicted and the true mask of one frame."""
    if isinstance(row, TrackRow) and row.protocol != "expression":
        merged = merged_of(truth, predictions, row.annotator or 0)
        return result_maps(truth, merged)[frame] == row.result_id, truth_maps(truth)[frame] == row.truth_id
    expression = next(one for one in truth.expressions if one.id == row.expression)
    true = truth.rle(expression, frame)
    name = truth.frame_names[frame]
    if isinstance(row, PictureRow):
        rle = _best(row, predictions, name)
    else:
        rle = track_results(truth, predictions).get(row.expression, {}).get(name)
    nothing = np.zeros(truth.size, dtype=np.bool_)
    return (
        nothing if rle is None else rle_to_mask(rle, truth.size),
        nothing if true is None else rle_to_mask(true, truth.size),
    )


def _best(row: PictureRow, predictions: Sequence[Prediction], name: str) -> str | None:
    for one in predictions:
        if one.expression == row.expression and name in one.frame_names:
            place = one.frame_names.index(name)
            return one.queries[best_candidate(np.array([query.scores[place] for query in one.queries]))].rle[place]
    return None


def _read_frames(part: PreparedPart, truth: VideoTruth) -> dict[str, bytes]:
    rows = read_rows(part.folder, part.file, part.row_group, ["video", "frame_names", "frames"])
    row = next(row for row in rows if row["video"] == truth.video)
    return dict(zip(row["frame_names"], row["frames"], strict=True))


def _file_name(row: Row) -> str:
    frame = f"-{row.frame}" if isinstance(row, PictureRow) else ""
    return re.sub(r"[^\w.-]+", "_", f"{row.video}-{row.expression}{frame}")
