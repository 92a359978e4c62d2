"""The decoding stage of annotation: decodes the windows of a shard, and resizes them to what the model sees."""

from collections.abc import Iterator
from dataclasses import dataclass, field

import msgspec
import numpy as np
import pyarrow as pa

from pipelines.annotate.causal import asked_after, with_known_frames
from pipelines.annotate.events import News, StretchDone
from pipelines.annotate.layout import ExpressionGroup
from pipelines.annotate.settings import DATASET, Settings
from pipelines.errors import BadItem, Failure
from pipelines.inference.messages import FramesInfo, UnitsHeader, decode, decode_units, encode_pixels
from pipelines.inference.protocols import InferenceProtocol
from pipelines.records import Expression, Record
from pipelines.video.decoder import Window
from pipelines.video.listing import Video
from pipelines.video.segments import DecodeUnit
from pipelines.video.worker_decoder import decoder
from sgmg.resize import resized_size


@dataclass(frozen=True, slots=True)
class ShardContext:
    """Context of a shard: its name, which no other shard of the run has, and news for the driver."""

    name: str
    news: News


@dataclass(frozen=True, slots=True)
class UnitContext:
    """Context of a unit that the decoding stage needs.

    Attributes:
        groups: expression groups of the video.
        named_by_index: whether frames are named by their index in the video.
        seconds: length of the video.
        fps: mean rate of the frames that are chosen of the whole video; None if their times are not known.
        stretch: windows of a stretch; None if the unit is a whole short video with one group.
        todo: for each group, the numbers of the stretches of this unit that are left to predict.
    """

    groups: tuple[ExpressionGroup, ...]
    named_by_index: bool
    seconds: float
    fps: float | None = None
    stretch: int | None = None
    todo: tuple[tuple[int, ...], ...] = ()


@dataclass(frozen=True, slots=True)
class WindowContext:
    """Context of a window that the writing stage needs.

    Attributes:
        number: of the window in its video.
        damage: what is missing in it; empty if nothing.
        remark: what was decided in reading it; empty if nothing.
        start, stop: seconds in the video of its first and last frame.
    """

    number: int
    damage: str
    remark: str
    start: float
    stop: float


@dataclass(frozen=True, slots=True)
class PartContext:
    """Context of the windows of one video and group that the writing stage needs.

    Attributes:
        video: which one.
        fingerprint: of its content.
        seconds: length of the video.
        group: expressions that are asked of it.
        windows: those that could be decoded.
        stretch: number of the stretch; None if the windows are the whole video.
        failures: why windows are missing.
    """

    video: Video
    fingerprint: str
    seconds: float
    group: ExpressionGroup
    windows: tuple[WindowContext, ...]
    stretch: int | None
    failures: tuple[Failure, ...]


@dataclass(frozen=True, slots=True)
class PartsContext:
    """Context of a message of frames: the shard's name, what the frames are of, and news for the driver."""

    name: str
    parts: tuple[PartContext, ...]
    news: News


@dataclass(frozen=True, slots=True)
class DecodeStage:
    """A stage that decodes shards into the windows that some expression group still needs.

    Attributes:
        settings: of the run.
        protocol: size of the frames.
        time_limit: seconds without a heartbeat of the decoder, after which a video or stretch fails.
    """

    settings: Settings
    protocol: InferenceProtocol
    time_limit: float

    def __call__(self, batch: pa.Table) -> Iterator[pa.Table]:
        """Yields a message for each shard of short videos, and one for each stretch and group of a long video."""
        for row in range(len(batch)):
            header, payload = decode(batch, row, UnitsHeader)
            assert header is not None
            shard = msgspec.json.decode(header.context, type=ShardContext)
            found = decode_units(header, payload)
            units = [(unit, msgspec.json.decode(context, type=UnitContext)) for unit, context in found]
            if units and units[0][1].stretch is not None:
                (long,) = units
                yield from self._decode_long(*long, shard)
            else:
                yield self._decode_short(units, shard)

    def _decode_short(self, units: list[tuple[DecodeUnit, UnitContext]], shard: ShardContext) -> pa.Table:
        """Returns the frames of all windows of some short videos."""
        frames, parts = _Frames(), []
        for unit, context in units:
            windows: list[WindowContext] = []
            failures: list[Failure] = []
            (group,) = context.groups
            try:
                with decoder(self.time_limit) as worker_decoder:
                    found = worker_decoder.windows(unit, self._size(unit), self._shots)
                    for window, known in with_known_frames(found, unit.indices[: unit.shared]):
                        frames.add(self._info(unit, window, known, group, context), window.frames)
                        windows.append(_context(window))
            except BadItem as error:
                failures.append(_failure(unit, error.stage, error.reason))
            except (ValueError, MemoryError) as error:
                failures.append(_failure(unit, "decode", f"it cannot be decoded ({type(error).__name__}: {error})"))
            parts.append(_part(unit, context, group, windows, None, failures))
        return frames.message(shard.name, parts, shard.news)

    def _decode_long(self, unit: DecodeUnit, context: UnitContext, shard: ShardContext) -> Iterator[pa.Table]:
        """Yields the frames of a stretch, once for each group that needs it; holds one stretch in memory."""
        assert context.stretch
        news = shard.news
        left = {number for numbers in context.todo for number in numbers}
        held: list[tuple[Window, int]] = []
        number = unit.first_window // context.stretch
        failure: Failure | None = None
        try:
            with decoder(self.time_limit) as worker_decoder:
                found = worker_decoder.windows(unit, self._size(unit))
                for window, known in with_known_frames(found, unit.indices[: unit.shared]):
                    if held and window.number // context.stretch != number:
                        for message in self._stretch(unit, context, number, held, shard.name, news):
                            yield message
                            news = News()
                        left.discard(number)
                        held = []
                    number = window.number // context.stretch
                    held.append((window, known))
        except BadItem as error:
            failure = _failure(unit, error.stage, error.reason)
        except (ValueError, MemoryError) as error:
            failure = _failure(unit, "decode", f"it cannot be decoded ({type(error).__name__}: {error})")
        if not failure:
            for message in self._stretch(unit, context, number, held, shard.name, news):
                yield message
                news = News()
            left.discard(number)
        # Without a failure, stretches of which no frame can be decoded are left: they count as predicted.
        failures = (failure,) if failure else ()
        lost = tuple(
            StretchDone(unit.video.id, group.name, missing, failures)
            for group, numbers in zip(context.groups, context.todo, strict=True)
            for missing in numbers
            if missing in left
        )
        if lost or news != News():
            yield _Frames().message(f"{shard.name}-rest", [], News(news.seen, news.long, lost))

    def _stretch(
        self,
        unit: DecodeUnit,
        context: UnitContext,
        number: int,
        windows: list[tuple[Window, int]],
        name: str,
        news: News,
    ) -> Iterator[pa.Table]:
        """Yields the frames of a stretch for each group; its windows come with the number of their known frames."""
        for group, todo in zip(context.groups, context.todo, strict=True):
            if number not in todo or not windows:
                continue
            frames = _Frames()
            for window, known in windows:
                frames.add(self._info(unit, window, known, group, context), window.frames)
            part = _part(unit, context, group, [_context(window) for window, _ in windows], number, [])
            yield frames.message(f"{name}-{group.name}-{number}", [part], news)
            news = News()

    @property
    def _shots(self) -> tuple[int, int] | None:
        """Length and overlap of the windows of a short video, if its cuts have to be found."""
        return (self.settings.window, self.settings.overlap) if self.settings.shots else None

    def _size(self, unit: DecodeUnit) -> tuple[int, int]:
        """Returns height and width of the frames that the model sees."""
        info, protocol = unit.info, self.protocol
        return resized_size(info.shown_height, info.shown_width, protocol.short_side, protocol.long_side)

    def _info(
        self, unit: DecodeUnit, window: Window, known: int, group: ExpressionGroup, context: UnitContext
    ) -> FramesInfo:
        """Returns a window without its pixels; in causal mode its `known` first frames are context only."""
        t, h, w, _ = window.frames.shape
        causal = self.settings.causal
        expressions = asked_after(group.expressions, known, t) if causal else group.expressions
        record = window_record(unit, window, expressions, context.named_by_index, context.fps)
        names = record.frame_names
        one_of_many = causal or (self.settings.follows and (context.stretch is not None or len(unit.windows) > 1))
        return FramesInfo(record, tuple(range(len(names))), (t, h, w, 3), one_of_many)


def window_record(
    unit: DecodeUnit, window: Window, expressions: tuple[Expression, ...], named_by_index: bool, fps: float | None
) -> Record:
    """Returns the record of a window, without pixels.

    Args:
        unit: of the video.
        window: of the unit.
        expressions: that are asked of it.
        named_by_index: whether frames are named by their index in the video.
        fps: mean rate of the frames that are chosen of the whole video; None if their times are not known.
    """
    height, width = unit.info.shown_height, unit.info.shown_width
    names = tuple(f"{index:05d}" for index in window.indices) if named_by_index else window.names
    return Record(
        dataset=DATASET,
        split="",
        video=unit.video.id,
        width=width,
        height=height,
        frame_names=names,
        frames=(b"",) * len(names),
        objects=(),
        expressions=expressions,
        source=unit.video.path,
        source_fingerprint=unit.info.fingerprint,
        original_width=width,
        original_height=height,
        fps=fps,
        timestamps=tuple(window.timestamps.tolist()),
    )


@dataclass(slots=True)
class _Frames:
    """The frames of a message."""

    infos: list[FramesInfo] = field(default_factory=list)
    pixels: list[np.ndarray] = field(default_factory=list)

    def add(self, info: FramesInfo, pixels: np.ndarray) -> None:
        """Adds a window."""
        self.infos.append(info)
        self.pixels.append(pixels)

    def message(self, name: str, parts: list[PartContext], news: News) -> pa.Table:
        """Returns the message for the predictor. The pixels of a single window are not copied."""
        pixels = self.pixels[0] if len(self.pixels) == 1 else b"".join(one.data for one in self.pixels)
        return encode_pixels(name, self.infos, pixels, context=PartsContext(name, tuple(parts), news.with_retries()))


def _part(
    unit: DecodeUnit,
    context: UnitContext,
    group: ExpressionGroup,
    windows: list[WindowContext],
    stretch: int | None,
    failures: list[Failure],
) -> PartContext:
    fingerprint = unit.info.fingerprint
    return PartContext(unit.video, fingerprint, context.seconds, group, tuple(windows), stretch, tuple(failures))


def _context(window: Window) -> WindowContext:
    start, stop = float(window.timestamps[0]), float(window.timestamps[-1])
    return WindowContext(window.number, window.note, window.remark, start, stop)


def _failure(unit: DecodeUnit, stage: str, reason: str) -> Failure:
    """Returns the failure of a unit; its reason names the part of the video."""
    return Failure(unit.video.path, stage, f"{unit.times[0]:.2f} to {unit.times[-1]:.2f} s: {reason}")
