"""Colours of video as a person sees them: the matrix of untagged files, and high dynamic range in eight bits.

- The colour matrix and range are those that the file tells. Without a matrix it is BT.709 from 720 lines on and BT.601
  below, as players assume.
- High dynamic range (PQ and HLG) is converted to BT.709: 203 cd/m², the white of graphics in HDR (ITU-R BT.2408), is
  light 1. Light up to 0.8 is kept; what is brighter is compressed, with its hue, so that 1000 cd/m² is the white of the
  result. The result is encoded with the gamma of a BT.1886 display, as standard video is seen.
"""

from functools import cache

import av
import numpy as np
from av.video.reformatter import Colorspace
from jaxtyping import Float, UInt8, UInt16

HD_LINES = 720
"""Lines from which on a video without a tag has the matrix of high definition."""
WHITE, PEAK = 203.0, 1000.0
"""Light in cd/m² of white, and of what becomes the white of the result."""
_KNEE = 0.8
_PQ, _HLG = 16, 18  # transfer functions, as ITU-T H.273 numbers them
_UNSPECIFIED, _BT2020 = 2, 9  # matrices, likewise
_TO_BT709 = np.array(
    [[1.660491, -0.587641, -0.072850], [-0.124550, 1.132900, -0.008349], [-0.018151, -0.100579, 1.118730]], np.float32
)
"""From the primaries of BT.2020 (ITU-R BT.2087)."""
_LIGHT_STEPS, _OUT_STEPS = 2**12, 2**12


def is_hdr(frame: av.VideoFrame) -> bool:
    """Returns whether the frame has high dynamic range."""
    return frame.color_trc in (_PQ, _HLG)


def matrix_of(frame: av.VideoFrame) -> Colorspace | int | None:
    """Returns the matrix to convert a frame with; None leaves it to FFmpeg, which takes the tag, else BT.601."""
    if frame.colorspace != _UNSPECIFIED or frame.format.is_rgb:
        return None
    if is_hdr(frame):
        return _BT2020
    return Colorspace.ITU709 if frame.height >= HD_LINES else None


def tone_mapped(image: UInt16[np.ndarray, "h w 3"], frame: av.VideoFrame) -> UInt8[np.ndarray, "h w 3"]:
    """Converts the RGB of a frame of high dynamic range, as encoded in 16 bits, to BT.709 in eight."""
    light = _light_table(frame.color_trc)[image >> 4]  # white is 1
    if frame.color_trc == _HLG:
        light *= _system_light(light @ np.array([0.2627, 0.678, 0.0593], np.float32))[..., None]
    light = np.maximum(light @ _TO_BT709.T, 0)
    brightest = light.max(axis=-1)
    np.multiply(light, (_compressed(brightest) / np.maximum(brightest, 1e-6))[..., None], out=light)
    return _code_table()[(np.sqrt(np.minimum(light, 1)) * (_OUT_STEPS - 1) + 0.5).astype(np.intp)]


def _compressed(light: Float[np.ndarray, "h w"]) -> Float[np.ndarray, "h w"]:
    """Keeps light up to the knee; above, a hyperbola that goes on without a bend and reaches 1 at the peak."""
    room, above = 1 - _KNEE, PEAK / WHITE - _KNEE
    bend = room / (above - room)  # so that the slope is 1 at the knee
    place = np.clip((light - _KNEE) / above, 0, 1)
    return np.where(light > _KNEE, _KNEE + room * place * (1 + bend) / (place + bend), light)


def _system_light(luminance: Float[np.ndarray, "h w"]) -> Float[np.ndarray, "h w"]:
    """Returns the factor from the light of a scene to that of an HLG display of 1000 cd/m² (ITU-R BT.2100)."""
    return PEAK / WHITE * np.maximum(luminance, 1e-6) ** 0.2


@cache
def _light_table(transfer: int) -> Float[np.ndarray, " n"]:
    """Returns the light of each code value: of the display for PQ, relative to white; of the scene for HLG, 0 to 1."""
    code = (np.arange(_LIGHT_STEPS) + 0.5) / _LIGHT_STEPS
    if transfer == _PQ:
        power = code ** (32 / 2523)
        share = np.maximum(power - 0.8359375, 0) / (18.8515625 - 18.6875 * power)
        return (10000 / WHITE * share ** (16384 / 2610)).astype(np.float32)
    a, b, c = 0.17883277, 0.28466892, 0.55991073
    return np.where(code <= 0.5, code**2 / 3, (np.exp((code - c) / a) + b) / 12).astype(np.float32)


@cache
def _code_table() -> UInt8[np.ndarray, " n"]:
    """Returns the value of eight bits for each square root of light."""
    light = (np.arange(_OUT_STEPS) / (_OUT_STEPS - 1)) ** 2
    return np.rint(255 * light ** (1 / 2.4)).astype(np.uint8)
