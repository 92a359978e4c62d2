"""The manifest's description of a row: enough to plan an epoch without reading the row."""

from pipelines.manifest import CROWD, NO_AREA, NO_PIXELS, NO_TARGET, WITHHELD, RowInfo, annotated_frames
from pipelines.records import Expression, ObjectTrack, Record
from sgmg.masks import Size, rle_area


def row_info(record: Record) -> RowInfo:
    """Describes a record for the manifest."""
    tracks = {track.id: track for track in record.objects}
    reasons = {
        index: reason
        for index, expression in enumerate(record.expressions)
        if (reason := _untrainable(expression, tracks, (record.height, record.width)))
    }
    named = any(expression.frames is not None for expression in record.expressions)
    t = len(record.frames)
    annotated = annotated_frames([track.rle for track in record.objects]) if record.objects else range(t)
    return RowInfo(
        video=record.video,
        frames=len(annotated),
        expressions=len(record.expressions),
        anchor_counts=tuple(t if one.frames is None else len(one.frames) for one in record.expressions)
        if named
        else None,
        untrainable=reasons or None,
    )


def _untrainable(expression: Expression, tracks: dict[int, ObjectTrack], size: Size) -> str:
    """Returns why an expression cannot be learned from; empty if it can."""
    if expression.object_ids is None:
        return WITHHELD
    if not expression.object_ids:
        return NO_TARGET
    objects = [tracks[id] for id in expression.object_ids]
    if any(track.iscrowd for track in objects):
        return CROWD
    frames = range(len(objects[0].rle)) if expression.frames is None else expression.frames
    if len(objects[0].rle) == 1 and any(_without_area(track) for track in objects):
        return NO_AREA  # Images train with the annotated box; videos with that of the mask.
    masks = (track.rle[frame] for track in objects for frame in frames)
    return "" if any(rle and rle_area(rle, size) for rle in masks) else NO_PIXELS


def _without_area(track: ObjectTrack) -> bool:
    box = track.boxes[0] if track.boxes else None
    return box is not None and (box[2] <= box[0] or box[3] <= box[1])
