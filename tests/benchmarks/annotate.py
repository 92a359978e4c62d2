"""Measures bulk annotation itself: frames/s on one and two simulated nodes, with a stub that takes fixed time a frame.

The stub stands for a GPU: it sleeps, so that the machine's cores do what a cluster's would beside its GPUs. Efficiency
is the rate against that of as many predictors as there are, none of which ever waits. Asserts nothing about time.
"""

import argparse
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import ray
from ray.cluster_utils import Cluster

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "support"))

from annotate_data import moving, write_video
from pipelines.annotate.events import ShardDone
from pipelines.annotate.requests import collect_requests
from pipelines.annotate.run import Joined, Stream, annotate_videos
from pipelines.annotate.settings import Settings
from pipelines.files import Folder
from pipelines.inference.protocols import InferenceProtocol
from pipelines.inference.stream import Resources
from pipelines.ledger import Ledger
from pipelines.sources.sentences import token_upper_bound
from sgmg.config import SgMgConfig
from stub_predictor import StubSpec


@dataclass(frozen=True)
class Measured:
    """One run.

    Attributes:
        efficiency: share of their time, from each one's first window to its last, that predictors spent in the stub.
        waiting: share of it that they waited for frames; the rest is what goes on round the stub.
        rate: frames/s with everything: the start of the predictors, planning, the end where some have no work, joins.
    """

    efficiency: float
    waiting: float
    rate: float


def measure(videos: Sequence[str], nodes: int, actors: int, cores: int, seconds: float, size: int) -> Measured:
    """Annotates the videos on so many nodes, each with a pretended GPU for its predictors."""
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    for _ in range(nodes):
        cluster.add_node(num_cpus=cores, num_gpus=1, object_store_memory=500 * 2**20)
    cluster.wait_for_nodes()
    ray.init(address=cluster.address, log_to_driver=False)
    try:
        with tempfile.TemporaryDirectory() as folder:
            return _measured(videos, Folder(folder), nodes * actors, seconds, size, share=1 / actors)
    finally:
        ray.shutdown()
        cluster.shutdown()


def _measured(videos: Sequence[str], out: Folder, actors: int, seconds: float, size: int, share: float) -> Measured:
    protocol = InferenceProtocol(short_side=size)
    spec = StubSpec(Path, "", "", protocol, "float32", SgMgConfig.preset("tiny"), 1, False, seconds=seconds)
    settings = Settings()
    resources = Resources((actors, actors), gpus_per_actor=share, cpus_per_actor=0, cpus_per_decode=0.5)
    stream = Stream(out, spec, settings, resources, "stub", 600)
    ledger = Ledger("stub")
    requests = collect_requests(videos, None, ("the dog", "the cat", "a man"), out, ledger, token_upper_bound)
    frames, waited, busy = 0, 0.0, 0.0
    began = time.perf_counter()
    for event in annotate_videos(requests.left, stream, ledger):
        if isinstance(event, ShardDone):
            # A predictor's first shard counts from when it has loaded its model: it waited for nothing.
            frames, waited, busy = frames + event.frames, waited + event.waited, busy + event.busy
        elif isinstance(event, Joined):
            assert event.entry.final
    spent = waited + busy
    return Measured(frames * seconds / spent, waited / spent, frames / (time.perf_counter() - began))


def decode_rate(videos: Sequence[str], size: int) -> float:
    """Frames/s that one core decodes and resizes, without Ray."""
    from pipelines.video.decoder import windows
    from pipelines.video.listing import list_videos
    from sgmg.resize import resize_frames, resized_size

    began, frames = time.process_time(), 0
    for video in list_videos(videos).videos[:1]:
        began = time.perf_counter()
        for window in windows(video):
            _, height, width, _ = window.frames.shape
            resize_frames(window.frames, *resized_size(height, width, size))
            frames += len(window.frames)
    return frames / (time.perf_counter() - began)


def main() -> None:
    """Makes videos, annotates them on one node and on two, and prints rates beside what the predictors could do."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--videos", type=int, default=6)
    parser.add_argument("--frames", type=int, default=700, help="of each video")
    parser.add_argument("--actors", type=int, default=2, help="predictors on each node")
    parser.add_argument("--cores", type=int, default=4, help="logical cores of each node")
    parser.add_argument("--milliseconds", type=float, default=40, help="that the stub takes for a frame")
    parser.add_argument("--size", type=int, default=128, help="of the shorter side, in the videos and for the stub")
    options = parser.parse_args()
    seconds = options.milliseconds / 1000
    with tempfile.TemporaryDirectory() as folder:
        for number in range(options.videos):
            path = Path(folder) / f"video-{number}.mp4"
            write_video(path, moving(number, options.frames, options.size, options.size * 3 // 2))
        print(f"decoding alone: {decode_rate([folder], options.size):.0f} frames/s on one core")
        rates = []
        for nodes in (1, 2):
            found = measure([folder], nodes, options.actors, options.cores, seconds, options.size)
            could = nodes * options.actors / seconds
            rates.append(found.efficiency * could)
            print(
                f"{nodes} node(s), {nodes * options.actors} predictors of {options.milliseconds:g} ms a frame: "
                f"{rates[-1]:.1f} of {could:.1f} frames/s, efficiency {found.efficiency:.1%}; they wait for frames "
                f"{found.waiting:.1%} of their time; with start, end and joins {found.rate:.1f} frames/s"
            )
        print(f"two nodes against one: {rates[1] / rates[0]:.2f}x")


if __name__ == "__main__":
    main()
