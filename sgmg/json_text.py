"""Parsing of JSON that others wrote: whatever is wrong with it is one kind of error."""

import json
import re
from collections.abc import Callable
from typing import Any

import numpy as np

MAX_NESTING = 100
"""Lists and objects in one another. Files of datasets have 8; Python's own functions fail at about 1 000."""

_OPEN, _CLOSE = np.zeros((2, 256), dtype=np.int8)
_OPEN[list(b"[{")], _CLOSE[list(b"]}")] = 1, 1
_TOO_DEEP = f"More than {MAX_NESTING} lists or objects in one another"
_PIECE = 2**20
_TOKEN = re.compile(rb'"(?:[^"\\]|\\.)*"|[\[\]{}]', re.DOTALL)


def parse_json(
    text: str | bytes,
    *,
    object_hook: Callable[[dict[str, Any]], Any] | None = None,
    object_pairs_hook: Callable[[list[tuple[str, Any]]], Any] | None = None,
) -> Any:
    """Returns the value of a JSON text, as `json.loads` does.

    >>> parse_json('{"a": [1]}')
    {'a': [1]}

    Raises:
        json.JSONDecodeError: the text is no JSON, no UTF-8, is nested too deep, or holds a number of thousands of
            digits.
    """
    data = text.encode("utf-8", "surrogatepass") if isinstance(text, str) else text
    if _is_too_deep(data):
        raise json.JSONDecodeError(_TOO_DEEP, "", 0)
    try:
        return json.loads(text, object_hook=object_hook, object_pairs_hook=object_pairs_hook)
    except json.JSONDecodeError:
        raise
    except UnicodeDecodeError as error:
        raise json.JSONDecodeError(f"Byte {error.start} is not {error.encoding}", "", 0) from error
    except RecursionError as error:  # the check above takes closing brackets in strings for real ones
        raise json.JSONDecodeError(_TOO_DEEP, "", 0) from error
    except ValueError as error:  # Python's limit of digits
        raise json.JSONDecodeError("A number of thousands of digits", "", 0) from error


def _is_too_deep(data: bytes) -> bool:
    """Returns whether more lists and objects are open at one place than allowed."""
    codes, depth, deepest = np.frombuffer(data, dtype=np.uint8), 0, 0
    for first in range(0, codes.size, _PIECE):
        piece = codes[first : first + _PIECE]
        depths = depth + np.cumsum(_OPEN[piece] - _CLOSE[piece], dtype=np.int64)
        depth, deepest = int(depths[-1]), max(deepest, int(depths.max()))
    if deepest <= MAX_NESTING:
        return False
    depth = 0  # Brackets in strings were counted, too.
    for token in _TOKEN.finditer(data):
        depth += {b"[": 1, b"{": 1, b"]": -1, b"}": -1}.get(token[0], 0)
        if depth > MAX_NESTING:
            return True
    return False
