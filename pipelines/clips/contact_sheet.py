"""A picture for checking data: frames with the outline of the object, its box and the sentence."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np
from jaxtyping import Bool, UInt8
from PIL import Image, ImageDraw

from pipelines.clips.augmentation import ClipRecipe
from pipelines.clips.clip import Clip, ClipParams, apply_params, sample_params
from pipelines.clips.sample_reader import FoundSample, RowGroup, sample_of
from pipelines.clips.sample_table import SampleRef, anchor_count
from pipelines.clips.sampling import clip_rng
from pipelines.drawing.text import broken_lines, font_of
from pipelines.files import Folder
from pipelines.images import decode_image, nearest
from pipelines.manifest import NO_TARGET, WITHHELD, Manifest, RowInfo, read_rows
from pipelines.records import Expression, ObjectTrack, Record, record_of
from sgmg.masks import mask_to_xyxy, rle_to_mask

Box = tuple[float, float, float, float]

WIDTH = 1460  # pixels of the sheet; a wider tile widens it
HEIGHT = 200  # pixels of every frame
GAP, TEXT, LINE = 10, 14, 18
FRAMES = 4  # most frames of a video
OUTLINE, BOX, PAPER, INK = (255, 60, 160), (0, 230, 255), (24, 24, 28), (240, 240, 240)


@dataclass(frozen=True, slots=True)
class Tile:
    """One sample of the sheet: its frames side by side, under its caption.

    `boxes` are xyxy in pixels of the frames; None for a frame without box. `below` is drawn under the tile: the same
    sample, augmented.
    """

    frames: UInt8[np.ndarray, "t h w 3"]  # RGB
    masks: Bool[np.ndarray, "t h w"]
    boxes: Sequence[Box | None]
    caption: str
    below: "Tile | None" = None


def contact_sheet(tiles: Sequence[Tile]) -> Image.Image:
    """Draws the tiles in reading order on one sheet.

    Raises:
        ValueError: there are no tiles.
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


def prepared_tiles(folder: Folder, manifest: Manifest, count: int, recipe: ClipRecipe | None = None) -> list[Tile]:
    """Makes tiles of `count` samples (or all, if fewer) of a prepared folder, evenly spread over its expressions.

    Holds one row group in memory at a time.

    Args:
        recipe: augmentation of the clip that is shown below each sample; None shows no clip.
    """
    total = manifest.counts["expressions"]
    count = min(count, total)
    selected = [(2 * place + 1) * total // (2 * count) for place in range(count)]
    tiles: list[Tile] = []
    first = 0
    for part, shard in enumerate(manifest.shards):
        for number, group in enumerate(shard.row_groups):
            expressions = [
                (row, expression) for row in range(len(group)) for expression in range(group[row].expressions)
            ]
            if here := [expressions[index - first] for index in selected if first <= index < first + len(expressions)]:
                rows = [record_of(row) for row in read_rows(folder, shard.file, number)]
                frames = RowGroup.read(folder, shard.file, number)
                for row, expression in here:
                    tile = record_tile(rows[row], rows[row].expressions[expression])
                    if recipe is not None:
                        sample = SampleRef(part, shard.file, number, row, expression, anchor=0)
                        tile = replace(tile, below=augmented_tile(frames, sample, group[row], recipe))
                    tiles.append(tile)
            first += len(expressions)
    return tiles


def augmented_tile(group: RowGroup, sample: SampleRef, row: RowInfo, recipe: ClipRecipe) -> Tile:
    """Makes a tile of the clip at the middle anchor of an expression, or of the reason why there is no clip.

    The clip is that of epoch 0 of seed 0.
    """
    reason = (row.untrainable or {}).get(sample.expression)
    anchors = anchor_count(row, sample.expression, recipe.length)
    if reason or not anchors:
        return _nothing(f"not learned from: {reason or 'no frame is annotated'}")
    found = sample_of(group, replace(sample, anchor=anchors // 2), recipe)
    drawn = None if found.unfit else sample_params(recipe, found.clip, clip_rng(0, 0, found.name))
    if drawn is None:
        return _nothing(f"dropped: {found.unfit or f'object in no frame after {recipe.redraws} draws'}")
    frames = [group.frame(sample.row, found.frames[place]) for place in drawn.distinct]
    clip = apply_params(drawn, frames, [found.clip.rles[place] for place in drawn.distinct])
    return _clip_tile(clip, drawn, found)


def _clip_tile(clip: Clip, drawn: ClipParams, found: FoundSample) -> Tile:
    masks = np.zeros(clip.frames.shape[:3], dtype=np.bool_)
    boxes: list[Box | None] = [None] * len(masks)
    for place, mask, box, valid in zip(drawn.targets, clip.masks, clip.boxes.tolist(), clip.valid, strict=True):
        masks[place] = mask
        boxes[place] = (box[0], box[1], box[2], box[3]) if valid else None
    height, width = drawn.geometry.size
    done = [f"{width}x{height}", *["cropped"] * (drawn.geometry.crop is not None), *["mirrored"] * drawn.flip]
    numbers = " ".join(str(found.frames[place]) for place in drawn.frames)
    where = f", frames {numbers}" if len(drawn.frames) > 1 else ""
    return Tile(clip.frames, masks, boxes, f"{clip.text}\naugmented: {', '.join(done)}{where}")


def _nothing(reason: str) -> Tile:
    empty = np.zeros((0, 1, 1, 3), dtype=np.uint8)
    return Tile(empty, empty[..., 0].view(np.bool_), [], reason)


def record_tile(record: Record, expression: Expression) -> Tile:
    """Makes a tile of one expression of a record at a few of its frames, annotated ones if there are any."""
    tracks = [track for track in record.objects if track.id in expression.targets]
    annotated = [t for t in range(len(record.frames)) if not tracks or _annotated(tracks, t)]
    frames = expression.frames or annotated or range(len(record.frames))
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
        caption=f"{expression.text}\n{where}{_absence(expression)}",
    )


def _absence(expression: Expression) -> str:
    if expression.object_ids is None:
        return f"  ({WITHHELD})"
    return "" if expression.object_ids else f"  ({NO_TARGET})"


def _annotated(tracks: Sequence[ObjectTrack], t: int) -> bool:
    return any(track.rle[t] is not None for track in tracks)


def _union(tracks: Sequence[ObjectTrack], t: int, size: tuple[int, int]) -> Bool[np.ndarray, "h w"]:
    mask = np.zeros(size, dtype=np.bool_)
    for track in tracks:
        if rle := track.rle[t]:
            mask |= rle_to_mask(rle, size)
    return mask


def _box(tracks: Sequence[ObjectTrack], t: int, mask: Bool[np.ndarray, "h w"]) -> Box | None:
    """Returns the bounding box of the annotated boxes, or else that of the mask."""
    given = [box for track in tracks if track.boxes and (box := track.boxes[t])]
    if given:
        low, high = np.min(given, axis=0), np.max(given, axis=0)
        return (float(low[0]), float(low[1]), float(high[2]), float(high[3]))
    if not mask.any():
        return None
    x1, y1, x2, y2 = mask_to_xyxy(mask).tolist()
    return (x1, y1, x2, y2)


def _lines(pictures: Sequence[Image.Image], width: int) -> Iterator[list[Image.Image]]:
    """Groups the pictures that fit side by side."""
    line: list[Image.Image] = []
    for picture in pictures:
        if line and sum(one.width + GAP for one in [*line, picture]) + GAP > width:
            yield line
            line = []
        line.append(picture)
    yield line


def _picture(tile: Tile) -> Image.Image:
    """Draws a tile with the one below it; rows of frames that would not fit onto the sheet are scaled down."""
    rows = [_row(one) for one in (tile, tile.below) if one is not None]
    width = max(sum(frame.width + 2 for frame in frames) - 2 for frames, _ in rows)
    texts = [
        [line for part in caption.splitlines() for line in broken_lines(part, font_of(TEXT), width)]
        for _, caption in rows
    ]
    heights = [max((frame.height for frame in frames), default=0) for frames, _ in rows]
    between = GAP * (len(rows) - 1)
    picture = Image.new("RGB", (width, sum(map(len, texts)) * LINE + sum(heights) + between), PAPER)
    draw = ImageDraw.Draw(picture)
    y = 0
    for (frames, _), text, height in zip(rows, texts, heights, strict=True):
        for words in text:
            draw.text((0, y), words, INK, font_of(TEXT))
            y += LINE
        x = 0
        for frame in frames:
            picture.paste(frame, (x, y))
            x += frame.width + 2
        y += height + GAP
    return picture


def _row(tile: Tile) -> tuple[list[Image.Image], str]:
    """Returns the frames at display size, and their caption."""
    if not len(tile.frames):
        return [], tile.caption
    t, height, width = tile.frames.shape[:3]
    room = WIDTH - 2 * GAP - 2 * (t - 1)
    shown = min(HEIGHT, room * height // (t * width)) if t > FRAMES else HEIGHT
    frames = [_frame(*one, shown) for one in zip(tile.frames, tile.masks, tile.boxes, strict=True)]
    return frames, tile.caption


def _frame(
    frame: UInt8[np.ndarray, "h w 3"], mask: Bool[np.ndarray, "h w"], box: Box | None, height: int
) -> Image.Image:
    """Scales a frame to that height and draws the outline of its object and the box."""
    scale = height / frame.shape[0]
    width = max(1, round(frame.shape[1] * scale))
    image = np.asarray(Image.fromarray(np.ascontiguousarray(frame)).resize((width, height))).copy()
    small = nearest(mask, height, width).astype(np.uint8)
    image[cv2.dilate(small, np.ones((5, 5), np.uint8)) > small] = OUTLINE  # outside the object: covers none of it
    picture = Image.fromarray(image)
    if box is not None:
        ImageDraw.Draw(picture).rectangle([round(side * scale) for side in box], outline=BOX)
    return picture
