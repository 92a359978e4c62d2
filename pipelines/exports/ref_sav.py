"""Results of Ref-SAV: a JSON of the masks of every frame, by video and expression."""

import json
import re
from collections.abc import Iterator
from typing import IO, Any, cast

from pipelines.errors import shown
from pipelines.exports.writing import json_output
from pipelines.files import Folder
from pipelines.prediction_reader import Predictions
from pipelines.predictions import Prediction
from pipelines.safety.limits import MAX_MASK_BYTES
from sgmg.json_text import parse_json
from sgmg.masks import Size, rle_area, rle_to_coco

Span = tuple[int, int]
"""First byte of a part of a file, and the one after its last."""

_MASKS = "prediction_masks"
_TOKEN = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+(?:"|\\?\Z)|[\[\]{}]', re.DOTALL)
"""A bracket, or a string, which may be cut by the end of what was read."""
_PIECE = 2**20
_RESULT, _CLOSED = 3, -1  # numbers of open objects: within a result, and after the last one


def write_ref_sav(predictions: Predictions, out: Folder, name: str) -> int:
    """Writes `{video: {expression: {"prediction_masks": [RLE, …]}}}`, and returns the number of expressions."""
    count, video = 0, None
    with json_output(out, name) as write:
        write("{")
        for prediction in predictions:  # sorted by video
            if prediction.video != video:
                write(f"{'' if video is None else '},'}\n{json.dumps(prediction.video, ensure_ascii=False)}: {{")
                video, separator = prediction.video, ""
            else:
                separator = ","
            write(f"{separator}\n{json.dumps(prediction.expression)}: {json.dumps(_masks(prediction))}")
            count += 1
        write("\n}}\n" if count else "}\n")
    return count


def check_ref_sav(predictions: Predictions, out: Folder, name: str) -> str:
    """Reads the file back and checks that it holds a whole mask for every frame of exactly the expected expressions.

    The masks of one expression are held at a time.

    Returns:
        A sentence that says what was checked.

    Raises:
        ValueError: an expression is missing or unexpected, or a mask is damaged or of another size.
    """
    expected = {(entry.video, entry.expression): entry for entry in predictions.entries}
    places = places_of_results(out, name)
    there = {(video, expression) for video, some in places.items() for expression in some}
    if odd := sorted(there ^ expected.keys()):
        raise ValueError(f"{out.path(name)} lacks or should not hold {' '.join(odd[0])}. Write it again.")
    with out.open(name) as stream:
        for (video, expression), entry in expected.items():
            try:
                read_result(cast(IO[bytes], stream), places[video][expression], entry.size, len(entry.frame_names))
            except ValueError as error:
                raise ValueError(
                    f"{out.path(name)}: {video}, expression {expression}: {error}. Write it again."
                ) from error
    return f"{len(expected)} expressions, each with a whole mask for every frame, of its video's size"


def places_of_results(folder: Folder, name: str) -> dict[str, dict[str, Span]]:
    """Returns where the file holds the result of each expression of each video. It is read piece by piece.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is not results by video and expression, or is cut short.
    """
    found: dict[str, dict[str, Span]] = {}
    names: list[str] = []  # the video, and its expression, whose value is open or comes next
    depth, first = 0, 0  # number of open objects; where the result that is open begins
    with folder.open(name) as stream:
        for between, token, end in _tokens(cast(IO[bytes], stream)):
            if (depth < _RESULT or not token) and not _is_expected(between, token, depth, len(names)):
                raise ValueError(
                    f"{folder.path(name)}, byte {end}, is cut short or holds no results of Ref-SAV, which are "
                    f'{{video: {{expression: {{"{_MASKS}": […]}}}}}}. Write or copy it again.'
                )
            if token in (b"{", b"["):
                depth += 1
                first = end - 1 if depth == _RESULT else first
            elif token in (b"}", b"]"):
                depth = depth - 1 or _CLOSED
                if depth == _RESULT - 1:
                    found.setdefault(names[0], {})[names[1]] = (first, end)
                del names[max(0, depth - 1) :]
            elif token and depth < _RESULT:
                names.append(parse_json(token))
                if (names[0] in found) if depth == 1 else (names[1] in found.get(names[0], ())):
                    raise ValueError(f"{folder.path(name)} holds {' '.join(names)} twice. Write it again.")
    return found


def read_result(stream: IO[bytes], place: Span, size: Size, t: int) -> tuple[str, ...]:
    """Returns the RLEs of an expression in t frames of height, width `size`.

    Args:
        stream: the open file.
        place: the part of it that holds the result.

    Raises:
        ValueError: it is no list of a mask for each frame, or a mask is damaged or of another size.
    """
    stream.seek(place[0])
    result = parse_json(stream.read(place[1] - place[0]))
    masks = result.get(_MASKS) if isinstance(result, dict) else None
    if not isinstance(masks, list) or len(masks) != t:
        found = f"{len(masks)} masks" if isinstance(masks, list) else f"no list {_MASKS!r}"
        raise ValueError(f"it holds {found} for {t} frames")
    return tuple(_rle(mask, size, number) for number, mask in enumerate(masks))


def _rle(mask: Any, size: Size, number: int) -> str:
    """Checks the mask of a frame, and returns its RLE."""
    counts = mask.get("counts") if isinstance(mask, dict) else None
    if not isinstance(counts, str):
        raise ValueError(f"mask {number} is {shown(mask)}, not an RLE with size and counts")
    if mask.get("size") != list(size):
        raise ValueError(
            f"mask {number} is of height, width {shown(mask.get('size'))}, not {size} as the original frames"
        )
    rle_area(counts, size)
    return counts


def _tokens(stream: IO[bytes]) -> Iterator[tuple[bytes, bytes, int]]:
    """Yields the strings and brackets of a JSON text in order: what stands before, itself, and the byte it ends before.

    The last one is empty: the end of the text.

    Raises:
        ValueError: a string is longer than that of any mask.
    """
    text, begin, more = b"", 0, True
    while more:
        piece = stream.read(_PIECE)
        text, more, at = text + piece, bool(piece), 0
        for token in _TOKEN.finditer(text):
            if more and token.end() == len(text):  # it may be cut
                break
            yield text[at : token.start()], token[0], begin + token.end()
            at = token.end()
        text, begin = text[at:], begin + at
        if len(text) > MAX_MASK_BYTES:
            raise ValueError(f"from byte {begin} on there is no JSON of masks. Write or copy the file again.")
    yield text, b"", begin + len(text)


def _is_expected(between: bytes, token: bytes, depth: int, names: int) -> bool:
    """Returns whether a token may come where an object of videos, or of expressions, is open, or none.

    Args:
        between: what stands before it.
        depth: number of open objects.
        names: number of names of values that are open or come next.
    """
    if between.strip(b" \t\r\n,:"):
        return False
    if not token:
        return depth == _CLOSED
    if token.startswith(b'"') and not _is_string(token):
        return False
    return names == (depth if token == b"{" else depth - 1) and token not in (b"[", b"]")


def _is_string(token: bytes) -> bool:
    """Returns whether a string is whole, and its escapes are JSON's."""
    try:
        return isinstance(parse_json(token), str)
    except json.JSONDecodeError:
        return False


def _masks(prediction: Prediction) -> dict[str, Any]:
    size = (prediction.height, prediction.width)
    return {_MASKS: [rle_to_coco(rle, size) for rle in prediction.queries[0].rle]}
