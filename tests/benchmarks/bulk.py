"""Measures what bulk annotation costs beside the model. Prints `name value` lines; asserts nothing about time.

Each measurement runs in a process of its own. The predictor is a stub that costs nothing: its masks are there, packed
into bits in memory, as they come from a GPU.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import msgspec
import numpy as np
import psutil
import pyarrow as pa
import pyarrow.parquet as pq

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "support"))
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "parity"))

from annotate_data import moving, write_video
from pipelines.annotate.decode import DecodeStage, PartContext, PartsContext, ShardContext, UnitContext, WindowContext
from pipelines.annotate.events import News, ShardDone, VideoSeen
from pipelines.annotate.join import join_group
from pipelines.annotate.layout import ExpressionGroup, expression_groups
from pipelines.annotate.plan import AnnotationRequest, Chunk, PlanStage
from pipelines.annotate.run import Stream, annotate_videos
from pipelines.annotate.settings import SHARD_VIDEOS, Settings
from pipelines.annotate.tracks import JoinSettings
from pipelines.annotate.window_rows import WINDOW_SCHEMA, window_row, windows_table
from pipelines.annotate.write import WriteStage
from pipelines.files import Folder
from pipelines.inference.messages import FramesInfo, decode_items, encode, encode_pixels, encode_units
from pipelines.inference.model_frames import ModelFrames
from pipelines.inference.stream import Resources, Stages
from pipelines.ledger import Entry, Ledger, read_ledger
from pipelines.records import Expression, Record
from pipelines.video.listing import Video, list_videos
from pipelines.video.probe import Timeline, VideoInfo
from pipelines.video.segments import segments
from pipelines.video.worker_decoder import decoder
from s3_server import CREDENTIALS, S3Server
from sgmg.config import SgMgConfig
from sgmg.resize import resized_size
from stub_predictor import Stub, StubSpec

ROOT = Path(__file__).resolve().parents[2]
SHARED = [str(ROOT / "tests" / name) for name in ("support", "parity")]
HD, SD = (1080, 1920), (480, 854)
SETTINGS = Settings()
PROTOCOL = SETTINGS.protocol(360)

Values = Iterator[tuple[str, float]]


STUB = StubSpec(Path, "", "", PROTOCOL, "float32", SgMgConfig.preset("tiny"), 1, False)


def driver_ms_per_video() -> Values:
    """Processor time of the driver for each of 10 000 videos, where no stage does anything."""
    import ray

    videos = 10_000
    ray.init(address="local", num_cpus=4, include_dashboard=False, log_to_driver=False)
    sentence = (Expression("1", "the dog"),)
    requests = [AnnotationRequest(Video(f"/corpus/{i}.mp4", stamp="1-1"), sentence) for i in range(videos)]
    with tempfile.TemporaryDirectory() as folder:
        stream = EmptyStream(Folder(folder), STUB, SETTINGS, Resources((1, 1), 0, 1, 0.5), "f", 600)
        ledger = Ledger("f")
        began = time.process_time()
        events = sum(1 for _ in annotate_videos(requests, stream, ledger))
        spent = time.process_time() - began
    assert len(ledger.by_video) == videos
    ray.shutdown()
    yield "driver_ms_per_video", 1000 * spent / videos
    yield "driver_ms_per_shard", 1000 * spent / events


@dataclass(frozen=True)
class EmptyStream(Stream):
    """A stream whose stages pass on what a run would tell, and do nothing."""

    @property
    def stages(self) -> Stages:
        """Shards without frames."""
        return Stages(plan=_empty_plan, decode=_empty_decode, predict=self.spec, write=_empty_write)


class _Empty:
    """A stage of a function."""

    def __init__(self, stage: Callable[[pa.Table], Iterator[pa.Table]]) -> None:
        self._stage = stage

    def __call__(self, batch: pa.Table) -> Iterator[pa.Table]:
        return self._stage(batch)


def _shards(batch: pa.Table) -> Iterator[pa.Table]:
    for chunk in decode_items(batch, Chunk):
        for first in range(0, len(chunk.requests), SHARD_VIDEOS):
            videos = [request.video for request in chunk.requests[first : first + SHARD_VIDEOS]]
            seen = tuple(VideoSeen(video.id, video.path, video.stamp, "file") for video in videos)
            entries = [Entry(one.video, one.path, one.stamp, "file", (("1", "the dog"),), groups=1) for one in seen]
            name = f"{chunk.number}-{first}.parquet"
            yield encode(ShardDone(News(seen), name, 1000, tuple(entries), windows=len(seen), frames=30 * len(seen)))


def _passed(batch: pa.Table) -> Iterator[pa.Table]:
    for row in range(len(batch)):
        yield batch.slice(row, 1)


_empty_plan, _empty_decode, _empty_write = _Empty(_shards), _Empty(_passed), _Empty(_passed)


def requests_short_video() -> Values:
    """Requests to an object store for one short video, from listing to result; those of the run itself are left out."""
    from prepared_data import tiny_checkpoint

    counts = []
    with S3Server.start() as server, tempfile.TemporaryDirectory() as folder:
        checkpoint = tiny_checkpoint(Path(folder) / "checkpoint")
        for videos in (2, 10):
            corpus = Folder(server.uri(f"corpus-{videos}"))
            for number in range(videos):
                corpus.write(f"{number}.mp4", write_video(Path(folder) / "video.mp4", moving(number, 6)).read_bytes())
            server.requests()
            _annotate(corpus.uri, checkpoint, server.uri(f"out-{videos}"))
            counts.append(len(server.requests()))
    yield "requests_short_video", (counts[1] - counts[0]) / 8
    yield "requests_of_a_run", counts[0] - (counts[1] - counts[0]) / 4


def _annotate(videos: str, checkpoint: Path, out: str) -> None:
    flags = ["--videos", videos, "--text", "the ball", "--checkpoint", str(checkpoint), "--out", out]
    flags += ["--short-side", "130", "--min-score", "0", "--actors", "1:1", "--no-track", "--num-cpus", "4"]
    ran = subprocess.run([sys.executable, str(ROOT / "jobs" / "annotate.py"), *flags], capture_output=True, check=False)
    if ran.returncode:
        sys.exit(ran.stderr.decode()[-2000:])


def resume_100k_s() -> Values:
    """Seconds of a run over 100 000 finished videos in a store that takes 50 ms for each request."""
    from prepared_data import tiny_checkpoint

    videos = 100_000
    with S3Server.start() as server, tempfile.TemporaryDirectory() as folder:
        checkpoint = tiny_checkpoint(Path(folder) / "checkpoint")
        corpus, out = Folder(server.uri("corpus")), Folder(server.uri("out"))
        corpus.write("a.mp4", write_video(Path(folder) / "video.mp4", moving(0, 6)).read_bytes())
        _annotate(corpus.uri, checkpoint, out.uri)
        server.fill("corpus", videos)
        ledger = read_ledger(out)
        assert ledger
        ((done,),) = ledger.by_video.values()
        corpus.remove("a.mp4")
        ledger.by_video.clear()
        for video in list_videos([corpus.uri]).videos:
            ledger.by_video[video.id] = [replace(done, video=video.id, path=video.path, stamp=video.stamp)]
        ledger.write(out)
        server.slow(0.05)
        server.requests()
        began = time.perf_counter()
        _annotate(corpus.uri, checkpoint, out.uri)
        spent, requests = time.perf_counter() - began, server.requests()
    yield "resume_100k_s", spent
    yield "resume_100k_requests", len(requests)


def actor_fps_1080p() -> Values:
    """Frames/s of a predictor's thread where the model costs nothing, and the processor time of what is behind it."""
    import ray

    from pipelines.inference.actor import PredictStage
    from pipelines.inference.crash_counter import CrashCounter

    ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False)
    with tempfile.TemporaryDirectory() as folder:
        for sentences in (1, 3):
            message = _frames(sentences, windows=8)
            stage = PredictStage(STUB, ray.remote(num_cpus=0)(CrashCounter).remote())
            (answers,) = stage(message)
            rates = []
            for _ in range(5):
                began = time.perf_counter()
                list(stage(message))
                rates.append(8 * SETTINGS.window / (time.perf_counter() - began))
            yield f"actor_fps_1080p_{sentences}", float(np.median(rates))
            began = time.process_time()
            list(WriteStage(Folder(folder), JoinSettings(0.3, "f"))(answers))
            spent = time.process_time() - began
            yield f"write_ms_a_frame_1080p_{sentences}", 1000 * spent / (8 * SETTINGS.window)
    ray.shutdown()


def _frames(sentences: int, windows: int) -> pa.Table:
    """A stretch of a video, as the predictor gets it."""
    video, t = Video("/v.mp4"), SETTINGS.window
    expressions = tuple(Expression(str(number), f"dog {number}") for number in range(sentences))
    (group,) = expression_groups(video.id, "file", "f", expressions)
    size = resized_size(*HD, PROTOCOL.short_side, PROTOCOL.long_side)
    infos, contexts = [], []
    for number in range(windows):
        places = range(number * t, (number + 1) * t)
        times = tuple(place / 30 for place in places)
        record = _record(video, expressions, HD, tuple(f"{place:05d}" for place in places), times)
        infos.append(FramesInfo(record, tuple(range(t)), (t, *size, 3), one_of_many=True))
        contexts.append(WindowContext(number, "", "", times[0], times[-1]))
    part = PartContext(video, "file", windows * t / 30, group, tuple(contexts), 0, ())
    pixels = np.zeros(windows * t * size[0] * size[1] * 3, dtype=np.uint8)
    return encode_pixels("unit", infos, pixels, context=PartsContext("unit", (part,), News()))


def _record(
    video: Video,
    expressions: tuple[Expression, ...],
    size: tuple[int, int],
    names: tuple[str, ...],
    times: Sequence[float],
) -> Record:
    height, width = size
    return Record(
        "videos", "", video.id, width, height, names, (b"",) * len(names), (), expressions, video.path, "file",
        width, height, fps=30.0, timestamps=tuple(times),
    )  # fmt: skip


def decode_fps_core() -> Values:
    """Frames/s that one core decodes and resizes, through the whole stage: processor time of worker and decoder.

    On one core, as two that share a memory or a core slow each other down by up to a half.
    """
    os.sched_setaffinity(0, [min(os.sched_getaffinity(0))])
    with tempfile.TemporaryDirectory() as folder:
        for name, size in (("1080p", HD), ("480p", SD)):
            path = write_video(Path(folder) / f"{name}.mp4", _scene(*size, t=160), rate=30, codec="libx264")
            video = Video(str(path))
            stage = DecodeStage(SETTINGS, PROTOCOL, 600)
            with decoder(600) as worker:
                timeline = worker.timeline(video, shots=False)
            unit = segments(video, timeline, length=SETTINGS.window, overlap=SETTINGS.overlap)[0]
            (group,) = expression_groups(video.id, "file", "f", [Expression("1", "the dog")])
            message = encode_units([(unit, UnitContext((group,), True, 1.0))], ShardContext("shard", News()))
            rates = []
            for _ in range(9):
                before = _processor_time()
                list(stage(message))
                rates.append(len(unit.times) / (_processor_time() - before))
            yield f"decode_fps_core_{name}", float(np.median(rates))  # of a worker that has done some


def _processor_time() -> float:
    this = psutil.Process()
    times = [one.cpu_times() for one in (this, *this.children(recursive=True))]
    return sum(one.user + one.system for one in times)


def _scene(height: int, width: int, t: int) -> Iterator[np.ndarray]:
    """A textured scene that a camera moves over, with the detail of a common video."""
    rng = np.random.default_rng(0)
    image = np.zeros((height + 2 * t, width + 2 * t, 3), dtype=np.float32)
    for cell, weight in ((64, 90), (16, 40), (4, 20), (1, 4)):
        rough = rng.random((image.shape[0] // cell + 1, image.shape[1] // cell + 1, 3), dtype=np.float32)
        image += weight * rough.repeat(cell, axis=0).repeat(cell, axis=1)[: image.shape[0], : image.shape[1]]
    pixels = image.astype(np.uint8)
    return (np.ascontiguousarray(pixels[place : place + height, 2 * place : 2 * place + width]) for place in range(t))


def join_peak_mb_5000() -> Values:
    """Peak memory of a join where 5 000 sentences are asked of one long video of 480 x 854; they come in groups."""
    video, t = Video("/v.mp4"), SETTINGS.window
    expressions = tuple(Expression(f"{number:04d}", f"dog {number}") for number in range(5000))
    group, *others = expression_groups(video.id, "file", "f", expressions)
    size = resized_size(*SD, PROTOCOL.short_side, PROTOCOL.long_side)
    with tempfile.TemporaryDirectory() as folder:
        out = Folder(folder)
        for stretch in range(10):
            with out.output(group.stretch(stretch)) as stream, pq.ParquetWriter(stream, WINDOW_SCHEMA) as writer:
                for number in range(8 * stretch, 8 * stretch + 8):
                    places = range(number * (t - 4), number * (t - 4) + t)
                    times = tuple(place / 30 for place in places)
                    record = _record(video, group.expressions[:1], SD, tuple(f"{place:05d}" for place in places), times)
                    shape = (t, *size, 3)
                    (answer,) = Stub().answer(ModelFrames(record, tuple(range(t)), np.zeros(shape, np.uint8), True))
                    one = window_row(record, answer, "f", "")
                    rows = [
                        replace(one, row=replace(one.row, expression=said.id, text=said.text))
                        for said in group.expressions
                    ]
                    writer.write_table(windows_table(rows), row_group_size=len(rows))
        words = [sys.executable, __file__, "--join", out.uri, msgspec.json.encode(group).decode()]
        peak, seconds = json.loads(subprocess.run(words, check=True, capture_output=True, text=True).stdout)
    yield "join_peak_mb_5000", peak
    yield "join_sentences_at_once", len(group.expressions)
    yield "join_ms_a_mask", 1000 * seconds / (len(group.expressions) * 80 * (t - 4))
    yield "joins_5000", 1 + len(others)


def join(out: str, group_json: str) -> None:
    """Joins a group, and prints the peak of this process in MB, and the seconds that it took."""
    group = msgspec.json.decode(group_json, type=ExpressionGroup)
    began = time.process_time()
    join_group(group, Entry(group.video, "/v.mp4", "", "file", group.sentences), Folder(out), JoinSettings(0.3, "f"))
    seconds = time.process_time() - began
    status = Path("/proc/self/status").read_text().splitlines()
    peak = next(int(line.split()[1]) for line in status if line.startswith("VmHWM"))
    sys.stdout.write(json.dumps([peak / 1000, seconds]))


def parcel_mb_10h() -> Values:
    """All messages that planning sends for a video of 10 hours at 30 frames/s of which one half is done."""
    info = VideoInfo(1920, 1080, 1920, 1080, "", "1", 30.0, 36000.0, None, "mov", "h264", "yuv420p", 1, 0, "file")
    n = 10 * 3600 * 30
    timeline = Timeline(info, np.arange(n) * 512, np.arange(n) / 30)
    video = Video("/v.mp4")
    expressions = (Expression("1", "the dog"),)
    with tempfile.TemporaryDirectory() as folder:
        out = Folder(folder)
        plan = PlanStage(out, SETTINGS, PROTOCOL, "f", 600, "run")
        request = AnnotationRequest(video, expressions)
        planned = plan.plan_video(request, timeline, lambda: timeline)
        assert planned.long
        (group,) = planned.long.groups
        for number in range(planned.long.stretches // 2):
            out.write(group.stretch(number), b"done")
        planned = plan.plan_video(request, timeline, lambda: timeline)
        sizes = [encode_units([one], ShardContext("0" * 16, News())).nbytes for one in planned.units]
    yield "parcel_mb_10h", sum(sizes) / 1e6
    yield "parcels_10h", len(sizes)
    yield "parcel_kb_largest", max(sizes) / 1e3


MEASUREMENTS = (
    driver_ms_per_video, requests_short_video, resume_100k_s, actor_fps_1080p, decode_fps_core, join_peak_mb_5000,
    parcel_mb_10h,
)  # fmt: skip


def main() -> None:
    """Runs the measurements that are named, or all, and prints their values."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", choices=[[], *(one.__name__ for one in MEASUREMENTS)], default=[])
    parser.add_argument("--here", action="store_true", help="in this process")
    parser.add_argument("--join", nargs=2)
    options = parser.parse_args()
    if options.join:
        join(*options.join)
        return
    for measurement in MEASUREMENTS:
        if options.names and measurement.__name__ not in options.names:
            continue
        if not options.here:
            paths = os.pathsep.join([*SHARED, os.environ.get("PYTHONPATH", "")])  # Ray's workers find them there
            words = [sys.executable, __file__, "--here", measurement.__name__]
            subprocess.run(words, env=os.environ | CREDENTIALS | {"PYTHONPATH": paths}, check=True)
            continue
        for name, value in measurement():
            sys.stdout.write(f"{name} {value:.4g}\n")
            sys.stdout.flush()


if __name__ == "__main__":
    main()
