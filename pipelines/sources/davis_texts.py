"""The annotation files of Ref-DAVIS17: the texts of each object, as distributed or converted."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from pipelines.errors import LayoutError, shown
from pipelines.files import Folder, safe_name
from pipelines.sources.reading import annotation_json, annotation_text, whole_number

SETS = {"train": "train.txt", "valid": "val.txt"}
_TEXTS = {  # in the order of annotators 0 … 3
    "Davis17_annot1.txt": "utf-8-sig",
    "Davis17_annot1_full_video.txt": "utf-8-sig",
    "Davis17_annot2.txt": "latin-1",
    "Davis17_annot2_full_video.txt": "latin-1",
}
_MISSPELT = {"clasic-car": "classic-car", "dog-scale": "dogs-scale", "motor-bike": "motorbike"}


@dataclass(frozen=True, slots=True)
class DavisVideo:
    """The part of the annotation files that a record needs. Plain values, stored in `Item.key`."""

    frames: str  # folder
    masks: str  # folder
    frame_names: list[str] = field(default_factory=list)  # empty: every frame in the folder
    expressions: list[list[str]] = field(default_factory=list)  # id, text, object id; annotator = index modulo 4
    categories: dict[str, str] | None = None  # by object id; None if the layout has no file of categories
    problem: str = ""  # why no record can be made; empty if one can


def raw_videos(root: Folder, split: str) -> Iterator[tuple[str, DavisVideo]]:
    """Yields the name and content of every video of the split, from the files as distributed (spec data.md §1).

    Raises:
        LayoutError: one of the files is missing or damaged.
    """
    home = "DAVIS/" if root.has("DAVIS") else ""
    videos = annotation_text(root, f"{home}ImageSets/2017/{SETS[split]}").split()
    semantics = annotation_json(root, f"{home}davis_semantics.json")
    if not isinstance(semantics, dict):
        raise LayoutError(f"{root.path(f'{home}davis_semantics.json')} is no JSON object of videos. Download it again.")
    texts = [_texts(root, f"davis_text_annotations/{name}", encoding) for name, encoding in _TEXTS.items()]
    for name in dict.fromkeys(videos):
        lines = [of_file.get(name, []) for of_file in texts]
        entry = [line for of_object in zip(*lines, strict=False) for line in of_object]
        categories = {number: str(named) for number, named in _dict(semantics.get(name)).items()}
        yield (
            name,
            DavisVideo(
                frames=f"{home}JPEGImages/480p/{name}",
                masks=f"{home}Annotations_unsupervised/480p/{name}",
                expressions=[[str(number), text, obj] for number, (obj, text) in enumerate(entry)],
                categories=categories,
                problem=_uneven(root, lines)
                or _nameless([obj for obj, _ in entry], categories, root.path(f"{home}davis_semantics.json")),
            ),
        )


def converted_videos(root: Folder, split: str) -> Iterator[tuple[str, DavisVideo]]:
    """Yields the name and content of every video of the split, from the output of the official converter.

    Raises:
        LayoutError: one of the files is missing or damaged.
    """
    name = f"meta_expressions/{split}/meta_expressions.json"
    meta = _videos(root, f"{split}/meta.json") if root.has(f"{split}/meta.json") else None
    images = f"{split}/JPEGImages/480p" if root.has(f"{split}/JPEGImages/480p") else f"{split}/JPEGImages"
    for video, entry in _videos(root, name).items():
        found = DavisVideo(frames=f"{images}/{video}", masks=f"{split}/Annotations/{video}")
        if meta is not None:
            objects = _dict(_dict(meta.get(video)).get("objects"))
            categories = {number: str(_dict(named).get("category", "")) for number, named in objects.items()}
            found = replace(found, categories=categories)
        try:
            yield video, _converted(found, entry, root.path(name), root.path(f"{split}/meta.json"))
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
            problem = f"{root.path(name)}: a key or value of the video is missing or wrong ({error!r}). Convert again."
            yield video, replace(found, problem=problem)


def _converted(video: DavisVideo, entry: Mapping[str, Any], path: str, meta_path: str) -> DavisVideo:
    """Returns the video with its frames and expressions, or with a description of what is wrong."""
    frames = [safe_name(frame) for frame in entry["frames"]]
    expressions = [_expression(number, expression) for number, expression in entry["expressions"].items()]
    problem = ""
    if not frames:
        problem = f"{path} lists no frame of it. Convert it again."
    elif not expressions or len(expressions) % 4:
        problem = f"{path} has {len(expressions)} texts, not 4 an object. Convert it again."
    elif video.categories is not None:
        problem = _nameless([obj for _, _, obj in expressions], video.categories, meta_path)
    return replace(video, frame_names=frames, expressions=expressions, problem=problem)


def _texts(root: Folder, name: str, encoding: str) -> dict[str, list[tuple[str, str]]]:
    """Returns, by video, the object id and text of every line, sorted by the id as a string."""
    found: dict[str, list[tuple[str, str]]] = {}
    for number, line in enumerate(annotation_text(root, name, encoding).split("\n"), start=1):
        words = line.split()
        if not words:
            continue
        if len(words) < 3 or whole_number(words[1]) is None:
            raise LayoutError(
                f'{root.path(name)}, line {number}: {shown(line)} is not `<video> <object number> "<text>"`. Mend the '
                f"line."
            )
        text = " ".join(words[2:])[1:-1]  # without its quotes
        found.setdefault(_MISSPELT.get(words[0], words[0]), []).append((words[1], text))
    return {video: sorted(lines, key=lambda line: line[0]) for video, lines in found.items()}


def _videos(root: Folder, name: str) -> dict[str, Any]:
    found = annotation_json(root, name)
    if not isinstance(found, dict) or not isinstance(found.get("videos"), dict):
        raise LayoutError(f'{root.path(name)} has no key "videos". Convert it again, or check --dataset.')
    return found["videos"]


def _expression(number: str, entry: Mapping[str, Any]) -> list[str]:
    if not isinstance(entry["exp"], str):
        raise TypeError(f"exp is {shown(entry['exp'])}")
    return [number, entry["exp"], str(int(entry["obj_id"]))]


def _dict(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _uneven(root: Folder, lines: Sequence[Sequence[tuple[str, str]]]) -> str:
    """Describes what is wrong if the four files do not each have one text for every object; empty if nothing is."""
    spoken_of = [[obj for obj, _ in of_file] for of_file in lines]
    if spoken_of[0] and all(objects == sorted(set(spoken_of[0])) for objects in spoken_of):
        return ""
    listed = ", ".join(f"{name} {objects}" for name, objects in zip(_TEXTS, spoken_of, strict=True))
    return (
        f"the files in {root.path('davis_text_annotations')} must each have one text for every object of the video, "
        f"but they speak of objects: {listed}. Add or remove lines."
    )


def _nameless(objects: Sequence[str], categories: object, path: str) -> str:
    """Describes what is wrong if a text refers to an object without a category; empty if nothing is."""
    missing = sorted(set(objects) - set(_dict(categories)))
    return f"{path} does not name object {', '.join(missing)}, of which texts speak. Add it there." if missing else ""
