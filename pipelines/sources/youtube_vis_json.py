"""Parser of YouTube-VIS JSON, of our own export and of other tools: videos, and a track of masks for every object."""

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from pipelines.errors import Dropped, LayoutError
from pipelines.files import Folder
from pipelines.sources.label_annotations import Annotation, Category, GatheredObject, named, times_of
from pipelines.sources.label_files import Id, json_content, owned_annotations, text_of
from pipelines.sources.labels import VideoLabels

_KNOWN = ("info", "licenses", "videos", "annotations", "categories", "type")


class _Video(msgspec.Struct):
    id: Id
    file_names: list[str]
    width: float | None = None
    height: float | None = None
    video: str | None = None
    name: str | None = None
    fps: float | None = None
    timestamps: Any = None
    source: Any = None

    @property
    def title(self) -> str:
        """The name of the video: its key `video` or `name`, or else the folder of its frames."""
        folder = self.file_names[0].rpartition("/")[0] if self.file_names else ""
        return self.video or self.name or folder or f"video {self.id}"


class _Track(Annotation, kw_only=True):
    video_id: Id
    segmentations: list[msgspec.Raw]


class _File(msgspec.Struct):
    videos: list[_Video]
    annotations: list[msgspec.Raw]
    categories: list[Category] = []


def youtube_vis_labels(data: bytes, folder: Folder, name: str) -> tuple[dict[str, VideoLabels], list[Dropped]]:
    """Returns the labels of every video that has an annotation, and what belongs to none.

    An object without mask in a frame (null) is absent there.

    Args:
        data: the file.
        folder: of the file, for messages.
        name: of the file.

    Raises:
        LayoutError: the file is no YouTube-VIS JSON, or two videos have one id or name.
    """
    path = folder.path(name)
    file = json_content(data, _File, path, "YouTube-VIS JSON", _KNOWN)
    videos = {video.id: video for video in file.videos}
    titles = {video.title for video in file.videos}
    if len(videos) < len(file.videos) or len(titles) < len(file.videos):
        raise LayoutError(f"{path}: two videos have one id or one name. Export it again.")
    names = {category.id: category.name for category in file.categories}
    found = owned_annotations(file.annotations, _Track, "video", videos, lambda id, track: _misfit(videos[id], track))
    tracks, problems, dropped = found.of, found.problems, found.dropped
    labels: dict[str, VideoLabels] = {}
    for video in file.videos:
        if video.id in problems:
            labels[video.title] = VideoLabels(name, problem=f"{problems[video.id]} Mend it, or export it again.")
        elif video.id in tracks:
            labels[video.title] = _labels(name, video, tracks[video.id], names)
        else:
            dropped.append(Dropped(video.title, "video without annotation", f"{len(video.file_names)} frames"))
    return labels, dropped


def _misfit(video: _Video, track: _Track) -> str:
    has, needs = len(track.segmentations), len(video.file_names)
    return f" has {has} segmentations for {needs} frames" if has != needs else ""


def _labels(file: str, video: _Video, tracks: Sequence[_Track], categories: Mapping[Id, str]) -> VideoLabels:
    gathered: dict[Any, GatheredObject] = {}
    for place, track in enumerate(_best(tracks)):
        key = (place,) if track.track is None else track.track
        number = track.id if track.track is None else track.track
        one = gathered.setdefault(key, GatheredObject(number))  # pyright: ignore[reportArgumentType]
        one.note(track, categories.get(track.category_id, "") if track.category_id is not None else "")
        for index, raw in enumerate(track.segmentations):
            if text := text_of(raw):
                one.add_mask(index, text)
    objects, sentences, without = named(list(gathered.values()))
    has_size = video.width is not None and video.height is not None
    return VideoLabels(
        file,
        objects,
        sentences,
        frames=video.file_names,
        size=(int(video.width or 0), int(video.height or 0)) if has_size else None,
        names=[video.source.rpartition("/")[2]] if isinstance(video.source, str) else [],
        fps=video.fps,
        timestamps=times_of(video.timestamps, len(video.file_names)),
        dropped=without,
    )


def _best(tracks: Sequence[_Track]) -> list[_Track]:
    """Returns the tracks; of our own export, which may have several of an expression, the one with the best score."""
    best: dict[Any, _Track] = {}
    for place, track in enumerate(tracks):
        key = track.expression if track.is_ours else place
        if key not in best or (track.score or 0) > (best[key].score or 0):
            best[key] = track
    return list(best.values())
