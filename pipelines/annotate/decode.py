"""The second stage of annotation: decodes the windows of a segment, and resizes them to what the model sees."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from pipelines.annotate.layout import ExpressionGroup
from pipelines.annotate.settings import DATASET, Settings
from pipelines.errors import BadItem
from pipelines.files import Folder
from pipelines.inference.messages import NEWS, SEGMENT, open_parcel, parcel, segment_of, window_parcel
from pipelines.inference.protocols import InferenceProtocol
from pipelines.records import Expression, Record
from pipelines.video.decoder import Window
from pipelines.video.segments import DecodeUnit
from pipelines.video.worker_decoder import decoder
from sgmg.preprocess import resized_size


@dataclass(frozen=True, slots=True)
class DecodeStage:
    """Segments → windows that some batch still lacks, and news of the segment behind them; other news pass through."""

    out: Folder
    settings: Settings
    protocol: InferenceProtocol
    time_limit: float

    def __call__(self, batch: pa.Table) -> Iterator[pa.Table]:
        """One table of one row a window or piece of news."""
        for row in range(len(batch)):
            kind, about, data = open_parcel(batch, row)
            if kind == SEGMENT:
                yield from self._decoded(about, segment_of(about, data))
            else:
                yield parcel(kind, about, data)

    def _decoded(self, about: Mapping[str, Any], segment: DecodeUnit) -> Iterator[pa.Table]:
        batches = [ExpressionGroup.from_plain(plain) for plain in about["batches"]]
        seen: list[int] = []
        asked: list[int] = []
        failure: dict[str, str] = {}
        try:
            with decoder(self.time_limit) as one:
                for window in one.windows(segment, self._size(segment)):
                    seen.append(window.number)
                    lacking = [
                        batch.to_plain()
                        for batch, there in zip(batches, about["there"], strict=True)
                        if window.number not in there
                    ]
                    if lacking:
                        asked.append(window.number)
                        yield self._window(segment, window, lacking, about["numbered"])
        except BadItem as error:
            failure = {"stage": error.stage, "reason": _where(segment, error.reason)}
        except (ValueError, MemoryError) as error:
            reason = f"it cannot be decoded ({type(error).__name__}: {error})"
            failure = {"stage": "decode", "reason": _where(segment, reason)}
        if not failure:
            for batch in batches:
                self.out.write(batch.segment(segment.number), json.dumps(seen).encode())
        news = {"news": "decoded", "video": segment.video.id, "segment": segment.number, "failure": failure}
        yield parcel(NEWS, {**news, "windows": seen, "asked": asked})

    def _size(self, segment: DecodeUnit) -> tuple[int, int]:
        """Height and width of what the model sees."""
        info, protocol = segment.info, self.protocol
        return resized_size(info.shown_height, info.shown_width, protocol.short_side, protocol.long_side)

    def _window(self, segment: DecodeUnit, window: Window, batches: list[dict[str, Any]], numbered: bool) -> pa.Table:
        height, width = segment.info.shown_height, segment.info.shown_width
        names = tuple(f"{index:05d}" for index in window.indices) if numbered else window.names
        record = Record(
            dataset=DATASET,
            split="",
            video=segment.video.id,
            width=width,
            height=height,
            frame_names=names,
            frames=(b"",) * len(names),
            objects=(),
            expressions=_expressions(batches),
            source=segment.video.path,
            source_fingerprint=segment.info.fingerprint,
            original_width=width,
            original_height=height,
            segment=window.number,
            fps=self.settings.fps or segment.info.fps,
            timestamps=tuple(window.timestamps.tolist()),
        )
        about = {"batches": batches, "damage": window.note}
        return window_parcel(record, window.frames, about)


def _expressions(batches: list[dict[str, Any]]) -> tuple[Expression, ...]:
    return tuple(Expression(*pair) for plain in batches for pair in plain["sentences"])


def _where(segment: DecodeUnit, reason: str) -> str:
    """What is wrong with a segment, and which part of the video that is."""
    return f"{segment.times[0]:.2f} to {segment.times[-1]:.2f} s: {reason}"
