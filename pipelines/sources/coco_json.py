"""Parser of COCO JSON of any tool: images, alone or as frames of videos, and annotations, alone or as tracks."""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any

import msgspec

from pipelines.errors import Dropped, LayoutError
from pipelines.files import Folder
from pipelines.sources.label_annotations import NO_MASK, Annotation, Category, GatheredObject, named, times_of
from pipelines.sources.label_files import Id, json_content, owned_annotations, text_of
from pipelines.sources.labels import VideoLabels
from pipelines.video.suffixes import is_video

_KNOWN = ("info", "licenses", "images", "annotations", "categories", "videos", "tracks", "type")
_AGAIN = "Export it again."


class _Image(msgspec.Struct):
    id: Id
    file_name: str
    width: float | None = None
    height: float | None = None
    video_id: Id | None = None
    video: Id | None = None
    frame_id: float | None = None
    frame_index: float | None = None
    timestamp: float | None = None
    source: Any = None


class _Video(msgspec.Struct):
    id: Id
    name: str | None = None
    file_name: str | None = None
    fps: float | None = None
    timestamps: Any = None


class _Mask(Annotation, kw_only=True):
    image_id: Id
    segmentation: msgspec.Raw = msgspec.Raw(b"null")


class _File(msgspec.Struct):
    images: list[_Image]
    annotations: list[msgspec.Raw]
    categories: list[Category] = []
    videos: list[_Video] = []


def coco_labels(data: bytes, folder: Folder, name: str) -> tuple[dict[str, VideoLabels], list[Dropped]]:
    """Returns the labels of every video and image that has an annotation, and what belongs to none.

    Images are frames of one video if they have one `video_id` or `video`; or, where annotations have a track, if they
    are in one folder. Any other image is a record of its own. Frames are ordered by `frame_id` or `frame_index`, if all
    have it, else as they are listed. Every listed image counts as annotated: an object without annotation is absent,
    and so is one without track in the other frames of its video.

    Args:
        data: the file.
        folder: of the file, for messages.
        name: of the file.

    Raises:
        LayoutError: the file is no COCO JSON, or two images have one id, or two videos one name.
    """
    path = folder.path(name)
    file = json_content(data, _File, path, "COCO JSON", _KNOWN)
    images = {image.id: image for image in file.images}
    if len(images) < len(file.images):
        raise LayoutError(f"{path}: two images have one id, so annotations could be of either. {_AGAIN}")
    found = owned_annotations(file.annotations, _Mask, "image", images)
    masks, problems, dropped = found.of, found.problems, found.dropped
    names = {category.id: category.name for category in file.categories}
    videos = {video.id: video for video in file.videos}
    labels: dict[str, VideoLabels] = {}
    for video, group in _groups(path, _merged(file.images, masks, problems), masks, videos).items():
        if not any(image.id in masks or image.id in problems for image in group):
            dropped.append(Dropped(video, "image without annotation", f"{len(group)} images"))
        elif wrong := next((problems[image.id] for image in group if image.id in problems), ""):
            labels[video] = VideoLabels(name, problem=f"{wrong} Mend it, or {_AGAIN.lower()}")
        else:
            labels[video] = _labels(name, _ordered(group), masks, names, videos)
    return labels, dropped


def _merged(images: Sequence[_Image], masks: dict[Id, list[_Mask]], problems: dict[Id, str]) -> list[_Image]:
    """Returns the images without those of a file that was listed before, whose annotations go to the first."""
    first: dict[Any, _Image] = {}
    for image in images:
        known = first.setdefault((image.video_id, image.video, image.file_name), image)
        if known is not image and image.id in masks:
            masks[known.id].extend(masks.pop(image.id))
        if known is not image and image.id in problems:
            problems[known.id] = problems.pop(image.id)
    return list(first.values())


def _groups(
    path: str, images: Sequence[_Image], masks: Mapping[Id, Sequence[_Mask]], videos: Mapping[Id, _Video]
) -> dict[str, list[_Image]]:
    """Groups images into videos, in the order of the file; an image that belongs to no video is a group of its own.

    Raises:
        LayoutError: two videos have one name.
    """
    tracked = {
        _folder(image.file_name) for image in images if any(one.track is not None for one in masks.get(image.id, ()))
    }
    names: dict[tuple[str, Any], str] = {}
    groups: dict[tuple[str, Any], list[_Image]] = defaultdict(list)
    for image in images:
        folder = _folder(image.file_name)
        if image.video_id is not None:
            key, name = ("id", image.video_id), _video_name(image.video_id, videos)
        elif image.video is not None:
            key, name = ("name", image.video), str(image.video)
        elif folder and folder in tracked:
            key, name = ("folder", folder), folder
        else:
            key, name = ("image", image.file_name), _stem(image.file_name)
        names[key] = name
        groups[key].append(image)
    count = Counter(names.values())
    named = [
        (image_name if kind == "image" and count[name] > 1 else name, groups[kind, image_name])
        for (kind, image_name), name in names.items()
    ]
    if twice := [name for name, n in Counter(name for name, _ in named).items() if n > 1]:
        raise LayoutError(
            f"{path}: two videos are called {twice[0]!r}, but records need a name each. Rename one there."
        )
    return dict(named)


def _video_name(id: Id, videos: Mapping[Id, _Video]) -> str:
    video = videos.get(id)
    name = (video and (video.name or video.file_name)) or str(id)
    return _stem(name) if is_video(name) else name


def _stem(name: str) -> str:
    """Returns a path without its suffix, as it is written."""
    return name.removesuffix(PurePosixPath(name).suffix)


def _folder(file_name: str) -> str:
    return file_name.rpartition("/")[0]


def _ordered(group: Sequence[_Image]) -> list[_Image]:
    for key in ("frame_id", "frame_index"):
        numbers = [getattr(image, key) for image in group]
        if None not in numbers:
            return [group[place] for place in sorted(range(len(group)), key=numbers.__getitem__)]
    return list(group)


def _labels(
    file: str,
    group: Sequence[_Image],
    masks: Mapping[Id, Sequence[_Mask]],
    categories: Mapping[Id, str],
    videos: Mapping[Id, _Video],
) -> VideoLabels:
    """Returns the labels of one video or image."""
    sizes = {(int(image.width or 0), int(image.height or 0)) for image in group if image.width and image.height}
    if len(sizes) > 1:
        said = " and ".join(f"{width}x{height}" for width, height in sorted(sizes))
        return VideoLabels(
            file,
            problem=f"its images have the sizes {said}, but those of a video have one size. Give images of each size a "
            f"video of their own.",
        )
    gathered: dict[Any, GatheredObject] = {}
    dropped: list[tuple[str, str]] = []
    for index, image in enumerate(group):
        for place, mask in enumerate(masks.get(image.id, ())):
            track = mask.track
            key = (image.id, place) if track is None else (track,)
            number = mask.id if track is None else track
            one = gathered.setdefault(key, GatheredObject(number))  # pyright: ignore[reportArgumentType]
            one.note(mask, categories.get(mask.category_id, "") if mask.category_id is not None else "")
            if text := text_of(mask.segmentation):
                one.add_mask(index, text, mask.score)
            else:
                one.unknown.add(index)
                dropped.append((NO_MASK, f"annotation {mask.id} of {image.file_name}"))
    objects, sentences, without = named(list(gathered.values()))
    video = videos.get(group[0].video_id) if group[0].video_id is not None else None
    return VideoLabels(
        file,
        objects,
        sentences,
        frames=[image.file_name for image in group],
        size=next(iter(sizes), None),
        names=_file_names(group[0], video),
        fps=video and video.fps,
        timestamps=times_of(video and video.timestamps, len(group))
        or times_of([image.timestamp for image in group], len(group)),
        dropped=[*dropped, *without],
    )


def _file_names(image: _Image, video: _Video | None) -> list[str]:
    """Returns the names that the video file of an image may have."""
    listed = [video.file_name, video.name] if video else []
    source = image.source.rpartition("/")[2] if isinstance(image.source, str) else None
    return [name for name in (*listed, source) if name]
