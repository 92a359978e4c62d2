"""Reading of configs back from plain values: types and ranges are checked before anything is built of them."""

import dataclasses
from collections.abc import Mapping
from types import UnionType
from typing import Any, TypeVar

MOST_LAYERS, MOST_CHANNELS = 64, 2**16
"""Largest number of layers, and of channels, tokens or heads, that a model can have: a damaged config may say any."""

_T = TypeVar("_T")


def check_whole(config: object, most: int, *names: str) -> None:
    """Checks that fields of a config are whole numbers from 1 to `most`.

    Raises:
        ValueError: one is of another type, or beyond; the message names it.
    """
    for name in names:
        value = getattr(config, name)
        if type(value) is not int or not 1 <= value <= most:
            raise ValueError(f"{_named(config, name)}={_short(value)} must be a whole number from 1 to {most}.")


def check_stages(config: object, most: int, name: str, count: int) -> None:
    """Checks that a field of a config is a tuple of `count` whole numbers from 1 to `most`.

    Raises:
        ValueError: it is of another type or length, or a number is beyond; the message names it.
    """
    values = getattr(config, name)
    if not isinstance(values, tuple) or len(values) != count:
        raise ValueError(f"{_named(config, name)}={_short(values)} must be {count} numbers.")
    if any(type(value) is not int or not 1 <= value <= most for value in values):
        raise ValueError(f"{_named(config, name)}={_short(values)} must be whole numbers from 1 to {most}.")


def check_rate(config: object, *names: str) -> None:
    """Checks that fields of a config are numbers from 0 and below 1.

    Raises:
        ValueError: one is of another type, or beyond; the message names it.
    """
    for name in names:
        value = getattr(config, name)
        if type(value) not in (int, float) or not 0 <= value < 1:
            raise ValueError(f"{_named(config, name)}={_short(value)} must be at least 0 and below 1.")


def check_kind(config: object, kind: type | UnionType, *names: str) -> None:
    """Checks that fields of a config are of a type.

    Raises:
        ValueError: one is of another; the message names it.
    """
    for name in names:
        if not isinstance(value := getattr(config, name), kind):
            raise ValueError(f"{_named(config, name)}={_short(value)} must be a {getattr(kind, '__name__', kind)}.")


def from_fields(cls: type[_T], values: object) -> _T:
    """Makes a config of values by field, lists as tuples.

    Raises:
        ValueError: a field is unknown or missing, or its value is refused by the config; the message names it.
    """
    fields = dataclasses.fields(cls)  # pyright: ignore[reportArgumentType]
    if not isinstance(values, Mapping):
        raise ValueError(f"The saved {cls.__name__} is {_short(values)}, not an object. Save the checkpoint again.")
    known = {field.name for field in fields}
    if unknown := sorted(set(map(str, values)) - known):
        raise ValueError(
            f"{cls.__name__} has no field {', '.join(unknown)}; it has {', '.join(sorted(known))}. "
            f"The checkpoint may come from a newer version of sgmg."
        )
    required = {field.name for field in fields if field.default is field.default_factory is dataclasses.MISSING}
    if missing := sorted(required - set(values)):
        raise ValueError(f"The saved {cls.__name__} lacks {', '.join(missing)}. Save the checkpoint again.")
    plain: dict[str, Any] = {name: tuple(one) if isinstance(one, list) else one for name, one in values.items()}
    return cls(**plain)


def _named(config: object, name: str) -> str:
    return f"{type(config).__name__}.{name}"


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:60]}…"
