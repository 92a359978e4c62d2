"""Annotation files of tools, which --raw names: one file, or a folder of them; read whole, and checked by msgspec."""

from collections import defaultdict
from collections.abc import Callable, Collection, Container, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

import msgspec
from pyarrow import fs

from pipelines.errors import Dropped, LayoutError
from pipelines.files import Folder, parent_and_name

MOST_BYTES = 2_000_000_000
"""Largest annotation file that is read, since it is held in memory several times over."""

T = TypeVar("T")
Id = int | str
"""Id of an image, video, category or track: a number, or a name."""


@dataclass(frozen=True, slots=True)
class LabelFiles:
    """The annotation files that --raw names: their folder, and their names in it."""

    folder: Folder
    names: tuple[str, ...]

    def read(self, name: str) -> bytes:
        """Returns the bytes of a file, without a byte order mark.

        Raises:
            LayoutError: it cannot be read, or is larger than `MOST_BYTES`.
        """
        path = self.folder.path(name)
        try:
            if (size := self.folder.size(name)) > MOST_BYTES:
                raise LayoutError(
                    f"{path} has {size / 1e9:.1f} GB, but at most {MOST_BYTES / 1e9:.0f} GB are read at once. Split it "
                    f"into several files, with all annotations of a video in one, and give their folder as --raw."
                )
            return self.folder.read(name).removeprefix(b"\xef\xbb\xbf")
        except (FileNotFoundError, PermissionError) as error:
            raise LayoutError(f"{error} Check --raw.") from error


def label_files(raw: Folder, suffix: str) -> LabelFiles:
    """Returns the file that --raw names, or those of a suffix in the folder that it names and in folders inside.

    Raises:
        LayoutError: there is none.
    """
    kind = raw.filesystem.get_file_info(raw.path()).type
    if kind == fs.FileType.Directory:
        names = tuple(raw.files_within(suffix))
        if not names:
            raise LayoutError(
                f"{raw.path()} holds no {suffix} file. Give the annotation file, or its folder, as --raw."
            )
        return LabelFiles(raw, names)
    if kind == fs.FileType.NotFound:
        raise LayoutError(f"{raw.path()} does not exist. Give the annotation file, or its folder, as --raw.")
    parent, name = parent_and_name(raw.uri)
    return LabelFiles(Folder(parent), (name,))


def each_file(
    found: LabelFiles, parse: Callable[[bytes, Folder, str], T], unusable: Callable[[str, str], T]
) -> list[T]:
    """Returns what each of the files holds. One of several that cannot be used costs its own videos alone.

    Args:
        found: the files.
        parse: reads one, given its bytes, its folder and its name.
        unusable: what stands for one that cannot be used, given its name and what is wrong with it.

    Raises:
        LayoutError: none can be used; it says why the first cannot.
    """
    results: list[T] = []
    errors: list[LayoutError] = []
    for name in found.names:
        try:
            results.append(parse(found.read(name), found.folder, name))
        except LayoutError as error:
            errors.append(error)
            results.append(unusable(name, str(error).removeprefix(found.folder.path(name)).lstrip(": ")))
    if len(errors) == len(found.names):
        raise errors[0]
    return results


def json_content(data: bytes, kind: type[T], path: str, tool: str, known: Collection[str] | None = None) -> T:
    """Decodes an annotation file, and checks the types of what it holds.

    Args:
        kind: type of the content, as msgspec checks it.
        path: of the file, for messages.
        tool: name of the format, for messages.
        known: the topmost keys that the format has, to tell which key of another format does not fit.

    Raises:
        LayoutError: the file is no JSON, is nested too deep, or has the layout of another format.
    """
    try:
        return msgspec.json.decode(data, type=kind)
    except msgspec.ValidationError as error:
        odd = "" if known is None or "at `$" in str(error) else _misfit(data, known, tool)
        raise LayoutError(f"{path} is not {tool}: {odd}{error}. Check --dataset.") from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise LayoutError(f"{path} is no JSON, or cut short ({error}). Export it again.") from error
    except RecursionError as error:
        raise LayoutError(f"{path} is nested too deep to be {tool}. Export it again.") from error


def text_of(raw: msgspec.Raw) -> str:
    """Returns a part of a file as JSON text without blanks; empty if it is null, or an empty list or object."""
    text = msgspec.json.format(bytes(raw), indent=-1).decode(errors="replace")
    return "" if text in ("null", "[]", "[[]]", "{}") else text


def plain(raw: bytes | msgspec.Raw) -> Any:
    """Returns a part of a file as plain values; None if it is no JSON."""
    try:
        return msgspec.json.decode(raw)
    except (msgspec.DecodeError, RecursionError):
        return None


@dataclass(slots=True)
class OwnedAnnotations(Generic[T]):
    """Annotations by the id of the image or video that they are of.

    Attributes:
        of: the usable ones.
        problems: why one of them cannot be used; the image or video is lost by it.
        dropped: those of no image or video.
    """

    of: dict[Id, list[T]] = field(default_factory=lambda: defaultdict(list))
    problems: dict[Id, str] = field(default_factory=dict)
    dropped: list[Dropped] = field(default_factory=list)


def owned_annotations(
    annotations: Sequence[msgspec.Raw],
    kind: type[T],
    owner: str,
    owners: Container[Id],
    misfit: Callable[[Id, T], str] = lambda *_: "",
) -> OwnedAnnotations[T]:
    """Reads annotations one by one, so that one of a wrong form costs its image or video alone.

    Args:
        annotations: as they stand in the file.
        kind: type of an annotation.
        owner: "image" or "video"; their key is `<owner>_id`.
        owners: ids of those.
        misfit: gives what else is wrong with an annotation of an owner; empty if nothing.
    """
    found = OwnedAnnotations[T]()
    for number, raw in enumerate(annotations):
        place, annotation, wrong = f"annotations[{number}]", None, ""
        try:
            annotation = msgspec.json.decode(raw, type=kind)
            id: Any = getattr(annotation, f"{owner}_id")
        except (msgspec.DecodeError, RecursionError) as error:
            wrong, content = f": {error}", plain(raw)
            id = content.get(f"{owner}_id") if isinstance(content, dict) else None
        if not isinstance(id, (int, str)) or id not in owners:
            found.dropped.append(Dropped(str(id), f"annotation of no {owner}", place))
        elif annotation is None or (wrong := misfit(id, annotation)):
            found.problems[id] = f"{place}{wrong}."
        else:
            found.of[id].append(annotation)
    return found


def single_names(names: Iterable[tuple[str, str]]) -> None:
    """Checks that no two videos have one name.

    Args:
        names: name of each video, and the path of the file that describes it.

    Raises:
        LayoutError: two have.
    """
    files: dict[str, str] = {}
    for name, path in names:
        if name in files:
            raise LayoutError(
                f"Two videos are called {name!r}, in {files[name]} and in {path}, but records need a name each. Rename "
                f"one of them, or prepare the files apart."
            )
        files[name] = path


def _misfit(data: bytes, known: Collection[str], tool: str) -> str:
    """Names the first topmost key that the format does not have; empty if there is none."""
    try:
        found = msgspec.json.decode(data, type=dict[str, msgspec.Raw])
    except (msgspec.DecodeError, RecursionError):
        return ""
    odd = next((key for key in found if key not in known), None)
    return "" if odd is None else f"{tool} has no key {odd!r}. "
