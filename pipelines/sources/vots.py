"""The referring track of VOTS (VOTSr2026): sequences of its toolkit, each with several sentences about one object."""

import hashlib
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool

from pipelines.errors import BadItem, LayoutError, shown
from pipelines.files import Folder
from pipelines.records import Expression, ObjectTrack
from pipelines.sources.base import Item, Reading, build_record
from pipelines.sources.reading import annotation_text, checked_split, checked_video, image_frames, item_bytes
from sgmg.masks import Size, mask_to_rle

SPLITS = ("valid", "test")
IGNORED = "ignored"
"""Category of the track of pixels that are not scored."""

_LIST = "list.txt"
_MASKS, _SUFFIX = "groundtruth", ".txt"
_IGNORE = "_ignore"


@dataclass(frozen=True, slots=True)
class Vots:
    """Reads `sequences/` of a workspace of the VOT toolkit, or that folder itself.

    A sequence has its frames in `color/00000001.jpg` and so on, its sentences under `prompts` in the file `sequence`
    and, in valid, the masks of the one object that all of them mean in `groundtruth*.txt`, a line a frame: `0` is a
    frame that is not annotated.

    Raises:
        LayoutError: the track has no such split.
    """

    root: Folder
    split: str
    dataset: str = "vots"

    def __post_init__(self) -> None:
        checked_split(self.dataset, self.split, SPLITS)

    def items(self) -> list[Item]:
        """Returns every listed sequence, sorted.

        Raises:
            LayoutError: the list is missing, or empty.
        """
        folder = "sequences" if self.root.has("sequences") else ""
        lines = annotation_text(self.root, f"{folder}/{_LIST}".lstrip("/")).splitlines()
        listed = {line.strip() for line in lines if line.strip()}
        if not listed:
            raise LayoutError(f"{self.root.path(folder)}/{_LIST} lists no sequence. Make the workspace again.")
        return [Item(name, f"{folder}/{name}".lstrip("/")) for name in sorted(listed)]

    def read(self, item: Item) -> Reading:
        """Reads one sequence with all its frames; in valid also its masks.

        Raises:
            BadItem: a file is missing or damaged, or the sequence has no sentence.
        """
        checked_video(item.video)
        folder = self.root.folder(item.key)
        about = item_bytes(folder, "sequence", item.video)
        prompts = prompts_of(item.video, about, folder.path("sequence"))
        names = folder.names("color", ".jpg")
        frames, (width, height) = image_frames(folder, [f"color/{name}" for name in names], item.video)
        files = self._truth_files(folder, item.video)
        texts = {id: item_bytes(folder, name, item.video) for id, name in files.items()}
        objects = tuple(
            ObjectTrack(
                number,
                _rles(item.video, folder.path(files[id]), texts[id], len(frames), (height, width)),
                category=IGNORED if id == _IGNORE else "",
            )
            for number, id in enumerate(sorted(files, key=lambda id: id == _IGNORE), start=1)
        )
        expressions = tuple(
            Expression(str(number), text, (1,) if objects else None, external_id=result_name(item.video, text))
            for number, text in enumerate(prompts)
        )
        record = build_record(
            self,
            item.video,
            (width, height),
            frame_names=tuple(name.removesuffix(".jpg") for name in names),
            frames=frames,
            objects=objects,
            expressions=expressions,
            path=item.key,
            made_from=[about, *frames, *texts.values()],
        )
        return Reading(record)

    def _truth_files(self, folder: Folder, video: str) -> dict[str, str]:
        """Returns the files of masks by what they show: the one object, and pixels that are ignored."""
        if self.split == "test":
            return {}
        names = [name for name in folder.names(suffix=_SUFFIX) if name.startswith(_MASKS)]
        files = {name.removeprefix(_MASKS).removeprefix("_").removesuffix(_SUFFIX): name for name in names}
        if len(files.keys() - {_IGNORE}) != 1:
            found = ", ".join(names) or f"no {_MASKS}*{_SUFFIX}"
            raise BadItem(
                video, "list", f"{folder.path()} holds {found}, but the truth is of one object. Get it again."
            )
        return files


def result_name(video: str, text: str) -> str:
    """Returns what the file of results of a sentence is called: the sequence, and 8 digits of the sentence's MD5.

    >>> result_name("aurora", "the aurora")
    'aurora_b2654d24'
    """
    return f"{video}_{hashlib.md5(text.encode(), usedforsecurity=False).hexdigest()[:8]}"


def prompts_of(video: str, about: bytes, path: str) -> list[str]:
    """Returns the sentences that the file `sequence` of a sequence holds.

    Args:
        about: content of the file at `path`.

    Raises:
        BadItem: it holds none.
    """
    lines = about.decode("utf-8", "replace").splitlines()
    found = dict(line.split("=", 1) for line in lines if "=" in line)
    texts = list(dict.fromkeys(text for text in found.get("prompts", "").split(";") if text.strip()))
    if not texts:
        raise BadItem(
            video, "list", f"{path} has no sentence under 'prompts'. Take the sequences of the referring track."
        )
    return texts


def _rles(video: str, path: str, text: bytes, t: int, size: Size) -> tuple[str | None, ...]:
    """Returns the masks of t frames; of frames beyond the last line, and of those with the line 0, there are none."""
    lines = [line.strip() for line in text.decode("ascii", "replace").rstrip().splitlines()]
    if len(lines) > t:
        raise BadItem(video, "list", f"{path} has {len(lines)} lines for {t} frames. Get the sequence again.")
    rles: list[str | None] = []
    for number, line in enumerate(lines, start=1):
        try:
            rles.append(None if line == "0" else mask_to_rle(decode_region(line, size)))
        except ValueError as error:
            raise BadItem(video, "decode", f"{path}, line {number}: {error}. Get the sequence again.") from error
    return (*rles, *[None] * (t - len(rles)))


def decode_region(text: str, size: Size) -> Bool[np.ndarray, "h w"]:
    """Returns the mask that a line of the toolkit's text files holds: a box, and the runs of its pixels row by row.

    >>> decode_region("m1,0,2,2,0,3,1", (3, 4)).astype(int).tolist()
    [[0, 1, 1, 0], [0, 1, 0, 0], [0, 0, 0, 0]]

    Raises:
        ValueError: the line is no mask, or the box leaves the frame of height, width `size`.
    """
    if not text.startswith("m"):
        raise ValueError(f"{shown(text)} is no mask, which begins with m")
    try:
        x, y, width, height, *runs = map(int, text[1:].split(","))
    except ValueError as error:
        raise ValueError(f"{shown(text)} is no mask: m, and numbers with commas between them") from error
    if min(x, y, width, height, *runs, 0) < 0 or x + width > size[1] or y + height > size[0]:
        raise ValueError(f"the mask of {width}x{height} pixels at {x}, {y} leaves its frame of {size[1]}x{size[0]}")
    if sum(runs) > width * height:
        raise ValueError(f"the runs of the mask are longer than its {width}x{height} pixels")
    pixels = np.zeros(width * height, dtype=np.bool_)
    ends = np.cumsum(runs, dtype=np.int64)
    for start, end in zip(ends[:-1:2].tolist(), ends[1::2].tolist(), strict=False):
        pixels[start:end] = True
    mask = np.zeros(size, dtype=np.bool_)
    mask[y : y + height, x : x + width] = pixels.reshape(height, width)
    return mask


def encode_region(mask: Bool[np.ndarray, "h w"]) -> str:
    """Returns the line of a mask, of its bounding box alone; `0` if it has no pixel.

    >>> encode_region(np.array([[0, 1, 1, 0], [0, 1, 0, 0], [0, 0, 0, 0]], dtype=bool))
    'm1,0,2,2,0,3,1'
    """
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if not rows.size:
        return "0"
    x, y, width, height = columns[0], rows[0], np.ptp(columns) + 1, np.ptp(rows) + 1
    pixels = mask[y : y + height, x : x + width].ravel()
    changes = np.flatnonzero(np.diff(pixels)) + 1
    runs = np.diff([0, *changes.tolist(), pixels.size]).tolist()
    return "m" + ",".join(map(str, [x, y, width, height, *([0] if pixels[0] else []), *runs]))
