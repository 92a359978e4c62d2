"""Colours come out as a person sees them."""

from pathlib import Path

import av
import cv2
import numpy as np
import pytest

from pipelines.sources.video_files import decode_video
from pipelines.video.colour import tone_mapped
from pipelines.video.decoder import VideoDecoder, windows
from pipelines.video.listing import Video
from pipelines.video.pixels import rgb
from pipelines.video.segments import segments

COLOURS = np.array(
    [
        (255, 255, 255), (0, 0, 0), (128, 128, 128), (220, 30, 40), (30, 200, 60), (40, 60, 210), (230, 180, 20),
        (90, 20, 120),
    ],
    np.uint8,
)  # fmt: skip
BT709, UNTAGGED, BT601, BT2020 = 1, 2, 6, 9
LIMITED, FULL = 1, 2
PQ, HLG = 16, 18


def patches(width: int, height: int) -> np.ndarray:
    """Eight upright bars of the colours."""
    return COLOURS[np.arange(width) * len(COLOURS) // width][None].repeat(height, axis=0)


def middles(image: np.ndarray) -> np.ndarray:
    """The colour in the middle of each bar."""
    height, width = image.shape[:2]
    return image[height // 2, width // 16 :: width // 8].astype(int)


def write_lossless(path: Path, image: np.ndarray, matrix: int, tag: int, value_range: int) -> Path:
    """Three lossless frames that are encoded with one matrix and range, and tagged with another matrix or none."""
    with av.open(f"file:{path}", mode="w") as container:
        stream = container.add_stream("ffv1", rate=10)
        assert isinstance(stream, av.VideoStream)
        stream.height, stream.width = image.shape[:2]
        stream.pix_fmt = "yuv444p"
        stream.codec_context.color_range, stream.codec_context.colorspace = value_range, tag
        frame = av.VideoFrame.from_ndarray(image, format="rgb24").reformat(
            format="yuv444p", dst_colorspace=matrix, dst_color_range=value_range
        )
        frame.colorspace, frame.color_range = tag, value_range
        for place in range(3):
            frame.pts = place
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


@pytest.mark.parametrize("value_range", [LIMITED, FULL])
@pytest.mark.parametrize(
    ("matrix", "tag", "size"),
    [
        (BT601, BT601, (64, 48)), (BT709, BT709, (64, 48)), (BT2020, BT2020, (64, 48)), (BT601, UNTAGGED, (64, 48)),
        (BT601, UNTAGGED, (720, 576)), (BT709, UNTAGGED, (1280, 720)), (BT709, UNTAGGED, (64, 1280)),
        (BT601, BT601, (1280, 720)),
    ],
)  # fmt: skip
def test_colours_of_standard_range_are_those_that_were_encoded(
    tmp_path: Path, matrix: int, tag: int, size: tuple[int, int], value_range: int
) -> None:
    image = patches(*size)
    path = write_lossless(tmp_path / "a.mkv", image, matrix, tag, value_range)
    (window,) = windows(Video(str(path)))
    assert abs(middles(window.frames[1]) - COLOURS).max() <= 4
    with VideoDecoder() as decoder:
        (part,) = segments(Video(str(path)), decoder.timeline(Video(str(path))))
        (small,) = decoder.windows(part, size=(24, 32))
    assert abs(middles(small.frames[1]) - COLOURS).max() <= 4
    jpeg = cv2.imdecode(np.frombuffer(decode_video(path.read_bytes(), 100).frames[1], np.uint8), cv2.IMREAD_COLOR_RGB)
    assert abs(middles(np.asarray(jpeg)) - COLOURS).max() <= 6, "what is prepared looks the same, but for JPEG"


def _pq(nits: float) -> float:
    """The code value of light in cd/m² (SMPTE ST 2084)."""
    light = (nits / 10000) ** (2610 / 16384)
    return ((3424 / 4096 + 2413 / 128 * light) / (1 + 2392 / 128 * light)) ** (2523 / 32)


def _hdr(light: list[tuple[float, float, float]], transfer: int = PQ) -> list[list[int]]:
    """Eight-bit colours of pixels of BT.2020 with this light."""
    code = np.array([[[_pq(channel) for channel in pixel] for pixel in light]])
    frame = av.VideoFrame.from_ndarray((code * 65535).round().astype(np.uint16).repeat(2, axis=0), format="rgb48le")
    frame.color_trc, frame.color_primaries = transfer, BT2020
    return rgb(frame, (frame.width, frame.height))[0].tolist()


def test_white_of_high_dynamic_range_is_white_and_what_is_brighter_is_not_lost() -> None:
    greys = [pixel[0] for pixel in _hdr([(nits, nits, nits) for nits in (0, 10, 50, 100, 203, 400, 1000, 4000)])]
    assert greys == sorted(greys)
    assert greys[0] == 0
    assert 240 <= greys[4] < greys[5] < greys[6] == greys[7] == 255
    # Below the knee, light is kept: the value is that of a display with the gamma of BT.1886.
    for value, nits in zip(greys[1:4], (10, 50, 100), strict=True):
        assert value == pytest.approx(255 * (nits / 203) ** (1 / 2.4), abs=1)
    (grey,) = _hdr([(50.0, 50.0, 50.0)])
    assert max(grey) - min(grey) <= 1, "grey stays grey"


def test_hues_of_high_dynamic_range_stay() -> None:
    red, green, blue, bright = _hdr([(150, 10, 10), (10, 150, 10), (10, 10, 150), (900, 60, 60)])
    assert red[0] > 200 > 2 * red[1]
    assert green[1] > 200
    assert max(green[0], green[2]) < 100
    assert blue[2] > 200 > 2 * blue[0]
    assert bright[0] > 240
    assert bright[0] > 2 * max(bright[1:]), "a highlight keeps its hue"


def test_hybrid_log_gamma_has_its_white_at_three_quarters() -> None:
    code = np.array([0, 0.25, 0.5, 0.75, 1.0])
    image = (code * 65535).round().astype(np.uint16)[None, :, None].repeat(3, axis=2)
    frame = av.VideoFrame.from_ndarray(image.repeat(2, axis=0), format="rgb48le")
    frame.color_trc, frame.color_primaries = HLG, BT2020
    greys = tone_mapped(image, frame)[0, :, 0].tolist()
    assert greys == sorted(greys)
    assert (greys[0], greys[4]) == (0, 255)
    assert greys[3] == pytest.approx(_hdr([(203.0, 203.0, 203.0)])[0][0], abs=1)


def test_the_case_whose_white_was_grey(case_kit: Path) -> None:
    (window,) = windows(Video(str(case_kit / "hdr10.mp4")))
    green, white, orange = window.frames[0, 32, 32::64].tolist()
    assert min(white) >= 240
    assert max(white) - min(white) <= 2
    assert green[1] > 220 > 3 * max(green[0], green[2])
    assert orange[0] > 190 > orange[1] > orange[2]
