"""Names that count as videos, and that what they stand for decodes."""

from pathlib import Path

import pytest
from PIL import Image

from odd_clips import picture, write_as
from pipelines.video.decoder import VideoDecoder
from pipelines.video.listing import list_videos
from pipelines.video.segments import segments
from pipelines.video.suffixes import IMAGE_SUFFIXES, VIDEO_SUFFIXES

CONTAINERS = {
    ".mp4": ("mp4", "mpeg4"), ".m4v": ("mp4", "mpeg4"), ".f4v": ("mp4", "libx264"), ".mov": ("mov", "mpeg4"),
    ".qt": ("mov", "mjpeg", "yuvj420p"), ".3gp": ("3gp", "mpeg4"), ".3g2": ("3g2", "mpeg4"),
    ".mkv": ("matroska", "mpeg4"), ".webm": ("webm", "libvpx"), ".avi": ("avi", "mpeg4"),
    ".mpg": ("mpeg", "mpeg1video"), ".mpeg": ("mpeg", "mpeg1video"), ".vob": ("vob", "mpeg2video"),
    ".mts": ("mpegts", "libx264"),
    ".m2ts": ("mpegts", "mpeg2video"), ".ts": ("mpegts", "mpeg2video"), ".flv": ("flv", "flv"),
    ".wmv": ("asf", "wmv2"), ".asf": ("asf", "wmv1"), ".ogv": ("ogg", "libvpx"), ".gif": ("gif", "gif", "rgb8"),
    ".m2t": ("mpegts", "mpeg2video"), ".mpe": ("mpeg", "mpeg1video"), ".mpv": ("mpeg", "mpeg1video"),
    ".ogm": ("ogg", "libvpx"), ".3gpp": ("3gp", "mpeg4"), ".divx": ("avi", "mpeg4"),
    ".mjpeg": ("mjpeg", "mjpeg", "yuvj420p"), ".mjpg": ("mjpeg", "mjpeg", "yuvj420p"),
}  # fmt: skip
"""Suffixes, with FFmpeg's names of container, codec and pixels of such a file."""


def test_every_suffix_that_counts_is_of_a_container_that_decodes(tmp_path: Path) -> None:
    assert set(CONTAINERS) == set(VIDEO_SUFFIXES)
    images = [picture(64, 48, seed) for seed in range(4)]
    for suffix, made in CONTAINERS.items():
        write_as(tmp_path / f"clip{suffix.upper()}", images, *made)
    listing = list_videos(str(tmp_path))
    assert len(listing.videos) == len(CONTAINERS)
    with VideoDecoder() as decoder:
        for video in listing.videos:
            timeline = decoder.timeline(video)
            (window,) = decoder.windows(segments(video, timeline)[0])
            assert window.frames.shape == (4, 48, 64, 3), video.name
            assert not window.note, video.name
            assert abs(window.frames[:, 10, 10].astype(int) - [image[10, 10] for image in images]).max() < 48, (
                video.name
            )


@pytest.mark.parametrize("suffix", IMAGE_SUFFIXES)
def test_images_of_every_suffix_are_frames(tmp_path: Path, suffix: str) -> None:
    image = picture(64, 48)
    for place in range(2):
        Image.fromarray(image).save(tmp_path / f"{place}{suffix}")
    (video,) = list_videos(str(tmp_path)).videos
    with VideoDecoder() as decoder:
        (window,) = decoder.windows(segments(video, decoder.timeline(video))[0])
    assert window.names == ("0", "1")
    assert abs(window.frames[1].astype(int) - image).mean() < 4
