"""The requests of a run: every listed video with its expressions."""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

from pipelines.annotate.expressions_file import read_expressions
from pipelines.annotate.layout import WRITTEN
from pipelines.annotate.plan import AnnotationRequest
from pipelines.errors import BadItem, Failure, LayoutError
from pipelines.files import Folder
from pipelines.inference.quarantine import FAILED, write_failures
from pipelines.ledger import Ledger
from pipelines.records import Expression
from pipelines.video.listing import list_videos

LISTED, FORMATS = "list", "formats"
"""Names of the files in failed/ for what could not be listed, and not be written; no video id equals them."""
SENTENCES = "sentences.txt"
"""File in the folder of the run that keeps the expressions of the command line."""


@dataclass(frozen=True, slots=True)
class Requests:
    """The work of a run.

    Attributes:
        left: videos that have to be looked at, and their expressions.
        sentences: how many expressions each video has or had, by its path.
        videos: ids of all videos that have expressions.
        kept: expressions of videos that have not changed, which are answered already.
        notes: what was found in folders but not taken.
    """

    left: tuple[AnnotationRequest, ...]
    sentences: dict[str, int]
    videos: frozenset[str]
    kept: int
    notes: tuple[str, ...] = ()


def collect_requests(
    patterns: Sequence[str],
    expressions: str | None,
    texts: Sequence[str],
    out: Folder,
    ledger: Ledger,
    tokens: Callable[[str], int],
    verify: bool = False,
    only: Collection[tuple[str, str]] | None = None,
) -> Requests:
    """Returns the videos that have expressions and may not be answered; writes what could not be listed to failed/.

    Args:
        patterns: which videos, see `list_videos`.
        expressions: file of expressions, see `read_expressions`; None takes the texts, for every video.
        texts: expressions of the command line.
        out: folder of the run.
        ledger: what is answered.
        tokens: counts the tokens of an expression.
        verify: whether to look at videos again although their size and time have not changed.
        only: video and expression ids of what is asked; None asks everything.

    Raises:
        LayoutError: no video was found, or no video has an expression; the message says why.
        OSError: the file of expressions does not exist, or cannot be read.
    """
    listing = list_videos(patterns)
    if not listing.videos:
        notes = "".join(f"{note}. " for note in listing.notes)
        raise LayoutError(f"No video was found. {notes}{_why(listing.problems)}")
    if expressions is None:
        lines = [" ".join(text.split()) for text in texts]
        if not all(lines):
            raise LayoutError("An empty --text was given. Say what to look for.")
        out.write(SENTENCES, "".join(f"{line}\n" for line in lines).encode())
        expressions = out.uri_of(SENTENCES)
    table = read_expressions(expressions, listing.videos, tokens)
    problems = [*listing.problems, *table.problems]
    left: list[AnnotationRequest] = []
    videos: set[str] = set()
    sentences: dict[str, int] = {}
    kept = 0
    for video in listing.videos:
        name = video.id
        asked = table.by_video[video.path]
        if only is not None:
            asked = tuple(one for one in asked if (name, one.id) in only)
        if not asked:
            continue
        videos.add(name)
        before = {id for entry in ledger.by_video.get(name, ()) for id, _ in entry.sentences}
        sentences[video.path] = len(before.union(one.id for one in asked))
        # Another version of the file may have other texts: everything is made again, so there is no conflict.
        answered = ledger.answered(name, stamp=video.stamp) if video.stamp else {}
        conflicts = [one for one in asked if answered.get(one.id, one.text) != one.text]
        problems += [BadItem(video.path, "list", _conflict(one, answered[one.id])) for one in conflicts]
        if all(one.id in answered for one in asked) and not verify:
            kept += len(asked) - len(conflicts)
        else:
            left.append(AnnotationRequest(video, asked, _answered(ledger, name)))
    if not videos:
        which = "an expression" if only is None else "an expression with such a verdict"
        raise LayoutError(f"None of the {len(listing.videos)} videos has {which}. {_why(table.problems)}")
    write_failures(out, LISTED, [Failure(one.video, one.stage, one.reason) for one in problems])
    return Requests(tuple(left), sentences, frozenset(videos), kept, tuple(listing.notes))


def _answered(ledger: Ledger, video: str) -> dict[str, tuple[str, ...]]:
    """Returns the ids of answered expressions by the fingerprint of the video that they are answered for."""
    fingerprints = {one.fingerprint for one in ledger.by_video.get(video, ()) if one.final}
    return {fingerprint: tuple(ledger.answered(video, fingerprint)) for fingerprint in sorted(fingerprints)}


def _conflict(expression: Expression, before: str) -> str:
    return (
        f"the expression {expression.id!r} was {before!r} and is now {expression.text!r}. Give it another id, or "
        f"choose another --out."
    )


def delete_stale_failures(out: Folder, videos: Collection[str]) -> None:
    """Deletes failure notes of videos that are no longer requested, and temporary files of killed runs."""
    out.remove_unfinished(WRITTEN)
    known = {LISTED, FORMATS, *(f"{video}-{name}" for video in videos for name in ("frames", "overlay"))}
    for name in out.names(FAILED, ".json"):
        if name.removesuffix(".json") not in known:
            out.remove(f"{FAILED}/{name}")


def _why(problems: Sequence[BadItem]) -> str:
    lines = "\n".join(f"  {one.video}: {one.reason}" for one in problems[:10])
    more = f"\n  … and {len(problems) - 10} more" if len(problems) > 10 else ""
    return f"Problems:\n{lines}{more}" if problems else "The list of expressions is empty."
