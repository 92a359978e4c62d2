"""The WebSocket of live streams: sentences and frames in, answers out, in order."""

import asyncio
import io
import json
from typing import Any
from uuid import uuid4

import msgspec
import numpy as np
from fastapi import FastAPI, WebSocket
from jaxtyping import UInt8
from ray.exceptions import RayError
from starlette.websockets import WebSocketDisconnect

from pipelines.annotate.settings import Settings
from pipelines.errors import root_cause
from pipelines.serve.front import Front
from pipelines.serve.live_messages import LiveFrame, LiveQuestion, LiveReply
from pipelines.serve.opened_video import in_decoder, open_video
from pipelines.serve.refusal import Refusal
from pipelines.serve.uploads import save_upload

_FRAME_BYTES = 16 * 2**20
"""Bytes of one frame, at most."""


def add_live(app: FastAPI, front: Front) -> None:
    """Adds the WebSocket /live."""

    @app.websocket("/live")
    async def live(socket: WebSocket) -> None:
        await socket.accept()
        front.counts.streams.inc()
        try:
            async with front.turns.turn():
                await _serve(socket, front)
        except WebSocketDisconnect:
            return
        except Refusal as refusal:
            await socket.send_json({"error": refusal.sentence})
            await socket.close(code=1013)
        finally:
            front.counts.streams.dec()


async def _serve(socket: WebSocket, front: Front) -> None:
    stream = uuid4().hex
    question: LiveQuestion | None = None
    number = 0
    while True:
        message = await socket.receive()
        if message["type"] == "websocket.disconnect":
            return
        try:
            if message.get("text") is not None:
                question = _question(message["text"], front)
                await socket.send_json({"sentences": question.sentences})
            elif question is None:
                raise Refusal(422, 'No sentence is asked yet. Send {"sentences": ["…"]} before the first frame.')
            else:
                frame = await asyncio.get_running_loop().run_in_executor(front.threads, _frame, front, message["bytes"])
                reply = await _reply(front, stream, LiveFrame(question, frame))
                await socket.send_json({"frame": number, **reply})
                number += 1
        except Refusal as refusal:
            await socket.send_json({"error": refusal.sentence})


def _question(text: str, front: Front) -> LiveQuestion:
    """Returns the question of a message.

    Raises:
        Refusal: it is no question, or cannot be asked.
    """
    try:
        question = msgspec.convert(json.loads(text), LiveQuestion)
    except (ValueError, msgspec.ValidationError) as error:
        raise Refusal(422, f'The message is not {{"sentences": ["…"], "context": 8, "stride": 1}} ({error}).') from None
    if len(question.sentences) > (most := front.settings.limits.sentences):
        raise Refusal(413, f"{len(question.sentences)} sentences are asked, the limit is {most}.")
    if not (1 <= question.context <= 64 and 1 <= question.stride <= 64):
        raise Refusal(422, "Give context and stride as whole numbers from 1 to 64.")
    front.check_sentences(question.sentences)
    return question


def _frame(front: Front, data: bytes) -> UInt8[np.ndarray, "h w 3"]:
    """Decodes a frame in a decoder process.

    Raises:
        Refusal: it is no image, or too large.
    """
    if len(data) > _FRAME_BYTES:
        raise Refusal(413, f"A frame has {len(data)} bytes, the limit is {_FRAME_BYTES}. Send smaller frames.")
    with front.workplace.folder() as folder, front.decoders.lend() as decoder:
        upload = save_upload([("frame", io.BytesIO(data))], True, folder)
        opened = open_video(decoder, upload.video, upload.name, Settings(), front.settings.limits)
        with in_decoder():
            (window,) = decoder.windows(opened.unit)
    return window.frames[0]


async def _reply(front: Front, stream: str, frame: LiveFrame) -> dict[str, Any]:
    handle = front.handle.options(multiplexed_model_id=stream)
    try:
        reply: LiveReply = await asyncio.wait_for(handle.live.remote(stream, frame), front.settings.patience.replica)
    except TimeoutError:
        raise Refusal(503, "No replica of the model answered in time. Send the next frame later.") from None
    except RayError as error:
        raise Refusal(503, f"A replica of the model was lost: {root_cause(error)}. Send the next frame.") from error
    return {"answers": reply.answers} if not reply.problem else {"error": reply.problem}
