"""Synthetic scenes: textured shapes that move, occlude one another, enter and leave."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from jaxtyping import Bool, Float, UInt8

from sgmg.masks import Size

COLOURS = {
    "red": (215, 45, 45),
    "green": (45, 165, 65),
    "blue": (50, 80, 220),
    "yellow": (235, 210, 50),
    "cyan": (60, 205, 215),
    "pink": (235, 110, 185),
    "white": (232, 232, 232),
    "black": (30, 30, 30),
}
"""Red, green, blue, 0 to 255; each stands out from the grey background."""
SHAPES = ("disc", "square", "triangle", "cross")
SIZES = {"small": (0.082, 0.096), "large": (0.150, 0.174)}
"""Radius of the disc of the same area, divided by √(height·width): 2 to 3 and 7 to 9.5 % of the frame."""
TRIES = 2000


@dataclass(frozen=True, slots=True)
class Variety:
    """Settings of how many kinds of objects occur, and how hard they are to tell apart.

    Attributes:
        colours, shapes: how many of `COLOURS` and `SHAPES` occur, counted from the first.
        things: smallest and largest number of objects in a scene.
        alike: share of objects that have two of size, colour and shape in common with another; the others have a colour
            of their own.
        kinds: weights of sentences that identify an object by its looks, place, motion, or order of coming and going.
        plain: every sentence names colour and shape, and nothing else.

    Raises:
        ValueError: there are fewer kinds than objects in a scene, or `alike` or `kinds` is out of range.
    """

    colours: int = 8
    shapes: int = 4
    things: tuple[int, int] = (3, 4)
    alike: float = 0.85
    kinds: tuple[float, float, float, float] = (0.35, 0.2, 0.2, 0.4)  # order rarely identifies one
    plain: bool = False

    def __post_init__(self) -> None:
        fewest, most = self.things
        if not 2 <= fewest <= most <= self.colours <= len(COLOURS) or not 2 <= self.shapes <= len(SHAPES):
            raise ValueError(
                f"{self}: give 2 things or more, as many colours (of {len(COLOURS)}), and 2 shapes or more."
            )
        if not 0 <= self.alike <= 1 or min(self.kinds) < 0 or not max(self.kinds):
            raise ValueError(f"{self}: alike is a share from 0 to 1, kinds are odds of which one is above 0.")


RICH = Variety()
"""All colours and shapes: colour, size and shape alone rarely identify an object."""
EASY = Variety(colours=4, shapes=3, things=(2, 3), alike=0.25, kinds=(0.6, 0.2, 0.15, 0.05))
"""Simple enough for a small model to learn in minutes, once it knows the names of colours and shapes."""
PLAIN = Variety(colours=4, shapes=3, things=(2, 3), alike=0.15, plain=True)
"""Teaches the names of colours and shapes: most objects have a colour of their own, and every sentence names it."""

_SHARED = ("all but the colour", "all but the shape", "all but the size", "all")
_SHARED_ODDS = (0.35, 0.35, 0.18, 0.12)
_PATHS = ("still", "left", "right", "up", "down", "enter", "leave")
_PATH_ODDS = (0.22, 0.13, 0.13, 0.1, 0.1, 0.18, 0.14)


@dataclass(frozen=True, slots=True)
class Thing:
    """One object of a scene. Its centres, x and y in pixels in every frame, may lie outside the frame."""

    size: str
    colour: str
    shape: str
    radius: float  # pixels, of the disc of the same area
    angle: float  # radians, too small for a square to pass for a diamond
    pattern: tuple[float, float]  # waves per radius, along the object's own two axes
    centres: Float[np.ndarray, "t 2"]


@dataclass(frozen=True, slots=True)
class Scene:
    """o objects, later ones in front, and the visible pixels of each."""

    things: tuple[Thing, ...]
    masks: Bool[np.ndarray, "o t h w"]


def draw_scene(rng: np.random.Generator, frames: int, size: Size, variety: Variety) -> Scene:
    """Draws a scene in which every object is clearly visible; a scene of one frame is an image without motion.

    Raises:
        ValueError: no such scene was found, for example because the frame is too flat.
    """
    for _ in range(TRIES):
        looks = _draw_looks(rng, variety)
        things = tuple(_draw_thing(rng, look, frames, size) for look in looks)
        whole = np.stack([[_local(thing, t, size)[2] for t in range(frames)] for thing in things])
        masks = _without_hidden(whole)
        if _seen_well(whole, masks):
            return Scene(things, masks)
    raise ValueError(f"No scene in {TRIES} fits height and width {size}. Ask for frames nearer to 3:2.")


def paint(rng: np.random.Generator, scene: Scene) -> UInt8[np.ndarray, "t h w 3"]:
    """Renders the frames of a scene in RGB: cloudy grey background, grain, and patterned objects with a dark rim."""
    _, frames, *size = scene.masks.shape
    background = _clouds(rng, (size[0], size[1]))
    painted = []
    for t in range(frames):
        image = background + rng.normal(0, 3, (*size, 1))
        for thing, seen in zip(scene.things, scene.masks[:, t], strict=True):
            image[seen] = _surface(thing, t, (size[0], size[1]))[seen] + rng.normal(0, 3, (seen.sum(), 1))
        painted.append(np.clip(image, 0, 255).astype(np.uint8))
    return np.stack(painted)


def _draw_looks(rng: np.random.Generator, variety: Variety) -> list[tuple[str, str, str]]:
    """Draws size, colour and shape of each object. Objects that are alike share two of them, or all three."""
    sizes, colours, shapes = [*SIZES], [*COLOURS][: variety.colours], SHAPES[: variety.shapes]

    def other(choices: Sequence[str], than: Sequence[str] = ()) -> str:
        return str(rng.choice([choice for choice in choices if choice not in than]))

    count = int(rng.integers(variety.things[0], variety.things[1], endpoint=True))
    looks = [(other(sizes), other(colours), other(shapes))]
    while len(looks) < count:
        size, colour, shape = looks[int(rng.integers(len(looks)))]
        kind = str(rng.choice(_SHARED, p=_SHARED_ODDS)) if rng.random() < variety.alike else "nothing"
        match kind:
            case "all but the colour":
                colour = other(colours, [colour])
            case "all but the shape":
                shape = other(shapes, [shape])
            case "all but the size":
                size = other(sizes, [size])
            case "nothing":
                size, colour, shape = other(sizes), other(colours, [look[1] for look in looks]), other(shapes)
        looks.append((size, colour, shape))
    return looks


def _draw_thing(rng: np.random.Generator, look: tuple[str, str, str], frames: int, size: Size) -> Thing:
    radius = float(rng.uniform(*SIZES[look[0]])) * math.sqrt(size[0] * size[1])
    angle, pattern = float(rng.uniform(-0.2, 0.2)), (float(rng.uniform(0.3, 1.2)), float(rng.uniform(0.3, 1.2)))
    return Thing(*look, radius, angle, pattern, _draw_path(rng, radius, frames, size))


def _draw_path(rng: np.random.Generator, radius: float, frames: int, size: Size) -> Float[np.ndarray, "t 2"]:
    """Draws a straight path at constant speed, along one axis with a slight drift, or no motion."""
    extent = np.array([size[1], size[0]], dtype=float)  # x, y
    kind = str(rng.choice(_PATHS, p=_PATH_ODDS)) if frames > 1 else "still"
    if kind in ("enter", "leave"):
        return _path_over_the_edge(rng, radius, frames, extent)[:: 1 if kind == "enter" else -1]
    travel = np.zeros(2)
    if kind != "still":
        axis = 0 if kind in ("left", "right") else 1
        travel[axis] = rng.uniform(0.25, 0.42) * extent[axis] * (-1 if kind in ("left", "up") else 1)
        travel[1 - axis] = rng.uniform(-0.03, 0.03) * extent[1 - axis]
    margin = 0.9 * radius + np.abs(travel) / 2
    middle = margin + rng.uniform(size=2) * np.maximum(extent - 2 * margin, 0)
    return middle + np.linspace(-0.5, 0.5, frames)[:, None] * travel if frames > 1 else middle[None]


def _path_over_the_edge(
    rng: np.random.Generator, radius: float, frames: int, extent: Float[np.ndarray, " 2"]
) -> Float[np.ndarray, "t 2"]:
    """Draws a path from outside the left or right edge to well inside; visible from about the third frame on."""
    entry = int(rng.integers(2, 2 * frames // 5 + 1))
    outside, inside = -1.35 * radius, rng.uniform(0.3, 0.75) * extent[0]  # the extent of a triangle
    pace = (inside - outside) / (frames - entry)
    x = inside - pace * np.arange(frames)[::-1]
    y = rng.uniform(radius, max(extent[1] - radius, radius + 1))
    return np.stack([x if rng.random() < 0.5 else extent[0] - x, np.full(frames, y)], axis=1)


def _local(
    thing: Thing, t: int, size: Size
) -> tuple[Float[np.ndarray, "h w"], Float[np.ndarray, "h w"], Bool[np.ndarray, "h w"]]:
    """Returns the centre of every pixel in the object's own axes, in radii, and whether it lies in the object."""
    x = (np.arange(size[1]) + 0.5 - thing.centres[t, 0])[None, :] / thing.radius
    y = (np.arange(size[0]) + 0.5 - thing.centres[t, 1])[:, None] / thing.radius
    cos, sin = math.cos(thing.angle), math.sin(thing.angle)
    u, v = cos * x + sin * y, cos * y - sin * x
    return u, v, _inside(thing.shape, u, v)


def _inside(shape: str, u: Float[np.ndarray, "h w"], v: Float[np.ndarray, "h w"]) -> Bool[np.ndarray, "h w"]:
    """Returns whether the points, in radii, lie in the shape; every shape has the area of the disc of radius 1."""
    match shape:
        case "disc":
            return u**2 + v**2 <= 1
        case "square":
            return np.maximum(np.abs(u), np.abs(v)) <= math.sqrt(math.pi) / 2
        case "triangle":
            reach = math.sqrt(4 * math.pi / (3 * math.sqrt(3)))  # from the middle to a corner
            return (v <= reach / 2) & (math.sqrt(3) * np.abs(u) <= v + reach)
        case _:
            arm = math.sqrt(math.pi / 20)  # half the width of an arm of a cross of five squares
            return (np.minimum(np.abs(u), np.abs(v)) <= arm) & (np.maximum(np.abs(u), np.abs(v)) <= 3 * arm)


def _surface(thing: Thing, t: int, size: Size) -> Float[np.ndarray, "h w 3"]:
    """Returns the object's colour with waves, darker at the rim, so that touching objects of one colour differ."""
    u, v, _ = _local(thing, t, size)
    colour = np.array(COLOURS[thing.colour], dtype=float)
    waves = np.sin(2 * math.pi * thing.pattern[0] * u) * np.cos(2 * math.pi * thing.pattern[1] * v)
    inner = _inside(thing.shape, 1.1 * u, 1.1 * v)
    return np.where(inner[..., None], colour + 20 * waves[..., None], 0.55 * colour + 25)


def _without_hidden(whole: Bool[np.ndarray, "o t h w"]) -> Bool[np.ndarray, "o t h w"]:
    masks = whole.copy()
    for index in range(len(whole) - 1):
        masks[index] &= ~whole[index + 1 :].any(axis=0)
    return masks


def _seen_well(whole: Bool[np.ndarray, "o t h w"], masks: Bool[np.ndarray, "o t h w"]) -> bool:
    """Returns whether each object is visible for most of the clip, mostly unoccluded, and never hidden or a sliver."""
    area, seen = whole.sum(axis=(2, 3)), masks.sum(axis=(2, 3))
    there = area > 0
    share = np.where(there, seen / np.maximum(area, 1), 1.0)
    part = np.where(there, seen / area.max(axis=1, keepdims=True), 1.0)  # of its largest area
    enough = 0.35 if area.shape[1] > 1 else 0.7
    present = bool((there.mean(axis=1) >= 0.6).all())
    return present and bool((share >= enough).all() and (share.mean(axis=1) >= 0.7).all() and (part >= 0.08).all())


def _clouds(rng: np.random.Generator, size: Size) -> Float[np.ndarray, "h w 3"]:
    """Draws a grey background of soft patches and finer specks, with a little colour."""
    clouds = np.full((*size, 3), rng.uniform(105, 150))
    for cell, strength, channels in ((40, 16.0, 1), (56, 3.5, 3), (7, 7.0, 1)):
        coarse = rng.normal(0, strength, (size[0] // cell + 3, size[1] // cell + 3, channels)).astype(np.float32)
        smooth = cv2.resize(coarse, (size[1], size[0]), interpolation=cv2.INTER_CUBIC)
        clouds += smooth.reshape(*size, channels)
    return np.clip(clouds, 70, 190)
