"""Streams an epoch of training clips and kills the workers that decode meanwhile. A script of test_stream.py.

Usage: slow_clips.py FOLDER OUT. Writes what came of every slot, how many workers were killed, and how many steps were
left when the first one was.
"""

import importlib.util
import json
import sys
import time
from pathlib import Path

import ray

from jobs.common.stopping import safe_exit
from pipelines.clips.augmentation import ClipRecipe
from pipelines.clips.stream import Streaming, TrainData, TrainPart, train
from pipelines.errors import Exit
from pipelines.files import Folder
from pipelines.manifest import read_manifest
from pipelines.session import start_local
from ray_workers import kill_worker_at

KILLS = 2


def kill_a_decoder(seconds: float) -> bool:
    """Ends one process of this Ray that is decoding now, as running out of memory would; False if there was none."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if kill_worker_at("decode_row"):
            return True
    return False


def main(prepared: str, out: str) -> None:
    spec = importlib.util.spec_from_file_location("test_stream", Path(__file__).with_name("test_stream.py"))
    assert spec is not None
    assert spec.loader is not None
    tests = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tests)
    start_local(3, object_store_memory=200 * 2**20)
    folder = Folder(prepared)
    part = TrainPart(folder, read_manifest(folder), ClipRecipe.video(tests.LENGTH))
    data = TrainData((part,), seed=1, global_batch=4, shuffle_window=8)
    slots, killed, left = [], 0, 0
    for step in train(data, 0, 0, 1, streaming=Streaming()):
        slots += [tests.shown(slot) for slot in step]
        if killed < KILLS and kill_a_decoder(seconds=1):
            left = left or data.plan(0).steps - 1 - step[0].step
            killed += 1
    Path(out).write_text(json.dumps({"slots": slots, "killed": killed, "left": left}))
    ray.shutdown()


if __name__ == "__main__":
    leave = safe_exit()
    main(*sys.argv[1:])
    leave(Exit.CLEAN)
