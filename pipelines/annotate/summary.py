"""The progress of an annotation, its speed, and a summary at the end: for a terminal, a log, and MLflow."""

import time
from collections import Counter, defaultdict
from collections.abc import Sequence

from pipelines.annotate.events import ShardDone
from pipelines.annotate.run import Joined
from pipelines.errors import Failure
from pipelines.ledger import Entry, Ledger


class Progress:
    """Counts of what is done so far, and their text.

    Args:
        videos: how many have to be looked at.
        kept: expressions of other videos, which are answered already.
    """

    def __init__(self, videos: int, kept: int = 0) -> None:
        self.videos = self.new = self.failed = self.partial = 0
        self.frames = self.windows = self.sentences = self.absent = self.crashes = 0
        self.retries = 0
        self.kept = kept
        self.hours = 0.0
        self._all = videos
        self._frames_seen = 0
        self._waited = self._busy = 0.0
        self._groups: Counter[str] = Counter()  # of long videos, still to be joined
        self._long: defaultdict[str, list[Entry]] = defaultdict(list)
        self._started = time.monotonic()

    def count(self, event: ShardDone | Joined) -> None:
        """Adds what a shard held, or a group of a long video that is joined."""
        match event:
            case ShardDone():
                self._count_shard(event)
            case Joined():
                video = event.entry.video
                self._long[video].append(event.entry)
                if len(self._long[video]) == self._groups[video]:
                    self._count_video(self._long.pop(video))

    def _count_shard(self, event: ShardDone) -> None:
        self.windows += event.windows
        self._frames_seen += event.frames
        self._waited += event.waited
        self._busy += event.busy
        self.crashes += event.crashes
        self.retries += event.news.retries
        for long in event.news.long:
            self._groups[long.seen.video] = len(long.groups)
            self.kept += long.seen.kept
        entries = {one.video: one for one in event.entries}
        for seen in event.news.seen:
            self.kept += seen.kept
            self._count_video([entries[seen.video]] if seen.video in entries else [])

    def _count_video(self, entries: Sequence[Entry]) -> None:
        """Adds a video that has come to its end; it has no entry if nothing was left to do."""
        self.videos += 1
        self.failed += any(one.failures for one in entries)
        rows = [one for one in entries if one.groups]
        self.partial += any(one.damage for one in rows)
        if rows:
            self.new += 1
            self.frames += max(one.frames for one in rows)
            self.hours += rows[0].seconds / 3600
            self.sentences += sum(len(one.sentences) for one in rows)
            self.absent += sum(one.absent for one in rows)

    @property
    def elapsed(self) -> float:
        """Seconds since the start, above 0."""
        return max(time.monotonic() - self._started, 1e-9)

    def __str__(self) -> str:
        waiting = self._waited / max(self._waited + self._busy, 1e-9)
        return (
            f"{self.videos}/{self._all} videos, {self.sentences} sentences, {self.windows} windows, "
            f"{self._frames_seen / self.elapsed:.1f} frames/s, waiting for data {waiting:.0%}, "
            f"{self.failed} videos with failures, {self.crashes} failed actors"
        )

    def summary(self) -> str:
        """Returns the results in a few lines, for people."""
        lines = [
            f"{self.new} videos annotated, {self.videos - self.new} had nothing left to do or failed; "
            f"{self.partial} are partial",
            f"{self.sentences} expressions answered, {self.absent} of them absent; {self.kept} were answered before",
            f"{self.frames} frames, {self.hours:.3g} hours of video in {self.elapsed / 3600:.3g} hours: "
            f"{self.rate:.3g} hours of video per hour",
            str(self),
        ]
        if self.retries:
            lines.append(f"{self.retries} requests were repeated because the storage was busy")
        return "\n".join(lines)

    @property
    def rate(self) -> float:
        """Hours of video per hour."""
        return self.hours / (self.elapsed / 3600)

    def figures(self, failures: Sequence[Failure], ledger: Ledger) -> dict[str, float]:
        """Returns the summary for MLflow, failures by stage.

        The run in MLflow stands for the folder: counts are of everything in it, whichever attempt wrote that; hours and
        speed are those of the last attempt that had something to do.

        Args:
            failures: everything in the quarantine.
            ledger: of the folder.
        """
        stages = Counter(one.stage for one in failures)
        videos = [rows for entries in ledger.by_video.values() if (rows := [one for one in entries if one.groups])]
        parts = [part for video in videos for part in video]
        values = {
            "videos": len(videos),
            "videos_partial": sum(any(part.damage for part in video) for video in videos),
            "frames": sum(max(part.frames for part in video) for video in videos),
            "expressions": sum(len(part.sentences) for part in parts),
            "expressions_absent": sum(part.absent for part in parts),
            "failures": len(failures),
            **{f"failures_{stage}": count for stage, count in stages.items()},
        }
        if self.retries:
            values["requests_repeated"] = self.retries
        if self.new:
            values |= {"hours_of_video": self.hours, "hours_of_video_per_hour": self.rate}
        return {name: float(value) for name, value in values.items()}
