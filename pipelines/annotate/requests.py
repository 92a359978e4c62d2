"""What is asked of which video, in all: the videos that were found, and the sentences that fit them."""

from collections.abc import Callable, Sequence

from pipelines.annotate.expressions_file import read_expressions
from pipelines.annotate.layout import DONE, WRITTEN
from pipelines.annotate.plan import AnnotationRequest, markers_of
from pipelines.errors import BadItem, LayoutError
from pipelines.files import Folder
from pipelines.inference.quarantine import FAILED, Failure, write_failures
from pipelines.video.listing import list_videos

LISTED = "list"
"""The note in failed/ on what could not be listed; no video is called so."""
SENTENCES = "sentences.txt"
"""Sentences of the command line, kept beside what they found."""


def collect_requests(
    patterns: Sequence[str],
    expressions: str | None,
    texts: Sequence[str],
    out: Folder,
    tokens: Callable[[str], int],
) -> list[AnnotationRequest]:
    """Every video that something is asked of; what could not be listed goes to failed/.

    Args:
        patterns: of videos.
        expressions: file of sentences; None takes the texts, for every video.
        out: folder of the run.
        tokens: counts those of a sentence.

    Raises:
        LayoutError: there is no video, or nothing to ask; the message says why.
        OSError: the file of sentences is not there, or may not be read.
    """
    listing = list_videos(patterns)
    if not listing.videos:
        raise LayoutError(f"No video was found. {_why(listing.problems)}")
    if expressions is None:
        lines = [" ".join(text.split()) for text in texts]
        if not all(lines):
            raise LayoutError("An empty --text was given. Say what to look for.")
        out.write(SENTENCES, "".join(f"{line}\n" for line in lines).encode())
        expressions = f"{out.uri.rstrip('/')}/{SENTENCES}"
    found = read_expressions(expressions, listing.videos, tokens)
    problems = [*listing.problems, *found.problems]
    markers = markers_of(out)
    asked = [
        AnnotationRequest(video, sentences, tuple(markers.get(video.id, ())))
        for video in listing.videos
        if (sentences := found.of[video.path])
    ]
    if not asked:
        raise LayoutError(f"Nothing is asked of the {len(listing.videos)} videos. {_why(found.problems)}")
    write_failures(out, LISTED, [Failure(one.video, one.stage, one.reason) for one in problems])
    return asked


def delete_stale_failures(out: Folder, asked: Sequence[AnnotationRequest]) -> None:
    """Removes notes on what could not be used of videos that are no longer asked about; and what killed runs left."""
    for folder in (DONE, WRITTEN):
        out.remove_unfinished(folder)
    known = {LISTED, *(name for one in asked for name in (one.video.id, f"{one.video.id}-overlay"))}
    for name in out.names(FAILED, ".json"):
        if name.removesuffix(".json") not in known:
            out.remove(f"{FAILED}/{name}")


def _why(problems: Sequence[BadItem]) -> str:
    said = "\n".join(f"  {one.video}: {one.reason}" for one in problems[:10])
    more = f"\n  … and {len(problems) - 10} more" if len(problems) > 10 else ""
    return f"What is wrong:\n{said}{more}" if problems else "The list of sentences is empty."
