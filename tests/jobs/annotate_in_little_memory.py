"""Runs jobs/annotate.py with a small object store, and watches the memory of all its processes.

Called by test_annotate_memory.py with the flags of the job; prints MiB by kind of process, and ends with its exit code.
"""

import json
import sys
import threading
import time
from collections import defaultdict
from pathlib import Path

import psutil
import ray

from jobs.annotate import AnnotateConfig, main
from jobs.common.cli import parse
from jobs.common.stopping import safe_exit
from pipelines.session import start_local

STORE = 80 * 2**20  # about the least that Ray takes
KINDS = ("MapBatches(Plan", "MapBatches(Decode", "MapBatches(PredictStage)", "MapBatches(Write", "join_group")
DECODER = "pipelines.video.decoder_process"


def watch(peaks: dict[str, int], over: threading.Event) -> None:
    """The most memory of its own that a process of each kind holds."""
    me = psutil.Process()
    while not over.wait(0.05):
        for process in [me, *me.children(recursive=True)]:
            try:
                command = " ".join(process.cmdline())
                status = Path(f"/proc/{process.pid}/status").read_text()
            except (psutil.Error, OSError):
                continue
            kinds = (*KINDS, DECODER)
            kind = "driver" if process == me else next((one for one in kinds if one in command), "")
            held = [int(line.split()[1]) for line in status.splitlines() if line.startswith("RssAnon")]
            if kind and held:
                peaks[kind] = max(peaks[kind], held[0] // 1024)


if __name__ == "__main__":
    leave = safe_exit()
    config = parse(AnnotateConfig, sys.argv[1:])
    start_local(4, object_store_memory=STORE, log_to_driver=False)
    peaks: dict[str, int] = defaultdict(int)
    over = threading.Event()
    watcher = threading.Thread(target=watch, args=(peaks, over))
    watcher.start()
    began = time.monotonic()
    code = main(config)
    over.set()
    watcher.join()
    sys.stdout.write(json.dumps({"seconds": time.monotonic() - began, "peaks": peaks}) + "\n")
    ray.shutdown()
    leave(code)
