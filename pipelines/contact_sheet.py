"""A picture to check data by: frames with the outline of the object, its box and the sentence."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path

import cv2
import numpy as np
from jaxtyping import Bool, UInt8
from PIL import Image, ImageDraw, ImageFont

from pipelines.decode import decode_image
from pipelines.files import Folder
from pipelines.prepared import Manifest, read_rows
from pipelines.records import Expression, ObjectTrack, Record, record_of
from pipelines.resize_record import nearest
from pipelines.row_info import WITHHELD
from sgmg.masks import mask_to_xyxy, rle_to_mask

Box = tuple[float, float, float, float]

WIDTH = 1460  # pixels of the sheet; a tile that is wider makes it wider
HEIGHT = 200  # of every frame
GAP, TEXT = 10, 14
FRAMES = 4  # of a video, at most
OUTLINE, BOX, PAPER, INK = (255, 60, 160), (0, 230, 255), (24, 24, 28), (240, 240, 240)


@dataclass(frozen=True, slots=True)
class Tile:
    """One sample as it is shown: its frames side by side, under its caption.

    `boxes` are xyxy in pixels of the frames, None where there is none.
    """

    frames: UInt8[np.ndarray, "t h w 3"]  # RGB
    masks: Bool[np.ndarray, "t h w"]
    boxes: Sequence[Box | None]
    caption: str


def contact_sheet(tiles: Sequence[Tile]) -> Image.Image:
    """The tiles in reading order, on one sheet.

    Raises:
        ValueError: there is no tile.
    """
    if not tiles:
        raise ValueError("There is nothing to show: no sample was given.")
    pictures = [_picture(tile) for tile in tiles]
    width = max(WIDTH, *(picture.width + 2 * GAP for picture in pictures))
    lines = list(_lines(pictures, width))
    height = GAP + sum(max(picture.height for picture in line) + GAP for line in lines)
    sheet = Image.new("RGB", (width, height), PAPER)
    y = GAP
    for line in lines:
        x = GAP
        for picture in line:
            sheet.paste(picture, (x, y))
            x += picture.width + GAP
        y += max(picture.height for picture in line) + GAP
    return sheet


def prepared_tiles(folder: Folder, manifest: Manifest, count: int) -> list[Tile]:
    """`count` samples of a prepared folder, evenly spread over its expressions; all where there are fewer.

    Holds one row group at a time.
    """
    total = manifest.counts["expressions"]
    count = min(count, total)
    wanted = [(2 * place + 1) * total // (2 * count) for place in range(count)]
    tiles: list[Tile] = []
    first = 0
    for shard in manifest.shards:
        for number, group in enumerate(shard.row_groups):
            after = first + sum(row.expressions for row in group)
            if here := [index - first for index in wanted if first <= index < after]:
                records = [record_of(row) for row in read_rows(folder, shard.file, number)]
                samples = [(record, said) for record in records for said in record.expressions]
                tiles += [record_tile(*samples[index]) for index in here]
            first = after
    return tiles


def record_tile(record: Record, expression: Expression) -> Tile:
    """One expression of a record at a few of its frames, annotated ones if there are any."""
    tracks = [track for track in record.objects if track.id in expression.object_ids]
    frames = expression.frames or [t for t in range(len(record.frames)) if not tracks or _annotated(tracks, t)]
    places = np.linspace(0, len(frames) - 1, min(FRAMES, len(frames))).round().astype(int)
    shown = [frames[place] for place in places]
    size = (record.height, record.width)
    masks = np.stack([_union(tracks, t, size) for t in shown])
    names = " ".join(record.frame_names[t] for t in shown)
    where = record.video if names == record.video else f"{record.video}  {names}"
    return Tile(
        frames=np.stack([decode_image(record.frames[t], size) for t in shown]),
        masks=masks,
        boxes=[_box(tracks, t, mask) for t, mask in zip(shown, masks, strict=True)],
        caption=f"{expression.text}\n{where}{'' if tracks else f'  ({WITHHELD})'}",
    )


def _annotated(tracks: Sequence[ObjectTrack], t: int) -> bool:
    return any(track.rle[t] is not None for track in tracks)


def _union(tracks: Sequence[ObjectTrack], t: int, size: tuple[int, int]) -> Bool[np.ndarray, "h w"]:
    mask = np.zeros(size, dtype=np.bool_)
    for track in tracks:
        if rle := track.rle[t]:
            mask |= rle_to_mask(rle, size)
    return mask


def _box(tracks: Sequence[ObjectTrack], t: int, mask: Bool[np.ndarray, "h w"]) -> Box | None:
    """The annotated boxes as one, or that of the mask."""
    given = [box for track in tracks if track.boxes and (box := track.boxes[t])]
    if given:
        low, high = np.min(given, axis=0), np.max(given, axis=0)
        return (float(low[0]), float(low[1]), float(high[2]), float(high[3]))
    if not mask.any():
        return None
    x1, y1, x2, y2 = mask_to_xyxy(mask).tolist()
    return (x1, y1, x2, y2)


def _lines(pictures: Sequence[Image.Image], width: int) -> Iterator[list[Image.Image]]:
    """The pictures that fit side by side."""
    line: list[Image.Image] = []
    for picture in pictures:
        if line and sum(one.width + GAP for one in [*line, picture]) + GAP > width:
            yield line
            line = []
        line.append(picture)
    yield line


def _picture(tile: Tile) -> Image.Image:
    shown = [_frame(*one) for one in zip(tile.frames, tile.masks, tile.boxes, strict=True)]
    width = sum(frame.width for frame in shown) + 2 * (len(shown) - 1)
    text = _wrapped(tile.caption, width)
    line = TEXT + 4
    picture = Image.new("RGB", (width, line * len(text) + HEIGHT), PAPER)
    draw = ImageDraw.Draw(picture)
    for place, words in enumerate(text):
        draw.text((0, place * line), words, INK, _font())
    x = 0
    for frame in shown:
        picture.paste(frame, (x, line * len(text)))
        x += frame.width + 2
    return picture


def _frame(frame: UInt8[np.ndarray, "h w 3"], mask: Bool[np.ndarray, "h w"], box: Box | None) -> Image.Image:
    """A frame as large as it is shown, the outline of its object and the box drawn at that size."""
    scale = HEIGHT / frame.shape[0]
    width = max(1, round(frame.shape[1] * scale))
    image = np.asarray(Image.fromarray(np.ascontiguousarray(frame)).resize((width, HEIGHT))).copy()
    small = nearest(mask, HEIGHT, width).astype(np.uint8)
    image[cv2.dilate(small, np.ones((5, 5), np.uint8)) > small] = OUTLINE  # outside: nothing of the object is hidden
    picture = Image.fromarray(image)
    if box is not None:
        ImageDraw.Draw(picture).rectangle([round(side * scale) for side in box], outline=BOX)
    return picture


def _wrapped(text: str, width: int) -> list[str]:
    """The text in lines of at most so many pixels; a longer word is cut."""
    lines: list[str] = []
    for paragraph in text.splitlines():
        line = ""
        for word in paragraph.split(" "):
            for part in _cut(_drawable(word), width):
                wider = f"{line} {part}" if line else part
                if line and _font().getlength(wider) > width:
                    lines.append(line)
                    wider = part
                line = wider
        lines.append(line)
    return lines


def _cut(word: str, width: int) -> Iterator[str]:
    while len(word) > 1 and _font().getlength(word) > width:
        fits = max(1, max(n for n in range(len(word)) if _font().getlength(word[:n]) <= width))
        yield word[:fits]
        word = word[fits:]
    yield word


def _drawable(word: str) -> str:
    r"""Letters that the font lacks as their number: \u4e2d can be looked up, an empty square cannot."""
    return "".join(letter if _known(letter) else letter.encode("unicode_escape").decode() for letter in word)


@lru_cache(maxsize=4096)
def _known(letter: str) -> bool:
    return letter.isascii() or _drawn(letter) != _drawn("\uffff")


def _drawn(letter: str) -> bytes:
    image = Image.new("1", (2 * TEXT, 2 * TEXT))
    ImageDraw.Draw(image).text((0, 0), letter, fill=1, font=_font())
    return image.tobytes()


@lru_cache(maxsize=1)
def _font() -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """DejaVu Sans out of matplotlib, which MLflow brings; Pillow's own font knows no letter beyond ASCII."""
    matplotlib = find_spec("matplotlib")
    for folder in (matplotlib and matplotlib.submodule_search_locations) or []:
        font = Path(folder) / "mpl-data/fonts/ttf/DejaVuSans.ttf"
        if font.is_file():
            return ImageFont.truetype(str(font), TEXT)
    return ImageFont.load_default(TEXT)
