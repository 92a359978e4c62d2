"""The pictures that an annotation file speaks of: images or video files, in its folder, or in --frames, --videos."""

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

from pyarrow import fs

from pipelines.errors import BadItem, LayoutError
from pipelines.files import Folder, is_safe_name, parent_and_name, safe_name
from pipelines.sources.exif_frames import fitted_frames
from pipelines.sources.names import ExifChoice
from pipelines.sources.pictures import Pictures, pictures_of_file
from pipelines.sources.reading import image_frames
from pipelines.sources.video_files import QUALITY
from pipelines.video.suffixes import is_image, is_video

PictureSize = tuple[int, int]
"""(width, height) in pixels."""


@dataclass(frozen=True, slots=True)
class FrameFiles:
    """The folders in which the pictures of videos are looked for.

    Args:
        root: folder of the annotation file, in which pictures are if neither of the following is given.
        frames: folder of images, or of folders of images; empty if not given.
        videos: folder of video files; empty if not given.
        quality: JPEG quality of frames that are encoded here.
        exif: whether images are turned as their EXIF says; None: if the annotated size fits so.
    """

    root: Folder
    frames: str = ""
    videos: str = ""
    quality: int = QUALITY
    exif: ExifChoice | None = None

    def check(self) -> None:
        """Checks that the folders exist.

        Raises:
            LayoutError: one does not, or is no folder.
        """
        for flag, path in (("--frames", self.frames), ("--videos", self.videos)):
            if path and not is_folder(Folder(path)):
                raise LayoutError(f"{flag} {Folder(path).path()} is no folder. Give the one that holds the pictures.")

    def listed(self, video: str, files: Sequence[str], size: PictureSize | None, names: Iterable[str] = ()) -> Pictures:
        """Returns the pictures that an annotation file lists for a video, in its order.

        With --videos, the number that a listed name ends with is the index of the frame in the video file.

        Args:
            files: paths of the images, relative to the folder of images. If the first does not exist, an image of that
                name with another suffix is taken.
            size: annotated size; None if there is none.
            names: other names that the video file may have.

        Raises:
            BadItem: a file is missing or damaged, or its name leads out of the folder.
        """
        if not files:
            raise BadItem(video, "list", "no frame is listed for it. List its frames, or take it out.")
        for name in (video, *files):
            _check(video, name)
        if self.videos:
            return self._frames_of_file(video, files, names)
        try:
            images = self._folder_of(files[0])
            there = list(files) if images.has(files[0]) else _with_other_suffix(images, files)
        except PermissionError as error:
            raise BadItem(video, "list", f"{error} Make it readable for this user.") from error
        return self._encoded(video, images, there, size, files[0].rpartition("/")[0])

    def whole(
        self, video: str, size: PictureSize | None, names: Iterable[str] = (), folders: Iterable[str] | None = None
    ) -> Pictures:
        """Returns all pictures of a video: the images of its folder, in the order of their numbers, or its video file.

        Args:
            size: annotated size; None if there is none.
            names: other names that the video file may have.
            folders: that may hold the images, the first with any counts; `<video>` by default.

        Raises:
            BadItem: there are no such pictures, or they are damaged.
        """
        tried = [video] if folders is None else [*folders]
        for name in (video, *filter(None, tried)):
            _check(video, name)
        if not self.videos:
            for folder in tried:
                if files := [name for name in _names(self.images, folder, video) if is_image(name)]:
                    twice = [stem for stem, n in Counter(PurePosixPath(name).stem for name in files).items() if n > 1]
                    if twice:
                        place = self.images.path(folder)
                        raise BadItem(
                            video, "list", f"{place} holds two images called {twice[0]}. It needs one a frame."
                        )
                    listed = [f"{folder}/{name}".lstrip("/") for name in files]
                    return self._encoded(video, self.images, listed, size, folder)
        if self.frames:
            where = " or ".join(self.images.path(folder) for folder in tried)
            raise BadItem(video, "list", f"there are no images in {where}. Put its frames there, or give --videos.")
        return self._decoded(video, (video, *names))

    @property
    def images(self) -> Folder:
        """The folder of images."""
        return Folder(self.frames) if self.frames else self.root

    def _folder_of(self, file: str) -> Folder:
        """Returns the folder that a listed image is in: our exports in parts, a folder, name images beside it."""
        if self.frames:
            return self.images
        folders = (self.root, Folder(parent_and_name(self.root.uri)[0]))
        names = filter(None, (file, file.rpartition("/")[0]))  # it may have another suffix
        return next((folder for name in names for folder in folders if folder.has(name)), self.root)

    def _encoded(
        self, video: str, images: Folder, files: Sequence[str], size: PictureSize | None, place: str
    ) -> Pictures:
        names = [PurePosixPath(name).stem for name in files]
        if len(set(names)) < len(names):
            names = [f"{index:05d}" for index in range(len(files))]
        raw, _ = image_frames(images, files, video)
        sizes = [(0, size)] if size else []
        frames, found = fitted_frames(video, raw, lambda: iter(sizes), self.exif, self.quality)
        return Pictures(tuple(names), frames, *found, place or files[0], raw)

    def _frames_of_file(self, video: str, files: Sequence[str], names: Iterable[str]) -> Pictures:
        pictures = self._decoded(video, (video, *names))
        indices: list[int] = []
        for name in files:
            number = re.search(r"([0-9]+)$", PurePosixPath(name).stem)
            if number is None or int(number[1]) >= len(pictures.frames):
                raise BadItem(
                    video,
                    "list",
                    f"frame {name!r} is listed, but {pictures.source} has frames 0 … {len(pictures.frames) - 1}. The "
                    f"number at the end of a name has to be the index of the frame; or give --frames.",
                )
            indices.append(int(number[1]))
        return pictures.chosen(indices)

    def _decoded(self, video: str, names: Iterable[str]) -> Pictures:
        """Decodes the video file whose name, with or without its suffix, is one of the names."""
        folder = Folder(self.videos) if self.videos else self.root
        for name in filter(is_safe_name, dict.fromkeys(names)):
            above, _, base = name.rpartition("/")
            there = [one for one in _names(folder, above, video) if is_video(one)]
            found = [one for one in there if one == base] or [one for one in there if PurePosixPath(one).stem == base]
            if len(found) > 1:
                raise BadItem(video, "list", f"{folder.path(above)} holds {' and '.join(found)}. Leave one of them.")
            if found:
                return pictures_of_file(folder, f"{above}/{found[0]}".lstrip("/"), video, self.quality)
        raise BadItem(
            video,
            "list",
            f"{folder.path()} holds no video file {video}.mp4 (or with another suffix)"
            + (". " if self.videos else f", and no folder {video} of images. ")
            + "Give the folder of the images as --frames, or that of the video files as --videos.",
        )


def is_folder(folder: Folder) -> bool:
    """Returns whether a folder exists."""
    return folder.filesystem.get_file_info(folder.path()).type == fs.FileType.Directory


def _check(video: str, name: str) -> None:
    try:
        safe_name(name)
    except ValueError as error:
        raise BadItem(video, "list", str(error)) from error


def _names(folder: Folder, name: str, video: str) -> list[str]:
    try:
        return folder.names(name)
    except PermissionError as error:
        raise BadItem(video, "list", f"{error} Make {folder.path(name)} readable for this user.") from error


def _with_other_suffix(folder: Folder, files: Sequence[str]) -> list[str]:
    """Returns the images of the same names that exist, whatever their suffix.

    One that is missing, or exists with several suffixes, stays as it is.
    """
    there: dict[str, dict[str, str]] = {}
    found: list[str] = []
    for name in files:
        above = name.rpartition("/")[0]
        if above not in there:
            images = [one for one in folder.names(above) if is_image(one)]
            stems = Counter(PurePosixPath(one).stem for one in images)
            there[above] = {stem: one for one in images if stems[stem := PurePosixPath(one).stem] == 1}
        base = there[above].get(PurePosixPath(name).stem)
        found.append(f"{above}/{base}".lstrip("/") if base else name)
    return found
