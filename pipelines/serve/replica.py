"""The deployment that holds the model: one replica a GPU, or some cores."""

import asyncio
import logging

import torch
from ray import serve

from pipelines.inference.predictor_spec import PredictorSpec
from pipelines.serve.clip_cache import ClipCache
from pipelines.serve.live_messages import LiveFrame, LiveReply
from pipelines.serve.live_streams import LiveStreams
from pipelines.serve.model_worker import ModelWorker
from pipelines.serve.window_job import WindowJob, WindowReply

KEPT_VIDEOS = 1000
"""Videos that the router may believe a replica to hold clips of; what it holds is bounded by bytes."""


class ModelReplica:
    """A replica: loads the checkpoint when it starts, answers windows, and keeps encoded clips within its bounds.

    Args:
        spec: of the predictor.
        clip_bytes: of the encoded clips that are kept, on the device.
    """

    def __init__(self, spec: PredictorSpec, clip_bytes: int) -> None:
        logging.getLogger("pipelines").setLevel(logging.INFO)
        torch.set_num_threads(spec.threads)
        predictor = spec.predictor()
        self._worker = ModelWorker(predictor, ClipCache(clip_bytes))
        self._live = LiveStreams(predictor, spec.protocol.short_side)

    async def answer(self, job: WindowJob) -> WindowReply:
        """Answers one window. If the call is cancelled before its turn, the model never sees the window."""
        if job.clip:
            await self._hold(serve.get_multiplexed_model_id())  # pyright: ignore[reportCallIssue]
        return await asyncio.wrap_future(self._worker.answer(job))

    async def live(self, stream: str, message: LiveFrame) -> LiveReply:
        """Answers one message of a live stream (`live_streams.LiveStreams`)."""
        await self._hold(serve.get_multiplexed_model_id())  # pyright: ignore[reportCallIssue]
        return await asyncio.wrap_future(self._worker.call(stream, lambda: self._live.answer(stream, message)))

    def check_health(self) -> None:
        """Raises what Ray Serve takes for a replica that has to be replaced.

        Raises:
            RuntimeError: the thread of the model has ended.
        """
        if not self._worker.alive:
            raise RuntimeError("The thread that runs the model has ended. The replica is started again.")

    @serve.multiplexed(max_num_models_per_replica=KEPT_VIDEOS)
    async def _hold(self, video: str) -> str:
        """Notes that clips of a video are here, so that Ray Serve sends its next sentences to this replica."""
        return video
