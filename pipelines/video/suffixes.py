"""The file names that count as videos and images where a whole folder is given; a file that is named may have any."""

from collections.abc import Mapping
from pathlib import PurePosixPath

VIDEO_SUFFIXES = (
    ".mp4", ".m4v", ".mov", ".qt", ".3gp", ".3g2", ".f4v", ".mkv", ".webm", ".avi", ".mpg", ".mpeg", ".vob", ".mts",
    ".m2ts", ".m2t", ".ts", ".flv", ".wmv", ".asf", ".ogv", ".ogm", ".gif", ".mjpeg", ".mjpg", ".mpe", ".mpv", ".3gpp",
    ".divx",
)  # fmt: skip
"""Suffixes of videos in the containers that `pipelines.video.probe.READABLE` lists."""
IMAGE_SUFFIXES = (
    ".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".apng", ".webp", ".avif", ".bmp", ".tif", ".tiff", ".jp2",
    ".j2k", ".pgm", ".ppm", ".pnm", ".tga",
)  # fmt: skip
"""Suffixes of images that Pillow decodes, but for those that are no pictures of a camera or an editor."""


def suffix_of(name: str) -> str:
    """Returns the suffix of a file name in lower case; empty if there is none.

    >>> suffix_of("raw/GOPR0001.MP4")
    '.mp4'
    """
    return PurePosixPath(name).suffix.lower()


def is_video(name: str) -> bool:
    """Returns whether a file is a video, by its name."""
    return suffix_of(name) in VIDEO_SUFFIXES


def is_image(name: str) -> bool:
    """Returns whether a file is an image, by its name."""
    return suffix_of(name) in IMAGE_SUFFIXES


def counted(passed_over: Mapping[str, int]) -> str:
    """Describes the files that are neither, the most frequent first.

    >>> counted({".txt": 2, ".json": 5, "": 1})
    '8 files are no videos or images: 5 .json, 2 .txt, 1 without suffix'
    """
    total = sum(passed_over.values())
    by_count = sorted(passed_over.items(), key=lambda one: (-one[1], not one[0], one[0]))
    kinds = ", ".join(f"{count} {suffix or 'without suffix'}" for suffix, count in by_count)
    return f"{total} {'files are' if total > 1 else 'file is'} no videos or images: {kinds}"
