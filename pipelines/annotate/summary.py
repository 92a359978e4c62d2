"""The progress of an annotation, its speed, and a summary at the end: for a terminal, a log, and MLflow."""

import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from pipelines.annotate.events import Event, WindowDone
from pipelines.annotate.join import JoinResult, read_marker
from pipelines.annotate.layout import DONE, markers_of
from pipelines.annotate.run import Finished
from pipelines.annotate.video_state import VideoState
from pipelines.files import Folder
from pipelines.inference.quarantine import Failure
from pipelines.tracking.client import Metric

_READERS = 32
"""Markers that are read at the same time: there is at least one for every video, perhaps in object storage."""


class Progress:
    """Counts of what is done so far, and their text."""

    def __init__(self, videos: int) -> None:
        self.videos = self.new = self.failed = self.partial = 0
        self.frames = self.windows = self.sentences = self.absent = self.kept = self.crashes = 0
        self.hours = 0.0
        self._all = videos
        self._frames_seen = 0
        self._waited = self._busy = 0.0
        self._unmarked: dict[str, list[JoinResult]] = {}
        self._started = time.monotonic()

    def count(self, event: Event | Finished | VideoState) -> None:
        """Adds an event, or the final state of a video."""
        match event:
            case Finished():
                self.sentences += event.joined.sentences
                self.absent += event.joined.absent
                self._unmarked.setdefault(event.video, []).append(event.joined)
            case VideoState():
                self._count_video(event)
            case WindowDone():
                self._count_window(event)
            case _:
                pass  # planned and decoded segments are not counted

    def _count_window(self, event: WindowDone) -> None:
        self.windows += 1
        self._frames_seen += event.frames
        self._waited += event.waited
        self._busy += event.busy
        self.crashes += event.crashes

    def _count_video(self, state: VideoState) -> None:
        self.videos += 1
        self.kept += state.kept
        self.failed += bool(state.failures)
        self.partial += state.partial
        if all(one.stage == "list" for one in state.failures):  # nothing is missing, so it has markers
            self._unmarked.pop(state.video.id, None)
        if state.answered:
            self.new += 1
            self.frames += state.frames
            self.hours += state.seconds / 3600

    @property
    def elapsed(self) -> float:
        """Seconds since the start, above 0."""
        return max(time.monotonic() - self._started, 1e-9)

    def __str__(self) -> str:
        waiting = self._waited / max(self._waited + self._busy, 1e-9)
        return (
            f"{self.videos}/{self._all} videos, {self.windows} windows, "
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
        return "\n".join(lines)

    @property
    def rate(self) -> float:
        """Hours of video per hour."""
        return self.hours / (self.elapsed / 3600)

    def metrics(self, failures: Sequence[Failure], out: Folder) -> list[Metric]:
        """Returns the summary for MLflow, failures by stage.

        The run in MLflow stands for the folder: counts are of everything in it, whichever attempt wrote that; hours and
        speed are those of the last attempt that had something to do.

        Args:
            failures: everything in the quarantine.
            out: folder of the run.
        """
        stages = Counter(one.stage for one in failures)
        results = self._results(out)
        parts = [part for video in results.values() for part in video]
        values = {
            "videos": len(results),
            "videos_partial": sum(any(part.note for part in video) for video in results.values()),
            "frames": sum(max(part.frames for part in video) for video in results.values()),
            "expressions": sum(part.sentences for part in parts),
            "expressions_absent": sum(part.absent for part in parts),
            "failures": len(failures),
            **{f"failures_{stage}": count for stage, count in stages.items()},
        }
        if self.new:
            values |= {"hours_of_video": self.hours, "hours_of_video_per_hour": self.rate}
        now = int(time.time() * 1000)
        return [Metric(name, float(value), now, 0) for name, value in values.items()]

    def _results(self, out: Folder) -> dict[str, list[JoinResult]]:
        """Returns the result of every group of each video: from its marker, or, if it is partial, from its event."""
        results = {video: list(parts) for video, parts in self._unmarked.items()}
        markers = [(video, name) for video, names in markers_of(out).items() for name in names]
        with ThreadPoolExecutor(_READERS) as readers:
            stored = readers.map(lambda marker: read_marker(out, f"{DONE}/{marker[1]}"), markers)
            for (video, _), marker in zip(markers, stored, strict=True):
                results.setdefault(video, []).append(marker.joined)
        return results
