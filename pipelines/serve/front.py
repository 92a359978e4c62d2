"""The front of the service: takes uploads, decodes them, sends windows to the replicas, keeps videos."""

import hashlib
import json
import shutil
import tempfile
from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO, Literal
from uuid import uuid4

from pipelines.annotate.settings import Settings
from pipelines.inference.predictor_spec import PredictorSpec
from pipelines.serve.answering import Answering, Asked
from pipelines.serve.counts import Counts
from pipelines.serve.decoders import Decoders
from pipelines.serve.kept_videos import KeptVideo, KeptVideos
from pipelines.serve.model_client import ModelClient
from pipelines.serve.opened_video import OpenedVideo, open_video, save_window, saved_windows
from pipelines.serve.refusal import Refusal
from pipelines.serve.settings import ServeSettings
from pipelines.serve.turns import Turns
from pipelines.serve.uploads import Upload, Workplace, save_upload
from pipelines.video.decoder import VideoDecoder, Window
from sgmg.tokenizer import Tokenizer

AnswerFormat = Literal["ndjson", "coco", "youtube-vis", "png", "davis", "overlay"]

WINDOWS = "windows"
"""Folder of the windows of a kept video, in its own."""
_PIECE = 2**20
_MOST_OF_DAVIS = 255


@dataclass(frozen=True, slots=True)
class Files:
    """The files of a request.

    Attributes:
        files: name that the client gave, and content.
        images: whether they are the frames of a video.
    """

    files: Sequence[tuple[str, BinaryIO]]
    images: bool


@dataclass(frozen=True, slots=True)
class Question:
    """Question about a video, and the format of its answer.

    Attributes:
        sentences: in the order of the request.
        format: of the answer.
        min_score: score of a frame, below which its mask is empty; None takes that of the service.
    """

    sentences: tuple[str, ...]
    format: AnswerFormat = "ndjson"
    min_score: float | None = None


class Front:
    """Everything that requests share. Its generators block: each runs on a thread, see `stream_from_thread`.

    Args:
        spec: of the predictor in the replicas; the front has its tokenizer only.
        settings: of the service.
        handle: Ray Serve's handle of the replicas.
    """

    def __init__(self, spec: PredictorSpec, settings: ServeSettings, handle: Any) -> None:
        self.spec, self.settings, self.handle = spec, settings, handle
        limits, patience = settings.limits, settings.patience
        self.tokenizer = Tokenizer.from_json(spec.tokenizer)
        self.counts = Counts()
        self.turns = Turns(limits.running, limits.waiting, patience.turn)
        self.kept = KeptVideos(settings.keep, settings.keep_bytes)
        self.workplace = Workplace()
        self.decoders = Decoders(patience.decoder)
        self.threads = ThreadPoolExecutor(2 * limits.running + 8, thread_name_prefix="answer")
        self.client = ModelClient(handle, patience.replica, self.counts.lost.inc)

    def close(self) -> None:
        """Ends the decoder processes and threads, and deletes all files."""
        self.threads.shutdown(wait=False)
        self.decoders.close()
        self.workplace.close()

    def question(self, sentences: Sequence[str], format: AnswerFormat, min_score: float | None) -> Question:
        """Returns a question that the model can be asked.

        Raises:
            Refusal: it cannot.
        """
        most = min(self.settings.limits.sentences, _MOST_OF_DAVIS if format == "davis" else 2**31)
        if not sentences:
            raise Refusal(422, "No sentence is asked. Give the field sentences, once for each sentence.")
        if len(sentences) > most:
            raise Refusal(413, f"{len(sentences)} sentences are asked, the limit is {most}. Ask in several requests.")
        if min_score is not None and not 0 <= min_score <= 1:
            raise Refusal(422, f"min_score is {min_score}. Give a number from 0 to 1.")
        self.check_sentences(sentences)
        return Question(tuple(sentences), format, min_score)

    def check_sentences(self, sentences: Sequence[str]) -> None:
        """Checks that the model can read each sentence.

        Raises:
            Refusal: one is empty, or too long.
        """
        for number, sentence in enumerate(sentences, start=1):
            try:
                self.tokenizer([sentence])
            except ValueError as error:
                raise Refusal(422, f"Sentence {number} cannot be asked: {error}") from error

    def cut(self, fps: float | None, image_fps: float | None, independent: bool) -> Settings:
        """Returns the settings by which a request wants its video cut into windows.

        Raises:
            Refusal: a number is out of range.
        """
        whole = self.settings.windows
        try:
            return replace(
                whole,
                fps=fps if fps is not None else whole.fps,
                image_fps=image_fps,
                independent=independent,
                overlap=0 if independent else whole.overlap,
            )
        except ValueError as error:
            raise Refusal(422, str(error).replace("--image-fps", "image_fps").replace("--fps", "fps")) from error

    def segment(self, files: Files, cut: Settings, question: Question) -> Iterator[bytes]:
        """Yields the answer to a question about a video that is not kept.

        Raises:
            Refusal: the video cannot be used, or the model does not answer.
        """
        with self.workplace.folder() as folder, self.decoders.lend() as decoder:
            opened = self._opened(decoder, save_upload(files.files, files.images, folder), cut)
            with closing(self._decoded(decoder, opened)) as windows:
                yield from self._answer(opened, windows, question)

    def keep(self, files: Files, cut: Settings) -> Iterator[bytes]:
        """Keeps a video, and yields what there is to know of it, as JSON, when it is decoded and encoded.

        Yields an empty part after every window, so that it can be ended in between.

        Raises:
            Refusal: the video cannot be used, or there is no room for it.
        """
        folder = Path(tempfile.mkdtemp(prefix="kept-", dir=self.workplace.path))
        try:
            upload = save_upload(files.files, files.images, folder)
            id = _id(upload, cut)
            known = self.kept.find(id)
            if known is None:
                with self.decoders.lend() as decoder:
                    yield from self._fill(decoder, upload, id, cut, folder)
                known, folder = self.kept.get(id), None
                yield self.described(known, known=False)
            else:
                yield self.described(known, known=True)
        finally:
            if folder is not None:
                shutil.rmtree(folder, ignore_errors=True)

    def ask(self, id: str, question: Question) -> Iterator[bytes]:
        """Yields the answer to a question about a kept video.

        Raises:
            Refusal: there is no such video, or the model does not answer.
        """
        with self.kept.reading(id) as video:
            yield from self._answer(video.opened, saved_windows(video.folder / WINDOWS), question, id)

    def described(self, video: KeptVideo, known: bool) -> bytes:
        """Returns what there is to know of a kept video, as JSON."""
        facts = {"id": video.id, **video.opened.facts, "times": video.opened.times}
        return json.dumps({**facts, "expires_in": self.kept.seconds_left(video), "known": known}).encode()

    def _fill(self, decoder: VideoDecoder, upload: Upload, id: str, cut: Settings, folder: Path) -> Iterator[bytes]:
        """Decodes a video into a folder, lets the replicas encode it, and keeps it."""
        opened = self._opened(decoder, upload, cut)
        height, width = opened.model_size(self.spec.protocol)
        frames = sum(stop - first for first, stop, _ in opened.unit.windows)
        stored = 3 * height * width * frames + sum(one.stat().st_size for one in folder.rglob("*") if one.is_file())
        with self.kept.room(stored):
            asked = Asked(uuid4().hex, opened, (), 0.0, id)
            encoding = Answering(asked, self.client, self.settings.at_once, lambda _: None)
            for _ in encoding.window_rows(self._saved(decoder, opened, folder / WINDOWS)):
                yield b""
            self.kept.add(KeptVideo(id, opened, folder, stored))

    def _saved(self, decoder: VideoDecoder, opened: OpenedVideo, folder: Path) -> Iterator[Window]:
        """Yields the windows of a video, and writes them into a new folder."""
        folder.mkdir()
        with closing(self._decoded(decoder, opened)) as decoded:
            for window in decoded:
                save_window(window, folder)
                yield window

    def _opened(self, decoder: VideoDecoder, upload: Upload, cut: Settings) -> OpenedVideo:
        return open_video(decoder, upload.video, upload.name, cut, self.settings.limits)

    def _decoded(self, decoder: VideoDecoder, opened: OpenedVideo) -> Generator[Window, None, None]:
        yield from decoder.windows(opened.unit, opened.model_size(self.spec.protocol))

    def _answer(
        self, opened: OpenedVideo, windows: Iterator[Window], question: Question, kept: str = ""
    ) -> Iterator[bytes]:
        least = self.settings.windows.min_score if question.min_score is None else question.min_score
        asked = Asked(uuid4().hex, opened, question.sentences, least, kept)
        answering = Answering(asked, self.client, self.settings.at_once, self.counts.frames.inc)
        if question.format == "ndjson":
            yield from answering.lines(windows)
            return
        with self.workplace.folder() as folder:
            yield from _pieces(answering.write(windows, question.format, folder))


def _id(upload: Upload, cut: Settings) -> str:
    """Returns the id of a kept video: equal for equal content that is cut in the same way."""
    text = json.dumps([upload.digest, cut.provenance()], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:24]


def _pieces(path: Path) -> Iterator[bytes]:
    with path.open("rb") as stream:
        while piece := stream.read(_PIECE):
            yield piece
