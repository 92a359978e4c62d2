"""A folder of images read as a video; images are ordered by the numbers in their names.

Runs in the decoder process (`pipelines.video.decoder_process`).
"""

import hashlib
import io
import re
from collections.abc import Iterator, Sequence
from fractions import Fraction
from pathlib import PurePosixPath

import numpy as np
import pyarrow as pa
from jaxtyping import UInt8
from PIL import Image
from pyarrow import fs

from pipelines.errors import BadItem
from pipelines.files import resolve_filesystem
from pipelines.video.frame_reader import UNTIMED_FPS, Damage, Frame
from pipelines.video.listing import IMAGE_SUFFIXES, Video
from pipelines.video.pixels import over_black, square_size
from pipelines.video.probe import Timeline, VideoInfo
from sgmg.resize import resize_frames


def images_timeline(video: Video) -> Timeline:
    """Lists the images by name, numbers in names by value, at 24 per second since images carry no times.

    Raises:
        BadItem: the folder does not exist or cannot be listed, or no image can be decoded.
    """
    filesystem, folder = resolve_filesystem(video.path)
    try:
        found = filesystem.get_file_info(fs.FileSelector(folder))
    except (OSError, pa.ArrowException) as error:
        raise BadItem(video.path, "read", f"the folder cannot be listed ({error})") from error
    sizes = {
        info.base_name: info.size
        for info in found
        if info.type == fs.FileType.File
        and PurePosixPath(info.base_name).suffix.lower() in IMAGE_SUFFIXES
        and not info.base_name.startswith(".")
    }
    names = sorted(sizes, key=counted_order)
    fingerprint = hashlib.sha256(repr([(name, sizes[name]) for name in names]).encode()).hexdigest()[:32]
    info = _info(video, names, fingerprint)
    return Timeline(info, tuple(names), np.arange(len(names)) / UNTIMED_FPS)


def images_frames(
    video: Video, info: VideoInfo, names: Sequence[str], size: tuple[int, int] | None = None
) -> Iterator[Frame | Damage]:
    """Yields the images with these names. EXIF rotation is ignored, as it is for masks of images.

    Args:
        size: height and width of the frames, as `sgmg.resize.resize_frames` makes them; by default those of the images.
    """
    damage = ""
    for name in names:
        try:
            image = _rgb(_bytes(video, name))
        except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
            damage = damage or f"{name}: {error}"
            continue
        if image.shape[:2] != (info.height, info.width):
            height, width = image.shape[:2]
            damage = damage or f"{name} is {width} x {height}, the first image {info.width} x {info.height}"
            continue
        yield Frame(name, resize_frames(image[None], *size)[0] if size else image, damage)
        damage = ""
    if damage:
        yield Damage(damage)


def counted_order(name: str) -> tuple[tuple[int, str] | str, ...]:
    """Returns a sort key with which frame_10 comes after frame_9.

    >>> sorted(["f10.png", "f9.png"], key=counted_order)
    ['f9.png', 'f10.png']
    """
    # Text and numbers alternate, so that equal types are compared; 7 before 07 keeps the order total.
    return tuple((int(part), part) if place % 2 else part for place, part in enumerate(re.split(r"([0-9]+)", name)))


def _info(video: Video, names: Sequence[str], fingerprint: str) -> VideoInfo:
    """Returns size and format of the first image that opens."""
    reason = "the folder holds no image"
    for name in names:
        try:
            data = _bytes(video, name)
            with Image.open(io.BytesIO(data)) as image:
                kind, mode = image.format or "", image.mode
            height, width = _rgb(data).shape[:2]
        except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
            reason = f"not one image can be decoded ({name}: {error})"
            continue
        seconds = len(names) / UNTIMED_FPS
        size = (width, height, width, height)
        return VideoInfo(*size, "", "1", None, seconds, len(names), "images", kind, mode, 1, 0, fingerprint)
    raise BadItem(video.path, "decode", reason)


def _bytes(video: Video, name: str) -> bytes:
    filesystem, folder = resolve_filesystem(video.path)
    with filesystem.open_input_stream(f"{folder}/{name}", compression=None) as stream:
        return stream.read()


def _rgb(data: bytes) -> UInt8[np.ndarray, "h w 3"]:
    with Image.open(io.BytesIO(data)) as image:
        square_size(*image.size, aspect=Fraction(1))
        if image.has_transparency_data:
            return over_black(np.asarray(image.convert("RGBA")))
        if image.mode.startswith("I;16"):  # Pillow would clip values above 255
            return np.repeat((np.asarray(image) >> 8).astype(np.uint8)[..., None], 3, axis=2)
        return np.asarray(image.convert("RGB"))
