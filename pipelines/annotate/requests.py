"""The requests of a run: every listed video with its expressions."""

from collections.abc import Callable, Sequence

from pipelines.annotate.expressions_file import read_expressions
from pipelines.annotate.layout import DONE, WRITTEN, markers_of
from pipelines.annotate.plan import AnnotationRequest
from pipelines.errors import BadItem, LayoutError
from pipelines.files import Folder
from pipelines.inference.quarantine import FAILED, Failure, write_failures
from pipelines.video.listing import list_videos

LISTED = "list"
"""Name of the file in failed/ for what could not be listed; no video id equals it."""
SENTENCES = "sentences.txt"
"""File in the folder of the run that keeps the expressions of the command line."""


def collect_requests(
    patterns: Sequence[str],
    expressions: str | None,
    texts: Sequence[str],
    out: Folder,
    tokens: Callable[[str], int],
) -> list[AnnotationRequest]:
    """Returns a request for every video that has expressions; writes what could not be listed to failed/.

    Args:
        patterns: which videos, see `list_videos`.
        expressions: file of expressions, see `read_expressions`; None takes the texts, for every video.
        texts: expressions of the command line.
        out: folder of the run.
        tokens: counts the tokens of an expression.

    Raises:
        LayoutError: no video was found, or no video has an expression; the message says why.
        OSError: the file of expressions does not exist, or cannot be read.
    """
    listing = list_videos(patterns)
    if not listing.videos:
        raise LayoutError(f"No video was found. {_why(listing.problems)}")
    if expressions is None:
        lines = [" ".join(text.split()) for text in texts]
        if not all(lines):
            raise LayoutError("An empty --text was given. Say what to look for.")
        out.write(SENTENCES, "".join(f"{line}\n" for line in lines).encode())
        expressions = out.uri_of(SENTENCES)
    table = read_expressions(expressions, listing.videos, tokens)
    problems = [*listing.problems, *table.problems]
    markers = markers_of(out)
    requests = [
        AnnotationRequest(video, of_video, tuple(markers.get(video.id, ())))
        for video in listing.videos
        if (of_video := table.by_video[video.path])
    ]
    if not requests:
        raise LayoutError(f"None of the {len(listing.videos)} videos has an expression. {_why(table.problems)}")
    write_failures(out, LISTED, [Failure(one.video, one.stage, one.reason) for one in problems])
    return requests


def delete_stale_failures(out: Folder, requests: Sequence[AnnotationRequest]) -> None:
    """Deletes failure notes of videos that are no longer requested, and temporary files of killed runs."""
    for folder in (DONE, WRITTEN):
        out.remove_unfinished(folder)
    known = {LISTED, *(name for one in requests for name in (one.video.id, f"{one.video.id}-overlay"))}
    for name in out.names(FAILED, ".json"):
        if name.removesuffix(".json") not in known:
            out.remove(f"{FAILED}/{name}")


def _why(problems: Sequence[BadItem]) -> str:
    lines = "\n".join(f"  {one.video}: {one.reason}" for one in problems[:10])
    more = f"\n  … and {len(problems) - 10} more" if len(problems) > 10 else ""
    return f"Problems:\n{lines}{more}" if problems else "The list of expressions is empty."
