"""Attributes of an expression and its objects, by which scores are broken down: they show what a model gets wrong."""

import re
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from pipelines.scoring.truth import VideoTruth
from pipelines.sources.vots import IGNORED
from sgmg.masks import rle_area, rle_union

_VERBS = """
approach ascend bounce chase climb come crawl cross dance descend dive drift drive drop enter escape exit fall flap flip
float flow fly follow gallop glide go grab hop hunt hurry jog jump kick leap leave lift march move overtake paddle pass
pedal pull push race raise reach retreat return ride rise roll rotate run rush sail shake skate ski skid slide slip spin
sprint stop surf sway swim swing swoop throw toss tumble turn twist wag walk wander wave wobble
"""
_OTHERS = """
came drove driven fell fallen flew flown went gone leapt ran ridden rode rose risen shook shaken slid spun swam swung
swept threw thrown away backwards forward forwards toward towards then while until before after onto
"""


def _forms(verb: str) -> set[str]:
    """Returns the forms of a regular verb.

    >>> sorted(_forms("run")), sorted(_forms("hurry"))
    (['run', 'runned', 'running', 'runs'], ['hurried', 'hurries', 'hurry', 'hurrying'])
    """
    if re.search(r"[^aeiou]y$", verb):
        return {verb, f"{verb}ing", f"{verb[:-1]}ies", f"{verb[:-1]}ied"}
    short = re.fullmatch(r"[^aeiou]*[aeiou][^aeiouwxy]", verb)
    stem = verb + verb[-1] if short else verb.removesuffix("e")
    return {verb, f"{verb}es" if verb.endswith(("s", "sh", "ch", "o")) else f"{verb}s", f"{stem}ing", f"{stem}ed"}


MOTION_WORDS = frozenset().union(*map(_forms, _VERBS.split()), _OTHERS.split())
"""English words of motion and of its course, by which `motion` is told."""


@dataclass(frozen=True, slots=True)
class Attributes:
    """Attributes of an expression and its objects.

    Attributes:
        words: number of words of the expression.
        area: mean share of the picture that the target covers, in the frames that show it; 0 if none does.
        visible: share of the scored frames that show it.
        alike: number of other objects of its category in the scored frames; of any category where there are none.
        motion: whether the expression has a word of `MOTION_WORDS`.
    """

    words: int
    area: float
    visible: float
    alike: int
    motion: bool


def attributes_of(truth: VideoTruth, text: str, object_ids: Sequence[int], frames: Iterable[int]) -> Attributes:
    """Computes the attributes of an expression about some objects, scored in some frames."""
    tracks, frames = [truth.objects[number] for number in object_ids if number in truth.objects], list(frames)
    rles = ([one for track in tracks if (one := track.rle[frame]) is not None] for frame in frames)
    areas = [
        rle_area(some[0] if len(some) == 1 else rle_union(some, truth.size), truth.size) for some in rles if some
    ] or [0]
    shown = [area for area in areas if area]
    words = re.findall(r"[\w'-]+", text.lower())
    categories = {track.category for track in tracks if track.category}
    return Attributes(
        words=len(words),
        area=float(np.mean(shown)) / (truth.size[0] * truth.size[1]) if shown else 0.0,
        visible=len(shown) / len(areas),
        alike=sum(
            number not in object_ids
            and number != _VOID
            and track.category != IGNORED
            and (not categories or track.category in categories)
            and any(rle and rle_area(rle, truth.size) for rle in map(track.rle.__getitem__, frames))
            for number, track in truth.objects.items()
        ),
        motion=not MOTION_WORDS.isdisjoint(words),
    )


_VOID = 255  # DAVIS's pixels that are not scored


GROUPS = {
    "sentence": ("up to 5 words", "6 to 10 words", "more than 10 words"),
    "motion": ("no word of motion", "words of motion"),
    "target": ("none", "small (under 1 % of the picture)", "medium", "large (from 10 % of the picture)"),
    "presence": ("in no frame", "in some frames", "in every frame"),
    "look-alikes": ("none", "one", "several"),
}
"""Names of the groups of each attribute, in order."""


def groups_of(one: Attributes) -> dict[str, str]:
    """Returns the group of an expression under each attribute.

    >>> groups_of(Attributes(words=4, area=0.2, visible=0.5, alike=0, motion=True))["target"]
    'large (from 10 % of the picture)'
    """
    places = {
        "sentence": bisect_right((5, 10), one.words - 1),
        "motion": int(one.motion),
        "target": 1 + bisect_right((0.01, 0.1), one.area) if one.visible else 0,
        "presence": 2 if one.visible == 1 else int(one.visible > 0),
        "look-alikes": min(one.alike, 2),
    }
    return {attribute: names[places[attribute]] for attribute, names in GROUPS.items()}
