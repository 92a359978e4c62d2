"""Live streams of a replica: frames are answered one by one, from those before."""

import time
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pipelines.exports.writing import single
from pipelines.inference.predictor import Predictor
from pipelines.serve.live_messages import LiveFrame, LiveQuestion, LiveReply
from sgmg.masks import mask_to_rle, rle_to_coco
from sgmg.segmenter import Segmenter
from sgmg.streaming import SegmenterStream, StreamAnswer

MOST_STREAMS = 16
"""Streams of a replica; the one that was not used for longest ends for a new one."""
IDLE = 60.0
"""Seconds after which a stream without frames ends."""


class LiveStreams:
    """The streams of a replica. All calls come from the thread that runs the model.

    Args:
        predictor: holds the model.
        short_side: pixels of the shorter side of frames that the model reads.
    """

    def __init__(self, predictor: Predictor, short_side: int) -> None:
        self._segmenter = Segmenter(
            predictor.model,
            predictor.tokenizer,
            device=predictor.device,
            precision=predictor.precision,
            short_side=short_side,
            rows=predictor.rows,
            sentences_together=predictor.sentences_together,
        )
        self._streams: OrderedDict[str, _Stream] = OrderedDict()

    def answer(self, stream: str, message: LiveFrame) -> LiveReply:
        """Answers a frame of a stream."""
        for idle in [id for id, one in self._streams.items() if time.monotonic() - one.used > IDLE]:
            del self._streams[idle]
        try:
            known = self._known(stream, message.question)
            return LiveReply(tuple(_values(known.push(message.frame))))
        except ValueError as error:
            return LiveReply(problem=str(error))

    def _known(self, stream: str, question: LiveQuestion) -> SegmenterStream:
        known = self._streams.get(stream)
        if known is None or (known.question.context, known.question.stride) != (question.context, question.stride):
            made = self._segmenter.stream(question.sentences, context=question.context, stride=question.stride)
            known = _Stream(made, question)
        elif known.question != question:
            known.stream.ask(question.sentences)
            known.question = question
        known.used = time.monotonic()
        self._streams[stream] = known
        self._streams.move_to_end(stream)
        if len(self._streams) > MOST_STREAMS:
            self._streams.popitem(last=False)
        return known.stream


@dataclass(slots=True)
class _Stream:
    stream: SegmenterStream
    question: LiveQuestion
    used: float = 0.0


def _values(answer: StreamAnswer) -> Sequence[dict[str, Any]]:
    size = answer.masks.shape[1:]
    return [
        {
            "sentence": sentence,
            "score": single(float(score)),
            "box": [round(float(value), 2) for value in box],
            "rle": rle_to_coco(mask_to_rle(mask), (size[0], size[1])),
        }
        for sentence, score, box, mask in zip(answer.sentences, answer.scores, answer.boxes, answer.masks, strict=True)
    ]
