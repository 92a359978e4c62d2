"""Conversion of a decoded frame to its displayed form: upright, square pixels, 8-bit RGB, without transparency."""

from fractions import Fraction

import av
import numpy as np
from av.video.reformatter import Interpolation, VideoReformatter
from jaxtyping import UInt8

from pipelines.safety.limits import MAX_PIXELS
from pipelines.video.colour import is_hdr, matrix_of, tone_mapped
from pipelines.video.letterbox import fitted, letterboxed, size_remark
from sgmg.masks import Size
from sgmg.resize import resize_frames

MAX_STRETCH = 8
"""Largest ratio of width to height of a pixel, or of height to width; beyond it the file is wrong."""
_TRIANGLE = Interpolation.BILINEAR | Interpolation.FULL_CHR_H_INT | Interpolation.ACCURATE_RND
"""Flags of FFmpeg's scaler: exact rounding, and colours at every pixel, not at every second."""


def turned(image: UInt8[np.ndarray, "h w c"], orientation: str) -> UInt8[np.ndarray, "h2 w2 c"]:
    """Returns the image rotated and mirrored according to `orientation_of`."""
    image = image.swapaxes(0, 1) if "t" in orientation else image
    return image[:: -1 if "y" in orientation else 1, :: -1 if "x" in orientation else 1]


def orientation_of(frame: av.VideoFrame) -> str:
    """Returns the orientation of a file's frames: `t` if x and y are swapped, then `x`, `y` if mirrored in x, in y.

    Call it for one frame per video: PyAV puts a frame whose side data was read into a reference cycle, and many such
    frames of megabytes each would wait for the garbage collector.

    Raises:
        ValueError: the file specifies something other than quarter turns and mirroring.
    """
    if "DISPLAYMATRIX" not in frame.side_data:
        return ""
    matrix = np.frombuffer(bytes(frame.side_data["DISPLAYMATRIX"]), np.int32).reshape(3, 3)
    (a, b), (c, d) = matrix[:2, :2].tolist()  # x' = a x + c y, y' = b x + d y
    if not b and not c:  # an all-zero matrix, which some encoders write, means no rotation
        return "x" * (a < 0) + "y" * (d < 0)
    if not a and not d:
        return "t" + "x" * (c < 0) + "y" * (b < 0)
    raise ValueError(f"its frames are turned by {frame.rotation} degrees. Encode it again without rotation.")


def aspect_of(stream: av.VideoStream) -> Fraction:
    """Returns width by height of one stored pixel of a track; 1 if the file does not tell."""
    return stream.sample_aspect_ratio or stream.codec_context.sample_aspect_ratio or Fraction(1)


def square_size(width: int, height: int, aspect: Fraction) -> tuple[int, int]:
    """Returns the size at which pixels with this aspect ratio become square; one side grows, none shrinks.

    >>> square_size(720, 576, Fraction(16, 15))
    (768, 576)

    Raises:
        ValueError: the size or the aspect ratio is impossible, or the frame is too large to decode.
    """
    if not width or not height or width * height > MAX_PIXELS:
        raise ValueError(f"its frames are {width} x {height} pixels; 1 x 1 to {MAX_PIXELS} in all can be decoded")
    if not Fraction(1, MAX_STRETCH) <= aspect <= MAX_STRETCH:
        raise ValueError(f"its pixels are {aspect} as wide as high. Encode it again with square pixels.")
    if aspect >= 1:
        return round(width * aspect), height
    return width, round(height / aspect)


def rgb(frame: av.VideoFrame, size: tuple[int, int]) -> UInt8[np.ndarray, "h w 3"]:
    """Converts a frame to RGB at width and height `size`, before rotation; transparent pixels are laid over black."""
    return _rgb(VideoReformatter(), frame, size)


def _rgb(
    reformatter: VideoReformatter, frame: av.VideoFrame, size: tuple[int, int], scaler: Interpolation | None = None
) -> UInt8[np.ndarray, "h w 3"]:
    format = "rgb48le" if is_hdr(frame) else "rgba" if _has_alpha(frame) else "rgb24"
    found = reformatter.reformat(frame, *size, format, src_colorspace=matrix_of(frame), interpolation=scaler, threads=1)
    image = found.to_ndarray()
    if is_hdr(frame):
        return tone_mapped(image, frame)
    return over_black(image) if _has_alpha(frame) else image


class SmallFrames:
    """Converts the frames of a video to RGB at the size that a model sees: upright, with square pixels.

    FFmpeg scales brightness and colour before it computes RGB, with the triangle filter of Pillow's `BILINEAR`: a third
    of the time. The results differ from those of scaled RGB by what colours blur, 1.4 of 255 on coloured noise. Frames
    of another size than the first are letterboxed.

    Args:
        shown: height and width at which a player shows the first frame.
        size: height and width of the results.
        orientation: as from `orientation_of`.
        aspect: width by height of one stored pixel.
    """

    def __init__(self, shown: Size, size: Size, orientation: str, aspect: Fraction = Fraction(1)) -> None:
        self._shown, self._size, self._orientation, self._aspect = shown, size, orientation, aspect
        self._reformatter = VideoReformatter()  # it keeps the tables of the filter

    def __call__(self, frame: av.VideoFrame) -> UInt8[np.ndarray, "h w 3"]:
        """Converts one frame.

        Raises:
            ValueError: it is too large.
        """
        shown = self.shown(frame)
        if shown == self._shown:
            return self._converted(frame, shown, self._size)
        place = fitted(shown, self._size)
        return letterboxed(self._converted(frame, shown, (place.height, place.width)), self._size)

    def remark(self, frame: av.VideoFrame) -> str:
        """Returns what becomes of a frame of another size than the first; empty for any other."""
        shown = self.shown(frame)
        return size_remark(shown, self._shown) if shown != self._shown else ""

    def shown(self, frame: av.VideoFrame) -> Size:
        """Returns the height and width at which a player shows a frame.

        Raises:
            ValueError: it is too large.
        """
        return self._before_turning(square_size(frame.width, frame.height, self._aspect))

    def _converted(self, frame: av.VideoFrame, shown: Size, size: Size) -> UInt8[np.ndarray, "h w 3"]:
        if _has_alpha(frame) or size == shown:
            image = turned(_rgb(self._reformatter, frame, self._before_turning(shown)), self._orientation)
            return resize_frames(np.ascontiguousarray(image)[None], *size)[0]
        small = _rgb(self._reformatter, frame, self._before_turning(size), _TRIANGLE)
        return np.ascontiguousarray(turned(small, self._orientation))

    def _before_turning(self, size: tuple[int, int]) -> tuple[int, int]:
        """Returns width and height, before rotation, of a frame whose upright height and width is `size`; and back."""
        height, width = size
        return (height, width) if "t" in self._orientation else (width, height)


def _has_alpha(frame: av.VideoFrame) -> bool:
    return any(component.is_alpha for component in frame.format.components)


def over_black(image: UInt8[np.ndarray, "h w 4"]) -> UInt8[np.ndarray, "h w 3"]:
    """Lays an RGBA image over black and rounds."""
    shown = image[..., :3].astype(np.uint16) * image[..., 3:] + 127
    return (shown // 255).astype(np.uint8)
