"""How far an annotation is, how fast, and in the end what came of it: for a terminal, a log, and MLflow."""

import json
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from mlflow.entities import Metric

from pipelines.annotate.join import JoinResult
from pipelines.annotate.layout import DONE
from pipelines.annotate.plan import markers_of
from pipelines.annotate.run import Finished, News
from pipelines.annotate.video_state import VideoState
from pipelines.files import Folder
from pipelines.inference.quarantine import Failure

_READERS = 32
"""Markers that are read at once: there is one for every video or more, perhaps in object storage."""


class Progress:
    """Counts of what is done so far, and their text."""

    def __init__(self, videos: int) -> None:
        self.videos = self.new = self.failed = self.partial = 0
        self.frames = self.windows = self.sentences = self.absent = self.kept = self.died = 0
        self.hours = 0.0
        self._all = videos
        self._frames_seen = 0
        self._waited = self._busy = 0.0
        self._unmarked: dict[str, list[JoinResult]] = {}
        self._started = time.monotonic()

    def count(self, news: News | Finished | VideoState) -> None:
        """Adds a piece of news."""
        if isinstance(news, Finished):
            self.sentences += news.joined.sentences
            self.absent += news.joined.absent
            self._unmarked.setdefault(news.video, []).append(news.joined)
        elif isinstance(news, VideoState):
            self._count_video(news)
        elif news["news"] == "window":
            self._count_window(news)

    def _count_window(self, news: Mapping[str, Any]) -> None:
        self.windows += 1
        self._frames_seen += news["frames"]
        self._waited += news["waited"]
        self._busy += news["busy"]
        self.died += news["died"]

    def _count_video(self, standing: VideoState) -> None:
        self.videos += 1
        self.kept += standing.kept
        self.failed += bool(standing.failures)
        self.partial += standing.partial
        if all(one.stage == "list" for one in standing.failures):  # nothing is missing: its markers tell of it
            self._unmarked.pop(standing.video.id, None)
        if standing.answered:
            self.new += 1
            self.frames += standing.frames
            self.hours += standing.seconds / 3600

    @property
    def elapsed(self) -> float:
        """Seconds since the start."""
        return max(time.monotonic() - self._started, 1e-9)

    def __str__(self) -> str:
        waiting = self._waited / max(self._waited + self._busy, 1e-9)
        return (
            f"{self.videos}/{self._all} videos, {self.windows} windows, {self._frames_seen / self.elapsed:.1f} "
            f"frames/s, waiting for data {waiting:.0%}, {self.failed} videos with failures, {self.died} failed actors"
        )

    def summary(self) -> str:
        """What came of it, for people."""
        lines = [
            f"{self.new} videos annotated, {self.videos - self.new} had nothing left to do or failed; "
            f"{self.partial} are partial",
            f"{self.sentences} expressions answered, {self.absent} of them absent; {self.kept} were answered before",
            f"{self.frames} frames, {self.hours:.3g} hours of video in {self.elapsed / 3600:.3g} hours: "
            f"{self.rate:.3g} hours of video per hour",
            str(self),
        ]
        return "\n".join(lines)

    @property
    def rate(self) -> float:
        """Hours of video an hour."""
        return self.hours / (self.elapsed / 3600)

    def metrics(self, failures: Sequence[Failure], out: Folder) -> list[Metric]:
        """The summary for MLflow, failures by stage.

        The run there is that of the folder: counts are of all that it holds, whichever attempt made it; hours and speed
        are those of the last attempt that had something to do.
        """
        stages = Counter(one.stage for one in failures)
        held = self._held(out)
        parts = [part for video in held.values() for part in video]
        values = {
            "videos": len(held),
            "videos_partial": sum(any(part.note for part in video) for video in held.values()),
            "frames": sum(max(part.frames for part in video) for video in held.values()),
            "expressions": sum(part.sentences for part in parts),
            "expressions_absent": sum(part.absent for part in parts),
            "failures": len(failures),
            **{f"failures_{stage}": count for stage, count in stages.items()},
        }
        if self.new:
            values |= {"hours_of_video": self.hours, "hours_of_video_per_hour": self.rate}
        now = int(time.time() * 1000)
        return [Metric(name, float(value), now, 0) for name, value in values.items()]

    def _held(self, out: Folder) -> dict[str, list[JoinResult]]:
        """What came of the batches of each video: by their markers, and of those that lack something, as was told."""
        held = {video: list(parts) for video, parts in self._unmarked.items()}
        markers = [(video, name) for video, names in markers_of(out).items() for name in names]
        with ThreadPoolExecutor(_READERS) as readers:
            texts = readers.map(out.read, [f"{DONE}/{name}" for _, name in markers])
            for (video, _), text in zip(markers, texts, strict=True):
                held.setdefault(video, []).append(JoinResult(**json.loads(text)["joined"]))
        return held
