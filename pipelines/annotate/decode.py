"""The decoding stage of annotation: decodes the windows of a segment, and resizes them to what the model sees."""

import json
from collections.abc import Iterator
from dataclasses import dataclass

import msgspec
import pyarrow as pa

from pipelines.annotate.events import Decoded
from pipelines.annotate.layout import ExpressionGroup
from pipelines.annotate.settings import DATASET, Settings
from pipelines.errors import BadItem
from pipelines.files import Folder
from pipelines.inference.messages import SegmentHeader, decode, decode_segment, encode, encode_frames
from pipelines.inference.model_frames import ModelFrames
from pipelines.inference.protocols import InferenceProtocol
from pipelines.inference.quarantine import Failure
from pipelines.records import Record
from pipelines.video.decoder import Window
from pipelines.video.listing import Video
from pipelines.video.segments import DecodeUnit
from pipelines.video.worker_decoder import decoder
from sgmg.resize import resized_size


@dataclass(frozen=True, slots=True)
class SegmentContext:
    """Context of a segment that the decoding stage needs.

    Attributes:
        groups: expression groups that are left to answer.
        written: for each group, the numbers of the windows whose predictions are written.
        named_by_index: whether frames are named by their index in the video.
    """

    groups: tuple[ExpressionGroup, ...]
    written: tuple[tuple[int, ...], ...]
    named_by_index: bool


@dataclass(frozen=True, slots=True)
class WindowContext:
    """Context of a window that the writing stage needs.

    Attributes:
        video: the window's.
        window: its number.
        groups: expression groups that were asked of it.
        damage: what is missing in it; empty if nothing.
        start, stop: seconds in the video of its first and last frame.
    """

    video: Video
    window: int
    groups: tuple[ExpressionGroup, ...]
    damage: str
    start: float
    stop: float


@dataclass(frozen=True, slots=True)
class DecodeStage:
    """A stage that decodes segments into the windows that some expression group still needs.

    Attributes:
        out: folder of the run.
        settings: of the run.
        protocol: size of the frames.
        time_limit: seconds without a heartbeat of the decoder, after which a segment fails.
    """

    out: Folder
    settings: Settings
    protocol: InferenceProtocol
    time_limit: float

    def __call__(self, batch: pa.Table) -> Iterator[pa.Table]:
        """Yields a message for each window, then a `Decoded` for the segment. Other messages pass through unchanged."""
        for row in range(len(batch)):
            header, payload = decode(batch, row, SegmentHeader)
            if header is None:
                yield batch.slice(row, 1)
            else:
                context = msgspec.json.decode(header.context, type=SegmentContext)
                yield from self._decode(decode_segment(header, payload), context)

    def _decode(self, segment: DecodeUnit, context: SegmentContext) -> Iterator[pa.Table]:
        windows: list[int] = []
        emitted: list[int] = []
        failure: Failure | None = None
        try:
            with decoder(self.time_limit) as worker_decoder:
                for window in worker_decoder.windows(segment, self._size(segment)):
                    windows.append(window.number)
                    groups = tuple(
                        group
                        for group, written in zip(context.groups, context.written, strict=True)
                        if window.number not in written
                    )
                    if groups:
                        emitted.append(window.number)
                        yield self._encode(segment, window, groups, context.named_by_index)
        except BadItem as error:
            failure = _failure(segment, error.stage, error.reason)
        except (ValueError, MemoryError) as error:
            failure = _failure(segment, "decode", f"it cannot be decoded ({type(error).__name__}: {error})")
        if not failure:
            for group in context.groups:
                self.out.write(group.segment(segment.number), json.dumps(windows).encode())
        yield encode(Decoded(segment.video.id, segment.number, tuple(windows), tuple(emitted), failure))

    def _size(self, segment: DecodeUnit) -> tuple[int, int]:
        """Returns height and width of the frames that the model sees."""
        info, protocol = segment.info, self.protocol
        return resized_size(info.shown_height, info.shown_width, protocol.short_side, protocol.long_side)

    def _encode(
        self, segment: DecodeUnit, window: Window, groups: tuple[ExpressionGroup, ...], named_by_index: bool
    ) -> pa.Table:
        height, width = segment.info.shown_height, segment.info.shown_width
        names = tuple(f"{index:05d}" for index in window.indices) if named_by_index else window.names
        timestamps = tuple(window.timestamps.tolist())
        record = Record(
            dataset=DATASET,
            split="",
            video=segment.video.id,
            width=width,
            height=height,
            frame_names=names,
            frames=(b"",) * len(names),
            objects=(),
            expressions=tuple(expression for group in groups for expression in group.expressions),
            source=segment.video.path,
            source_fingerprint=segment.info.fingerprint,
            original_width=width,
            original_height=height,
            fps=self.settings.fps or segment.info.fps,
            timestamps=timestamps,
        )
        frames = ModelFrames(record, tuple(range(len(names))), window.frames)
        context = WindowContext(segment.video, window.number, groups, window.note, timestamps[0], timestamps[-1])
        return encode_frames(f"{segment.video.id} {window.number}", [frames], context=context)


def _failure(segment: DecodeUnit, stage: str, reason: str) -> Failure:
    """Returns the failure of a segment; its reason names the part of the video."""
    return Failure(segment.video.path, stage, f"{segment.times[0]:.2f} to {segment.times[-1]:.2f} s: {reason}")
