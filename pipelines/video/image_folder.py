"""A folder of images read as a video; images are ordered by the numbers in their names.

Runs in the decoder process (`pipelines.video.decoder_process`).
"""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import replace
from fractions import Fraction
from functools import partial

import numpy as np
import pyarrow as pa
from jaxtyping import UInt8
from pyarrow import fs

from pipelines.errors import BadItem
from pipelines.files import is_hidden, number_order, resolve_filesystem
from pipelines.images import opened_image
from pipelines.video.exif import UPRIGHT, header_of, orientation_tag, upright
from pipelines.video.frame_reader import UNTIMED_FPS, Damage, Frame
from pipelines.video.image_times import exif_times, rate_of_name
from pipelines.video.letterbox import fitted, letterboxed, size_remark
from pipelines.video.listing import Video
from pipelines.video.pixels import over_black, square_size
from pipelines.video.probe import IMAGES, Timeline, VideoInfo
from pipelines.video.suffixes import is_image
from sgmg.resize import resize_frames

TURNED = "its images are turned as their EXIF orientation says, as viewers show them: so are the masks"


def images_timeline(video: Video, fps: float | None = None, exif: bool = False) -> Timeline:
    """Lists the images by name, numbers in names by value.

    Args:
        video: the folder.
        fps: images per second; by default as the name of the folder tells (`image_times.rate_of_name`).
        exif: whether to take the times from EXIF if there is no such rate; opens every image.

    Returns:
        Without any time, images are 24 per second and `Timeline.untimed`.

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
        if info.type == fs.FileType.File and is_image(info.base_name) and not is_hidden(info.base_name)
    }
    names = sorted(sizes, key=number_order)
    fingerprint = hashlib.sha256(repr([(name, sizes[name]) for name in names]).encode()).hexdigest()[:32]
    rate = fps or rate_of_name(video.name)
    times = exif_times(names, partial(_opened, video)) if exif and not rate else None
    if times is not None:
        rate = (len(times) - 1) / float(times[-1])
    else:
        times = np.arange(len(names)) / (rate or UNTIMED_FPS)
    info = replace(_info(video, names, fingerprint), fps=rate, duration=len(names) / (rate or UNTIMED_FPS))
    return Timeline(info, tuple(names), times)


def images_frames(
    video: Video, info: VideoInfo, names: Sequence[str], size: tuple[int, int] | None = None
) -> Iterator[Frame | Damage]:
    """Yields the images with these names, turned as their EXIF orientation says, as viewers show them.

    Images of another size than the first are letterboxed.

    Args:
        size: height and width of the frames, as `sgmg.resize.resize_frames` makes them; by default those of the images.
    """
    damage = ""
    for name in names:
        try:
            data = _bytes(video, name)
            image = _rgb(data)
            turned = TURNED if TURNED not in info.remark and header_of(data)[1] != UPRIGHT else ""
        except (OSError, ValueError) as error:
            damage = damage or f"{name}: {error}"
            continue
        found, first = (image.shape[0], image.shape[1]), (info.height, info.width)
        if found == first:
            yield Frame(name, resize_frames(image[None], *size)[0] if size else image, damage, turned)
        else:
            place = fitted(found, size or first)
            small = resize_frames(image[None], place.height, place.width)[0]
            remark = "; ".join(filter(None, (size_remark(found, first), turned)))
            yield Frame(name, letterboxed(small, size or first), damage, remark)
        damage = ""
    if damage:
        yield Damage(damage)


def _info(video: Video, names: Sequence[str], fingerprint: str) -> VideoInfo:
    """Returns size and format of the first image that opens."""
    reason = "the folder holds no image"
    for name in names:
        try:
            data = _bytes(video, name)
            with opened_image(data) as image:
                kind, mode, orientation = image.format or "", image.mode, orientation_tag(image)
            height, width = _rgb(data).shape[:2]
        except (OSError, ValueError) as error:
            reason = f"not one image can be decoded ({name}: {error})"
            continue
        size = (width, height, width, height)
        info = VideoInfo(*size, "", "1", None, None, len(names), IMAGES, kind, mode, 1, 0, fingerprint)
        return replace(info, remark=TURNED) if orientation != UPRIGHT else info
    raise BadItem(video.path, "decode", reason)


def _bytes(video: Video, name: str) -> bytes:
    with _opened(video, name) as file:
        return file.read()


def _opened(video: Video, name: str) -> pa.NativeFile:
    filesystem, folder = resolve_filesystem(video.path)
    return filesystem.open_input_file(f"{folder}/{name}")


def _rgb(data: bytes) -> UInt8[np.ndarray, "h w 3"]:
    with opened_image(data) as stored:
        square_size(*stored.size, aspect=Fraction(1))
        image = upright(stored)
        if image.has_transparency_data:
            return over_black(np.asarray(image.convert("RGBA")))
        if image.mode.startswith("I;16"):  # Pillow would clip values above 255
            return np.repeat((np.asarray(image) >> 8).astype(np.uint8)[..., None], 3, axis=2)
        return np.asarray(image.convert("RGB"))
