"""A folder, or a zip, of PNGs of object ids as DAVIS has them, and a table of sentences; our davis.zip is one."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath

from pipelines.errors import BadItem, LayoutError
from pipelines.files import Folder
from pipelines.sources.base import Item, Reading
from pipelines.sources.frame_files import FrameFiles, PictureSize, is_folder
from pipelines.sources.label_colours import LABEL_MAP, ColourTable, colour_table
from pipelines.sources.labels import record_of_tracks
from pipelines.sources.object_maps import read_annotation
from pipelines.sources.pictures import Pictures
from pipelines.sources.reading import checked_video, item_bytes
from pipelines.sources.sentence_table import TABLE, SentenceTable, rows_of, sentences_of_rows
from pipelines.sources.zip_folder import ZipFolder
from pipelines.video.exif import header_of
from pipelines.video.suffixes import suffix_of

_MASKS = ("Annotations", "Annotations/480p", "Annotations/Full-Resolution", "")
_IMAGES = ("JPEGImages", "JPEGImages/480p", "JPEGImages/Full-Resolution", "")


def davis_root(raw: Folder) -> Folder:
    """Returns the folder of masks and table that --raw names: itself, or what is in a zip.

    Raises:
        LayoutError: it is neither.
    """
    if is_folder(raw):
        return raw
    if suffix_of(raw.name) != ".zip":
        raise LayoutError(f"{raw.path()} is no folder and no zip. Point --raw at the folder that holds {TABLE}.")
    return ZipFolder.of(raw.uri, TABLE)


@dataclass(frozen=True, slots=True)
class DavisFolder:
    """PNGs in `Annotations/<video>/<frame>.png` or `<video>/<frame>.png`, and `expressions.csv` beside them.

    The columns of the table are video, object_id (the value of the object's pixels), text and, optionally, expression
    (an id) and split. Frames have the names of their PNGs, those of a video file are 00000, 00001, …; a frame without
    PNG is not annotated. PNGs may have colours (`label_colours.colour_table`).

    Args:
        root: the folder, see `davis_root`.
        split: any name if the table has no column split.
        files: where the images (by default `JPEGImages/<video>` or `<video>` in the folder) or video files are.
    """

    root: Folder
    split: str
    files: FrameFiles
    dataset: str = "davis-folder"

    def items(self) -> list[Item]:
        """Returns every video of the split, sorted. The key holds its sentences, and the objects of other splits.

        Raises:
            LayoutError: the table is missing, or a line of it is malformed.
        """
        self.files.check()
        table = SentenceTable(self.root)
        sentences, others = table.sentences(self.split), table.objects_of_others(self.split)
        return [
            Item(video, {"rows": rows_of(sentences[video]), "others": sorted(others[video])})
            for video in sorted(sentences)
        ]

    def read(self, item: Item) -> Reading:
        """Reads one video with all its frames, and the objects that its sentences are about.

        Raises:
            BadItem: frames or PNGs are missing, damaged, or contradict one another.
        """
        checked_video(item.video)
        folder = self._masks(item.video)
        pngs = {PurePosixPath(name).stem: name for name in self.root.names(folder) if suffix_of(name) == ".png"}
        pictures = self._pictures(item.video, folder, pngs)
        names = [f"{folder}/{pngs[name]}" if name in pngs else None for name in pictures.names]
        sentences, others = sentences_of_rows(item.key["rows"]), item.key["others"]
        objects = dict.fromkeys(sorted({id for one in sentences for id in one.objects}), "")
        only = next(iter(objects)) if len(objects) == 1 and not others else None
        size = (pictures.width, pictures.height)
        found = read_annotation(item.video, self.root, names, size, objects, only, self._colours, others)
        if found.doubtful.issuperset(objects):
            held = ", ".join(map(str, found.unknown))
            raise BadItem(
                item.video,
                "decode",
                f"{TABLE} speaks of object {', '.join(map(str, objects))}, but the PNGs in {self.root.path(folder)} "
                f"hold {held} only. Mend the table.",
            )
        made_from = [json.dumps(item.key), *found.data]
        tracks = [track for track in found.tracks if track.id not in found.doubtful]
        return record_of_tracks(self, item.video, pictures, tracks, sentences, dropped=(), made_from=made_from)

    def _colours(self) -> ColourTable:
        inside = self.root.folder("Annotations")
        return colour_table(inside if inside.has(LABEL_MAP) else self.root)

    def _masks(self, video: str) -> str:
        """Returns the folder of the PNGs of a video."""
        folders = [f"{above}/{video}".lstrip("/") for above in _MASKS]
        for folder in folders:
            if any(suffix_of(name) == ".png" for name in self.root.names(folder)):
                return folder
        raise BadItem(video, "list", f"{self.root.path(folders[0])} holds no PNG. Name them as the frames.")

    def _pictures(self, video: str, folder: str, masks: Mapping[str, str]) -> Pictures:
        """Returns the pictures of a video: its masks, the PNGs in `folder`, are images too, but none of them."""
        images, masks_path = self.files.images, self.root.path(folder)
        above = ("",) if self.files.frames else _IMAGES
        folders = [f"{one}/{video}".lstrip("/") for one in above]
        others = [one for one in folders if images.path(one) != masks_path]
        pictures = self.files.whole(video, self._size(video, f"{folder}/{next(iter(masks.values()))}"), folders=others)
        if strange := sorted(masks.keys() - set(pictures.names)):
            span = f"{pictures.names[0]} … {pictures.names[-1]}"
            raise BadItem(video, "list", f"the PNG {strange[0]} belongs to no frame of {pictures.source}: {span}.")
        return pictures

    def _size(self, video: str, name: str) -> PictureSize | None:
        """Returns the (width, height) of a mask; None if it is damaged, as is said where its pixels are read."""
        try:
            return header_of(item_bytes(self.root, name, video))[0]
        except BadItem:
            raise
        except ValueError:
            return None
