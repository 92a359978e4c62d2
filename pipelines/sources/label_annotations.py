"""Annotations of COCO and YouTube-VIS: the keys that both have, for the object, its category and its sentences."""

from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec

from pipelines.sources.label_files import Id
from pipelines.sources.labels import LabelledObject, LabelledSentence, sentences_of

TEXT_KEYS = ("caption", "expression", "text", "sentence")
"""Keys of an annotation, and names of its attributes, that hold the sentence of its object."""
NO_TEXT = "annotation without category or sentence"
NO_MASK = "annotation without mask"

_TRACK_KEYS = ("track_id", "instance_id", "object_id")


class Category(msgspec.Struct):
    """A category, whose name is the sentence of objects that have no other."""

    id: Id
    name: str = ""


class Annotation(msgspec.Struct, kw_only=True):
    """The keys of an annotation that say which object it shows. `attributes` are what tools let people add."""

    id: Id | None = None
    category_id: Id | None = None
    iscrowd: int | bool = 0
    track_id: Id | None = None
    instance_id: Id | None = None
    object_id: Id | None = None
    caption: Any = None
    expression: Any = None
    text: Any = None
    sentence: Any = None
    attributes: Any = None
    video: Any = None
    score: float | None = None

    @property
    def is_ours(self) -> bool:
        """Whether our own export wrote it: then `expression` is an id, and the category is the sentence."""
        return isinstance(self.video, str) and isinstance(self.expression, str)

    @property
    def track(self) -> Hashable:
        """Id of its object, the same in all annotations of the object in a video; None if it has none."""
        if self.is_ours:
            return f"expression {self.expression}"
        places = (self, self._attributes)
        return next((value for key in _TRACK_KEYS for one in places if _is_id(value := _value(one, key))), None)

    @property
    def sentences(self) -> list[str]:
        """The sentences that it holds, or else its attributes."""
        if self.is_ours:
            return []
        own = [text for key in TEXT_KEYS for text in texts_in(getattr(self, key))]
        return own or [text for key in TEXT_KEYS for text in texts_in(self._attributes.get(key))]

    @property
    def _attributes(self) -> Mapping[str, Any]:
        return self.attributes if isinstance(self.attributes, Mapping) else {}


def texts_in(value: object) -> list[str]:
    """Returns the texts of a value that is one, or a list of some; blank ones do not count.

    >>> texts_in(["a cat", " ", 7])
    ['a cat']
    """
    listed = value if isinstance(value, list) else [value]
    return [text for text in listed if isinstance(text, str) and text.strip()]


def times_of(values: object, frames: int) -> list[float] | None:
    """Returns the seconds of every frame; None unless there is a number for each."""
    if not isinstance(values, list) or len(values) != frames:
        return None
    return values if all(type(value) in (int, float) for value in values) else None


@dataclass(slots=True)
class GatheredObject:
    """Category, sentences and masks of one object, collected from its annotations."""

    number: Id | None
    category: str = ""
    ours: str | None = None
    iscrowd: bool = False
    masks: dict[int, list[str]] = field(default_factory=dict)
    scores: dict[int, float] = field(default_factory=dict)
    texts: list[str] = field(default_factory=list)
    unknown: set[int] = field(default_factory=set)

    def note(self, annotation: Annotation, category: str) -> None:
        """Takes over category and sentences of an annotation."""
        self.category = self.category or category
        self.iscrowd |= bool(annotation.iscrowd)
        self.texts += annotation.sentences
        self.ours = annotation.expression if annotation.is_ours else self.ours

    def add_mask(self, index: int, text: str, score: float | None = None) -> None:
        """Adds a mask to a frame. Of our own export, only the one with the best score is kept."""
        if self.ours is None:
            self.masks.setdefault(index, []).append(text)
        elif index not in self.masks or (score or 0) > self.scores[index]:
            self.masks[index], self.scores[index] = [text], score or 0


def named(
    gathered: Iterable[GatheredObject],
) -> tuple[list[LabelledObject], list[LabelledSentence], list[tuple[str, str]]]:
    """Returns the objects of a video, its sentences, and the objects that have none with the reason.

    An object keeps the number that the file gives it, if all objects have one of their own; else they count from 1.
    """
    with_text = {id: one for id, one in _numbered(list(gathered)).items() if one.texts or one.category.strip()}
    without = [one for one in gathered if not one.texts and not one.category.strip()]
    objects = [
        LabelledObject(id, one.masks, one.category, one.iscrowd, sorted(one.unknown - one.masks.keys()))
        for id, one in with_text.items()
    ]
    ours = [LabelledSentence(one.category, [id], one.ours) for id, one in with_text.items() if one.ours is not None]
    texts = {id: one.texts or [one.category] for id, one in with_text.items() if one.ours is None}
    sentences = ours + sentences_of(texts, [id for id, one in with_text.items() if one.iscrowd])
    return objects, sentences, [(NO_TEXT, f"object {one.number}") for one in without]


def _numbered(gathered: Sequence[GatheredObject]) -> dict[int, GatheredObject]:
    numbers = [one.number for one in gathered if type(one.number) is int and 0 <= one.number < 2**63]
    if len(set(numbers)) < len(gathered):
        numbers = list(range(1, len(gathered) + 1))
    return dict(zip(numbers, gathered, strict=True))


def _value(entry: Any, key: str) -> Any:
    return entry.get(key) if isinstance(entry, Mapping) else getattr(entry, key)


def _is_id(value: object) -> bool:
    return type(value) in (int, str)
