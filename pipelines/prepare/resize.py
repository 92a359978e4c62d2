"""Resizing a record: frames, masks and boxes by the resize rule of the model (spec model.md §8)."""

from collections.abc import Sequence
from dataclasses import replace

import cv2

from pipelines.errors import BadItem
from pipelines.images import decode_image, nearest
from pipelines.records import ObjectTrack, Record
from sgmg.masks import Size, masks_to_rles, rles_to_masks
from sgmg.resize import resize_frames, resized_size


def resized(record: Record, short_side: int, quality: int) -> Record:
    """Resizes a record so that its shorter side has `short_side` pixels; a smaller one is returned unchanged.

    Frames are resized by Pillow's antialiased bilinear filter and become JPEG of the given quality without chroma
    subsampling (4:4:4), since sentences name colours and small objects would lose theirs. Masks are resized by nearest
    neighbour; boxes and areas are scaled. `original_width`, `original_height` keep the size of the source.

    Raises:
        BadItem: a frame cannot be decoded.
    """
    old = (record.height, record.width)
    if min(old) <= short_side:
        return record
    new = resized_size(*old, short_side)
    frames = tuple(
        _resized_frame(record.video, name, data, old, new, quality)
        for name, data in zip(record.frame_names, record.frames, strict=True)
    )
    objects = tuple(_resized_track(track, old, new) for track in record.objects)
    return replace(record, height=new[0], width=new[1], frames=frames, objects=objects)


def _resized_frame(video: str, name: str, data: bytes, old: Size, new: Size, quality: int) -> bytes:
    try:
        frame = decode_image(data, old)
    except ValueError as error:
        reason = f"Pillow reads frame {name}, but OpenCV does not. Store it as JPEG or PNG."
        raise BadItem(video, "resize", reason) from error
    (frame,) = resize_frames(frame[None], *new)
    sampling = [cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444]
    written, encoded = cv2.imencode(".jpg", frame[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality, *sampling])
    assert written
    return encoded.tobytes()


def _resized_track(track: ObjectTrack, old: Size, new: Size) -> ObjectTrack:
    high, wide = new[0] / old[0], new[1] / old[1]
    boxes, area = track.boxes, track.area
    return replace(
        track,
        rle=_resized_rles(track.rle, old, new),
        boxes=boxes and tuple(box and (box[0] * wide, box[1] * high, box[2] * wide, box[3] * high) for box in boxes),
        area=area and tuple(None if pixels is None else pixels * high * wide for pixels in area),
    )


def _resized_rles(rles: Sequence[str | None], old: Size, new: Size) -> tuple[str | None, ...]:
    """Resizes one mask at a time: a long video of large frames would not fit in memory as a stack."""
    return tuple(None if rle is None else masks_to_rles(nearest(rles_to_masks([rle], old), *new))[0] for rle in rles)
