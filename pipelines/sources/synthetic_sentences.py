"""Sentences that identify exactly one object of a synthetic scene, without ambiguity."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import NamedTuple

import numpy as np

from pipelines.sources.synthetic_scene import SHAPES, Scene

YES, UNCLEAR, NO = 1, 0, -1
"""Measure of how well a word fits an object; a sentence fits as well as the worst of its words."""

_KINDS = ("looks", "place", "motion", "order")
_BARE = 0.3  # share of sentences without "the", as users type them


class SceneExpression(NamedTuple):
    """A sentence, and the index in the scene of the object that it describes."""

    thing: int
    text: str


@dataclass(frozen=True, slots=True)
class _Seen:
    """Trajectory of one object; positions and distances are fractions of the frame, times are frame indices."""

    x: tuple[float, ...]  # centre of its visible pixels, in every frame where it is visible
    y: tuple[float, ...]
    dx: float  # displacement from the first to the last frame where it is visible
    dy: float
    first: int
    last: int
    late: int  # frames from the last appearance of the others to its own
    early: int  # frames from its disappearance to the first one of the others
    frames: int


class _Clause(NamedTuple):
    kind: str
    wordings: tuple[str, ...]
    fits: Callable[[_Seen], int]


class _Part(NamedTuple):
    """An adjective, noun or clause, and how well it fits each object."""

    kind: str
    wordings: tuple[str, ...]
    fits: tuple[int, ...]


def describe(
    rng: np.random.Generator, scene: Scene, kinds: tuple[float, float, float, float], each: int = 2
) -> tuple[SceneExpression, ...]:
    """Returns up to `each` different sentences per object; none for an object that cannot be told from the others.

    Args:
        kinds: weights of looks, place, motion and order, used where they identify the object.
    """
    odds_of: dict[str, float] = dict(zip(_KINDS, kinds, strict=True))
    looks, clauses = _looks(scene), _clauses(scene)
    sentences = []
    for thing in range(len(scene.things)):
        groups = _candidates(thing, looks, clauses)
        texts: list[str] = []
        while len(texts) < each and groups:
            odds = np.array([odds_of[kind] for kind in groups]) + 1e-9  # kinds of weight 0 are a last resort
            kind = str(rng.choice(list(groups), p=odds / odds.sum()))
            needs = np.array([3.0 if _every_part_is_needed(parts, thing) else 1.0 for parts in groups[kind]])
            parts = groups[kind].pop(int(rng.choice(len(needs), p=needs / needs.sum())))
            if not groups[kind]:
                del groups[kind]
            texts.append(_text(rng, parts))
        sentences += [SceneExpression(thing, text) for text in texts]
    return tuple(sentences)


def describe_plainly(scene: Scene) -> tuple[SceneExpression, ...]:
    """Returns a sentence of colour and shape for every object; none for those that share both with another."""
    texts = [f"the {thing.colour} {thing.shape}" for thing in scene.things]
    return tuple(SceneExpression(index, text) for index, text in enumerate(texts) if texts.count(text) == 1)


def _candidates(thing: int, looks: tuple[list[_Part], ...], clauses: list[_Part]) -> dict[str, list[list[_Part]]]:
    """Returns every combination of parts that fits this object and no other, by kind."""
    groups: dict[str, list[list[_Part]]] = {}
    for count in range(len(looks) + 1):
        for words in combinations([parts[thing] for parts in looks], count):
            for clause in [[], *([clause] for clause in clauses)]:
                parts = [*words, *clause]
                if _singles_out(parts, thing):
                    groups.setdefault(parts[-1].kind, []).append(parts)
    return groups


def _singles_out(parts: list[_Part], thing: int) -> bool:
    """Returns whether the parts together fit this object, and clearly none of the others."""
    worst = [min(fits) for fits in zip(*(part.fits for part in parts), strict=True)]
    return bool(parts) and all(fits == (YES if other == thing else NO) for other, fits in enumerate(worst))


def _every_part_is_needed(parts: list[_Part], thing: int) -> bool:
    return not any(_singles_out(parts[:index] + parts[index + 1 :], thing) for index in range(len(parts)))


def _text(rng: np.random.Generator, parts: list[_Part]) -> str:
    words = [str(rng.choice(part.wordings)) for part in parts]
    clause = [] if parts[-1].kind == "looks" else [words.pop()]
    if not any(part.wordings[0] in SHAPES for part in parts):
        words.append("object")
    start = [] if rng.random() < _BARE else ["the"]
    return " ".join([*start, *words, *clause])


def _looks(scene: Scene) -> tuple[list[_Part], ...]:
    """Returns size, colour and shape of every object, each with the objects that it fits."""

    def parts(values: Sequence[str]) -> list[_Part]:
        return [_Part("looks", (value,), tuple(YES if one == value else NO for one in values)) for value in values]

    things = scene.things
    sizes, colours = [one.size for one in things], [one.colour for one in things]
    return parts(sizes), parts(colours), parts([one.shape for one in things])


def _clauses(scene: Scene) -> list[_Part]:
    """Returns clauses of place, and for clips of motion and order, each with the objects that it fits."""
    seen = _seen(scene)
    return [
        _Part(clause.kind, clause.wordings, tuple(clause.fits(one) for one in seen))
        for clause in _CLAUSES
        if clause.kind == "place" or seen[0].frames > 1
    ]


def _seen(scene: Scene) -> list[_Seen]:
    _, frames, height, width = scene.masks.shape
    there = np.any(scene.masks, axis=(2, 3))
    firsts, lasts = there.argmax(axis=1), frames - 1 - there[:, ::-1].argmax(axis=1)
    found = []
    for index, thing in enumerate(scene.things):
        pixels = [np.nonzero(mask) for mask in scene.masks[index] if mask.any()]
        x = tuple(float(columns.mean() + 0.5) / width for _, columns in pixels)
        y = tuple(float(rows.mean() + 0.5) / height for rows, _ in pixels)
        first, last = int(firsts[index]), int(lasts[index])
        dx, dy = thing.centres[last] - thing.centres[first]
        late = first - int(np.delete(firsts, index).max())
        early = int(np.delete(lasts, index).min()) - last
        found.append(_Seen(x, y, float(dx) / width, float(dy) / height, first, last, late, early, frames))
    return found


def _before_the_middle(places: tuple[float, ...]) -> int:
    """Returns whether an object is left of (above) the middle in every frame, hence in any subset of frames."""
    return YES if max(places) <= 0.43 else NO if min(places) >= 0.57 else UNCLEAR


def _goes(along: float, across: float) -> int:
    return YES if along >= 0.15 and abs(across) <= along / 2 else NO if along <= 0.05 else UNCLEAR


def _stands(seen: _Seen) -> int:
    way = max(abs(seen.dx), abs(seen.dy))
    return YES if way <= 0.01 else NO if way >= 0.15 else UNCLEAR


def _two_frames(gap: int) -> int:
    return YES if gap >= 2 else NO if gap <= -2 else UNCLEAR


def _comes_from_the_left(seen: _Seen) -> int:
    return _over_the_left(seen.first, seen.x[0])


def _comes_from_the_right(seen: _Seen) -> int:
    return _over_the_left(seen.first, 1 - seen.x[0])


def _leaves_to_the_left(seen: _Seen) -> int:
    return _over_the_left(seen.frames - 1 - seen.last, seen.x[-1])


def _leaves_to_the_right(seen: _Seen) -> int:
    return _over_the_left(seen.frames - 1 - seen.last, 1 - seen.x[-1])


def _over_the_left(absent: int, x: float) -> int:
    """Returns whether an object crossed the left edge, being at `x` next to `absent` frames in which it is absent."""
    if absent == 0 or x >= 0.7:
        return NO
    return YES if absent >= 2 and x <= 0.3 else UNCLEAR


_CLAUSES = (
    _Clause("place", ("on the left", "on the left side"), lambda seen: _before_the_middle(seen.x)),
    _Clause("place", ("on the right", "on the right side"), lambda seen: -_before_the_middle(seen.x)),
    _Clause("place", ("at the top",), lambda seen: _before_the_middle(seen.y)),
    _Clause("place", ("at the bottom",), lambda seen: -_before_the_middle(seen.y)),
    _Clause("motion", ("moving left", "that moves to the left"), lambda seen: _goes(-seen.dx, seen.dy)),
    _Clause("motion", ("moving right", "that moves to the right"), lambda seen: _goes(seen.dx, seen.dy)),
    _Clause("motion", ("moving up", "that moves up"), lambda seen: _goes(-seen.dy, seen.dx)),
    _Clause("motion", ("moving down", "that moves down"), lambda seen: _goes(seen.dy, seen.dx)),
    _Clause("motion", ("standing still", "that does not move"), _stands),
    _Clause("motion", ("that moves",), lambda seen: -_stands(seen)),
    _Clause("order", ("that appears last",), lambda seen: _two_frames(seen.late)),
    _Clause("order", ("that leaves first",), lambda seen: _two_frames(seen.early)),
    _Clause("order", ("that comes in from the left",), _comes_from_the_left),
    _Clause("order", ("that comes in from the right",), _comes_from_the_right),
    _Clause("order", ("that leaves to the left",), _leaves_to_the_left),
    _Clause("order", ("that leaves to the right",), _leaves_to_the_right),
)
"""Left and right are sides of the picture, so that in a mirrored clip only these two words need to be swapped."""
