"""Frames with an EXIF orientation beside masks: whether the masks are of the stored or of the turned pixels."""

import io
from collections.abc import Callable, Iterator, Sequence

from PIL import Image

from pipelines.errors import BadItem
from pipelines.images import opened_image
from pipelines.sources.names import ExifChoice
from pipelines.video.exif import UPRIGHT, header_of, turned_size, upright

_HINT = (
    "Give --exif apply if the masks were drawn on the frames as viewers show them, --exif ignore if as they are stored"
)
Header = tuple[tuple[int, int], int]
"""Stored (width, height) and orientation of a frame."""
MaskSize = tuple[int, tuple[int, int] | None]
"""Index of a frame, and the (width, height) of its mask; None: it cannot be read."""


def fitted_frames(
    video: str,
    frames: Sequence[bytes],
    mask_sizes: Callable[[], Iterator[MaskSize]],
    choice: ExifChoice | None,
    quality: int,
) -> tuple[tuple[bytes, ...], tuple[int, int]]:
    """Returns the frames as the masks fit them, unchanged or turned and encoded again, and their (width, height).

    Args:
        video: for messages.
        frames: encoded images, all of one stored size.
        mask_sizes: of the frames that have a mask; called only if there is something to choose.
        choice: None takes what the sizes of the masks tell.
        quality: JPEG quality of turned frames.

    Raises:
        BadItem: the masks fit both ways, as they do at half a turn or in squares, or turned frames differ in size.
    """
    headers = [header_of(data) for data in frames]
    size = headers[0][0]
    if all(orientation == UPRIGHT for _, orientation in headers):
        return tuple(frames), size
    if choice is None:
        choice = _choice(video, headers, mask_sizes())
    if choice == "ignore":
        return tuple(frames), size
    turned = [turned_size(*header) for header in headers]
    if len(set(turned)) > 1:
        raise BadItem(video, "decode", f"turned as their EXIF says, its frames have the sizes {sorted(set(turned))}")
    return tuple(_turned(data, header[1], quality) for data, header in zip(frames, headers, strict=True)), turned[0]


def _choice(video: str, headers: Sequence[Header], sizes: Iterator[MaskSize]) -> ExifChoice:
    fits_stored = fits_turned = True
    place = None
    for place, size in sizes:
        if size is None:
            return "ignore"
        fits_stored &= size == headers[place][0]
        fits_turned &= size == turned_size(*headers[place])
    if fits_stored and fits_turned:
        why = "its masks fit them turned and not turned" if place is not None else "no size of a mask says how they fit"
        said = f"its frames have an EXIF orientation, and {why}"
        raise BadItem(video, "decode", f"{said}. {_HINT}.")
    return "apply" if fits_turned else "ignore"


def _turned(data: bytes, orientation: int, quality: int) -> bytes:
    if orientation == UPRIGHT:
        return data
    with opened_image(data) as image:
        kind, shown = image.format, upright(image)
    out = io.BytesIO()
    if kind == "JPEG":
        shown.save(out, "JPEG", quality=quality, subsampling=0, exif=Image.Exif())
    else:
        shown.save(out, "PNG", exif=Image.Exif())
    return out.getvalue()
