"""A user's own data: frames or video files, PNGs of object ids, and a table of sentences. The README has an example."""

import json
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import PurePosixPath
from typing import Any

from pipelines.errors import BadItem, Dropped, LayoutError, shown
from pipelines.files import Folder, is_safe_name
from pipelines.manifest import NO_PIXELS
from pipelines.records import Expression
from pipelines.sources.base import Item, Reading, build_record
from pipelines.sources.csv_table import CsvLine, csv_lines
from pipelines.sources.exif_frames import MaskSize, fitted_frames
from pipelines.sources.label_colours import LABEL_MAP, ColourTable, colour_table
from pipelines.sources.meta_expressions import EMPTY
from pipelines.sources.names import ExifChoice
from pipelines.sources.object_maps import Annotation, read_annotation
from pipelines.sources.pictures import Pictures, pictures_of_file
from pipelines.sources.reading import annotation_text, checked_video, image_frames, item_bytes, whole_number
from pipelines.sources.video_files import QUALITY
from pipelines.video.exif import header_of
from pipelines.video.suffixes import IMAGE_SUFFIXES, is_image, is_video, suffix_of

TABLE = "expressions.csv"
COLUMNS = ("video", "object_id", "text")
OPTIONAL = ("expression", "split")


@dataclass(frozen=True, slots=True)
class Own:
    """A user's dataset: frames or video files, `Annotations/<video>/<frame>.png`, and `expressions.csv`.

    Frames are in `JPEGImages/<video>/*.jpg|png` or `videos/<video>.mp4`, with any suffix of `pipelines.video.suffixes`;
    a video may be named `<folder>/<video>`. The table has the columns video, object_id, text and, optionally, split and
    expression; without a split every row belongs to train. Frames of a video file are named 00000, 00001, …; a frame
    without a PNG is not annotated. The id of a sentence is its expression, as `annotate --formats davis` writes it, or
    else its index among the rows of its video, from 0. The PNGs hold object ids, or colours
    (`label_colours.colour_table`); those of a video with one object may be black and white.
    """

    root: Folder
    split: str = "train"
    dataset: str = "own"
    quality: int = QUALITY  # JPEG quality of frames from video files, and of turned ones
    exif: ExifChoice | None = None  # None: frames are turned if the masks fit them so

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
        places = self._places(rows)
        items: list[Item] = []
        for video in sorted(rows):
            of_split = [row for row in rows[video] if row["split"] == self.split]
            others = {row["object_id"] for row in rows[video]} - {row["object_id"] for row in of_split}
            key = {"places": places.get(video, []), "rows": of_split, **({"others": sorted(others)} if others else {})}
            items += [Item(video, key)] if of_split else []
        return items

    def read(self, item: Item) -> Reading:
        """Reads one video with all its frames, and the objects that its sentences refer to.

        Raises:
            BadItem: frames or PNGs are missing, damaged, or contradict one another.
        """
        pictures = self._pictures(item)
        objects = dict.fromkeys(sorted({row["object_id"] for row in item.key["rows"]}), "")
        found = self._annotation(item, pictures, objects)
        expressions, dropped = _expressions(item, found)
        record = build_record(
            self,
            item.video,
            (pictures.width, pictures.height),
            frame_names=pictures.names,
            frames=pictures.frames,
            objects=tuple(track for track in found.tracks if track.id not in found.doubtful),
            expressions=expressions,
            path=pictures.source,
            made_from=[json.dumps(item.key["rows"]), *pictures.names, *pictures.raw, *found.data],
            fps=pictures.fps,
            timestamps=pictures.timestamps,
        )
        tracks = (Dropped(item.video, "other video tracks", pictures.other_tracks),) if pictures.other_tracks else ()
        return Reading(record, (*tracks, *dropped))

    def _rows(self) -> dict[str, list[dict[str, Any]]]:
        """Returns the rows of the table by video; blank lines are skipped."""
        path = self.root.path(TABLE)
        rows: dict[str, dict[str, dict[str, Any]]] = defaultdict(dict)
        for line in csv_lines(annotation_text(self.root, TABLE), path, COLUMNS, OPTIONAL):
            where = f"{path}, line {line.number}"
            video, row = _row(line, where)
            row["id"] = row["id"] or str(len(rows[video]))
            if row["id"] in rows[video]:
                raise LayoutError(f"{where}: expression {shown(row['id'])} is there twice in video {shown(video)}.")
            rows[video][row["id"]] = row
        if not rows:
            raise LayoutError(f"{path} has no row below its header. Write one a sentence: {', '.join(COLUMNS)}.")
        return {video: list(listed.values()) for video, listed in rows.items()}

    def _places(self, videos: Iterable[str]) -> dict[str, list[str]]:
        """Returns, by video, the folders and files with its frames: exactly one if the dataset is well-formed.

        Lists the folders that the names of the videos begin with, `a` of `a/b`, or else nothing but the topmost ones.
        """
        places: dict[str, list[str]] = defaultdict(list)
        above = {"", *(name.rpartition("/")[0] for name in videos if is_safe_name(name))}
        try:
            for folder in sorted(above):
                before = f"{folder}/" if folder else ""
                for name in self.root.names(f"JPEGImages/{folder}".rstrip("/")):
                    places[before + name].append(f"JPEGImages/{before}{name}")
                for name in self.root.names(f"videos/{folder}".rstrip("/")):
                    if is_video(name):
                        places[before + PurePosixPath(name).stem].append(f"videos/{before}{name}")
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
            raw, _ = image_frames(self.root, [f"{place}/{name}" for name in names.values()], item.video)
            sizes = partial(self._mask_sizes, item.video, names)
            frames, size = fitted_frames(item.video, raw, sizes, self.exif, self.quality)
            return Pictures(tuple(names), frames, *size, place, raw)
        return pictures_of_file(self.root, place, item.video, self.quality)

    def _images(self, video: str, place: str) -> dict[str, str]:
        """Returns the file name of each frame, ordered by the numbers in it: frame2 comes before frame10."""
        files = [name for name in self._names(video, place) if is_image(name)]
        images = {PurePosixPath(name).stem: name for name in files}
        if not images or len(images) < len(files):
            found = "two images of one name" if images else f"no image ({', '.join(IMAGE_SUFFIXES)})"
            raise BadItem(video, "list", f"{self.root.path(place)} holds {found}. It needs one a frame.")
        return images

    def _names(self, video: str, folder: str) -> list[str]:
        try:
            return self.root.names(folder)
        except PermissionError as error:
            raise BadItem(video, "list", f"{error} Make {self.root.path(folder)} readable for this user.") from error

    def _colours(self) -> ColourTable:
        """Returns the object ids of colours: by the labelmap.txt beside the masks, or else in the topmost folder."""
        inside = self.root.folder("Annotations")
        return colour_table(inside if inside.has(LABEL_MAP) else self.root)

    def _pngs(self, video: str) -> dict[str, str]:
        """Returns the file name of each mask, by the name of its frame."""
        files = [name for name in self._names(video, f"Annotations/{video}") if suffix_of(name) == ".png"]
        return {PurePosixPath(name).stem: name for name in files}

    def _mask_sizes(self, video: str, names: Iterable[str]) -> Iterator[MaskSize]:
        """Yields the sizes of the PNGs that there are of some frames, with the index of the frame."""
        pngs = self._pngs(video)
        for place, name in enumerate(names):
            if name in pngs:
                data = item_bytes(self.root, f"Annotations/{video}/{pngs[name]}", video)
                try:
                    yield place, header_of(data)[0]
                except ValueError:  # reported where its pixels are read
                    yield place, None

    def _annotation(self, item: Item, pictures: Pictures, objects: dict[int, str]) -> Annotation:
        video, folder = item.video, f"Annotations/{item.video}"
        pngs = self._pngs(video)
        span = f"{pictures.names[0]} … {pictures.names[-1]}"
        if not pngs:
            raise BadItem(video, "list", f"{self.root.path(folder)} holds no PNG. Name them as the frames: {span}.")
        if strange := sorted(pngs.keys() - set(pictures.names)):
            path = self.root.path(f"{folder}/{pngs[strange[0]]}")
            raise BadItem(video, "list", f"{path} belongs to no frame. Name it as one of {span}, or remove it.")
        names = [f"{folder}/{pngs[name]}" if name in pngs else None for name in pictures.names]
        others = item.key.get("others", ())
        only = next(iter(objects)) if len(objects) == 1 and not others else None
        size = (pictures.width, pictures.height)
        found = read_annotation(video, self.root, names, size, objects, only, self._colours, others)
        if found.doubtful.issuperset(objects):
            asked = " and ".join(map(str, objects))
            raise BadItem(
                video,
                "decode",
                f"the sentences speak of object {asked}, but {_held(found.unknown)} in {self.root.path(folder)}. Write "
                f"the object's id into the pixels, or mend {TABLE}. (PNGs of 0 and 255 need a video with one object.)",
            )
        return found


def _row(line: CsvLine, where: str) -> tuple[str, dict[str, Any]]:
    """Returns the video of one line, and its other values.

    Raises:
        LayoutError: the line has more or fewer fields than the header, no video, no split, or no object id from 1.
    """
    if line.problem:
        raise LayoutError(f"{where} {line.problem}")
    row = {"split": "train", "expression": ""} | line.values
    video, object_id, split = row["video"].strip(), row["object_id"].strip(), row["split"].strip()
    if not video or not split:
        raise LayoutError(f"{where} has no {'split' if video else 'video'}. Fill it in, or take the line out.")
    number = whole_number(object_id)
    if not number:
        raise LayoutError(
            f"{where}: object_id {shown(object_id)} is no whole number from 1. It is what the PNG's pixels hold."
        )
    return video, {"id": row["expression"].strip(), "object_id": number, "text": row["text"], "split": split}


def _expressions(item: Item, found: Annotation) -> tuple[tuple[Expression, ...], tuple[Dropped, ...]]:
    """Returns the sentences with their objects, those that the masks never show too.

    Drops empty sentences, and those of an object without pixels where the PNGs hold ids that no sentence names.
    """
    expressions, dropped = [], []
    ids = {track.id for track in found.tracks}.difference(found.absent)
    for row in item.key["rows"]:
        if not row["text"].strip():
            dropped.append(Dropped(item.video, EMPTY, f"expression {row['id']}"))
        elif row["object_id"] in found.doubtful:
            what = f"expression {row['id']}, of object {row['object_id']}: {row['text']}"
            held = _held(sorted({*ids, *found.unknown}))
            dropped.append(Dropped(item.video, NO_PIXELS, f"{what} ({held} in its PNGs)"))
        else:
            expressions.append(Expression(row["id"], row["text"], (row["object_id"],), external_id=row["id"]))
    return tuple(expressions), tuple(dropped)


def _held(ids: Sequence[int]) -> str:
    """Says which object ids PNGs hold."""
    shown = ", ".join(map(str, ids[:10])) + (f", … ({len(ids)} in all)" if len(ids) > 10 else "")
    return f"there are only pixels of {shown}" if ids else "there are only pixels of 0"
