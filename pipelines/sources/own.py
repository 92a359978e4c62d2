"""A user's own data: frames or video files, PNGs of object ids, and a table of sentences. The README has an example."""

import csv
import io
import json
import re
from collections import defaultdict
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from pipelines.errors import BadItem, Dropped, LayoutError
from pipelines.files import Folder
from pipelines.records import Expression
from pipelines.sources.base import Item, Reading, build_record
from pipelines.sources.meta_expressions import EMPTY
from pipelines.sources.object_maps import Annotation, read_annotation
from pipelines.sources.reading import annotation_text, checked_video, image_frames, item_bytes
from pipelines.sources.video_files import QUALITY, decode_video

TABLE = "expressions.csv"
COLUMNS = ("video", "object_id", "text")
IMAGES = (".jpg", ".jpeg", ".png")
VIDEOS = (".mp4", ".mov", ".mkv", ".webm", ".avi")


@dataclass(frozen=True, slots=True)
class Pictures:
    """The frames of one video, from images or from a video file, and the bytes that its fingerprint is made from."""

    names: tuple[str, ...]
    frames: tuple[bytes, ...]
    width: int
    height: int
    source: str
    raw: tuple[bytes, ...]
    timestamps: tuple[float, ...] | None = None
    fps: float | None = None


@dataclass(frozen=True, slots=True)
class Own:
    """A user's dataset: frames or video files, `Annotations/<video>/<frame>.png`, and `expressions.csv`.

    Frames are in `JPEGImages/<video>/*.jpg|png` or `videos/<video>.mp4`. The table has the columns video, object_id,
    text and, optionally, split; without it every row belongs to split train. Frames of a video file are named 00000,
    00001, …; a frame without a PNG is not annotated. The id of a sentence is its index among the rows of its video,
    from 0.
    """

    root: Folder
    split: str = "train"
    dataset: str = "own"
    quality: int = QUALITY  # JPEG quality of frames from video files

    def items(self) -> list[Item]:
        """Returns every video of the split, sorted. The key holds the location of its frames and its rows of the table.

        Raises:
            LayoutError: the table is missing or has a malformed line, there is no such split, or there are no frames at
                all.
        """
        rows = self._rows()
        splits = sorted({row["split"] for listed in rows.values() for row in listed})
        if self.split not in splits:
            raise LayoutError(
                f"{self.root.path(TABLE)} has no row of split {self.split!r}. Choose one of {', '.join(splits)}."
            )
        places = self._places()
        return [
            Item(video, {"places": places.get(video, []), "rows": of_split})
            for video in sorted(rows)
            if (of_split := [row for row in rows[video] if row["split"] == self.split])
        ]

    def read(self, item: Item) -> Reading:
        """Reads one video with all its frames, and the objects that its sentences refer to.

        Raises:
            BadItem: frames or PNGs are missing, damaged, or contradict one another.
        """
        pictures = self._pictures(item)
        objects = dict.fromkeys(sorted({row["object_id"] for row in item.key["rows"]}), "")
        found = self._annotation(item.video, pictures, objects)
        absent = [Dropped(item.video, "object without pixels", f"object {id}") for id in found.absent]
        expressions, dropped = _expressions(item, {track.id for track in found.tracks})
        record = build_record(
            self,
            item.video,
            (pictures.width, pictures.height),
            frame_names=pictures.names,
            frames=pictures.frames,
            objects=found.tracks,
            expressions=expressions,
            path=pictures.source,
            made_from=[json.dumps(item.key["rows"]), *pictures.names, *pictures.raw, *found.data],
            fps=pictures.fps,
            timestamps=pictures.timestamps,
        )
        return Reading(record, (*absent, *dropped))

    def _rows(self) -> dict[str, list[dict[str, Any]]]:
        """Returns the rows of the table by video; blank lines are skipped."""
        reader = csv.reader(io.StringIO(annotation_text(self.root, TABLE), newline=""), strict=True)
        path = self.root.path(TABLE)
        rows: dict[str, list[dict[str, Any]]] = defaultdict(list)
        try:
            header = [name.strip() for name in next(reader, [])]
            if not set(COLUMNS) <= set(header) <= {*COLUMNS, "split"} or len(set(header)) < len(header):
                raise LayoutError(
                    f"{path} begins with the columns {', '.join(header) or 'none'}. It needs {', '.join(COLUMNS)} and, "
                    f"if wanted, split."
                )
            for fields in filter(None, reader):
                video, row = _row(header, fields, f"{path}, line {reader.line_num}")
                rows[video].append({"id": str(len(rows[video])), **row})
        except csv.Error as error:
            raise LayoutError(f"{path}, line {reader.line_num}: {error}. Close every double quote.") from error
        if not rows:
            raise LayoutError(f"{path} has no row below its header. Write one a sentence: {', '.join(COLUMNS)}.")
        return rows

    def _places(self) -> dict[str, list[str]]:
        """Returns, by video, the folders and files with its frames: exactly one if the dataset is well-formed."""
        places: dict[str, list[str]] = defaultdict(list)
        try:
            for name in self.root.names("JPEGImages"):
                places[name].append(f"JPEGImages/{name}")
            for name in self.root.names("videos"):
                if PurePosixPath(name).suffix.lower() in VIDEOS:
                    places[PurePosixPath(name).stem].append(f"videos/{name}")
        except PermissionError as error:
            raise LayoutError(f"{error} Make the folder readable for this user.") from error
        if not places:
            raise LayoutError(
                f"{self.root.path()} holds no frames. Put them into JPEGImages/<video>/, or video files into videos/."
            )
        return places

    def _pictures(self, item: Item) -> Pictures:
        checked_video(item.video)
        places = item.key["places"]
        if len(places) != 1:
            also = f"videos/{item.video}.mp4"
            found = f"has frames in {' and '.join(places)}" if places else f"has no JPEGImages/{item.video}/ or {also}"
            raise BadItem(item.video, "list", f"{self.root.path()} {found}. Each video of {TABLE} needs one place.")
        place = places[0]
        if not place.startswith("videos/"):
            names = self._images(item.video, place)
            frames, size = image_frames(self.root, [f"{place}/{name}" for name in names.values()], item.video)
            return Pictures(tuple(names), frames, *size, place, frames)
        data = item_bytes(self.root, place, item.video)
        try:
            video = decode_video(data, self.quality)
        except ValueError as error:
            raise BadItem(item.video, "decode", f"{self.root.path(place)}: {error}") from error
        names = tuple(f"{index:05d}" for index in range(len(video.frames)))
        size = (video.width, video.height)
        return Pictures(names, video.frames, *size, place, (data,), video.timestamps, video.fps)

    def _images(self, video: str, place: str) -> dict[str, str]:
        """Returns the file name of each frame, ordered by the numbers in it: frame2 comes before frame10."""
        files = [name for name in self._names(video, place) if PurePosixPath(name).suffix.lower() in IMAGES]
        images = {PurePosixPath(name).stem: name for name in sorted(files, key=_by_number)}
        if not images or len(images) < len(files):
            found = "two images of one name" if images else f"no image ({', '.join(IMAGES)})"
            raise BadItem(video, "list", f"{self.root.path(place)} holds {found}. It needs one a frame.")
        return images

    def _names(self, video: str, folder: str) -> list[str]:
        try:
            return self.root.names(folder)
        except PermissionError as error:
            raise BadItem(video, "list", f"{error} Make {self.root.path(folder)} readable for this user.") from error

    def _annotation(self, video: str, pictures: Pictures, objects: dict[int, str]) -> Annotation:
        folder = f"Annotations/{video}"
        pngs = {name.removesuffix(".png") for name in self._names(video, folder) if name.endswith(".png")}
        span = f"{pictures.names[0]} … {pictures.names[-1]}"
        if not pngs:
            raise BadItem(video, "list", f"{self.root.path(folder)} holds no PNG. Name them as the frames: {span}.")
        if strange := sorted(pngs.difference(pictures.names)):
            path = self.root.path(f"{folder}/{strange[0]}.png")
            raise BadItem(video, "list", f"{path} belongs to no frame. Name it as one of {span}, or remove it.")
        names = [f"{folder}/{name}.png" if name in pngs else None for name in pictures.names]
        return read_annotation(video, self.root, names, (pictures.width, pictures.height), objects)


def _row(header: list[str], fields: list[str], where: str) -> tuple[str, dict[str, Any]]:
    """Returns the video of one line, and its other values.

    Raises:
        LayoutError: the line has more or fewer fields than the header, no video, no split, or no object id from 1.
    """
    if len(fields) != len(header):
        raise LayoutError(
            f"{where} has {len(fields)} fields, not {len(header)}. Put a text with commas in double quotes."
        )
    row = {"split": "train"} | dict(zip(header, fields, strict=True))
    video, object_id, split = row["video"].strip(), row["object_id"].strip(), row["split"].strip()
    if not video or not split:
        raise LayoutError(f"{where} has no {'split' if video else 'video'}. Fill it in, or take the line out.")
    if not (object_id.isascii() and object_id.isdigit() and int(object_id)):
        raise LayoutError(
            f"{where}: object_id {object_id!r} is no whole number from 1. It is what the PNG's pixels hold."
        )
    return video, {"object_id": int(object_id), "text": row["text"], "split": split}


def _expressions(item: Item, known: set[int]) -> tuple[tuple[Expression, ...], tuple[Dropped, ...]]:
    """Returns the sentences with their objects. Drops empty ones, and those whose object has no pixel in any PNG."""
    expressions, dropped = [], []
    for row in item.key["rows"]:
        if not row["text"].strip():
            dropped.append(Dropped(item.video, EMPTY, f"expression {row['id']}"))
        elif row["object_id"] not in known:
            dropped.append(Dropped(item.video, "expression of an object that is not there", f"expression {row['id']}"))
        else:
            expressions.append(Expression(row["id"], row["text"], (row["object_id"],), external_id=row["id"]))
    return tuple(expressions), tuple(dropped)


def _by_number(name: str) -> list[str | int]:
    """Splits a name into text and numbers, so that names sort by the value of the numbers."""
    return [
        int(part) if place % 2 else part for place, part in enumerate(re.split("([0-9]+)", PurePosixPath(name).stem))
    ]
