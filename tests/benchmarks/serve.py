"""Measures the service: many small clients at once, and what a further sentence about a kept video costs.

Starts jobs/serve.py on this machine. Prints `name value` lines.
"""

import argparse
import json
import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path

import httpx
import numpy as np
import psutil

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "support"))
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "parity"))

from annotate_data import moving, write_video
from served import Served, serving

SENTENCES = ("the dog on the left", "a man in a red shirt", "the ball")


def client(served: Served, video: bytes, until: float, seconds: list[float], codes: Counter[int]) -> None:
    """Asks for one sentence again and again; waits as long as a 429 says, at most a second."""
    with httpx.Client(timeout=120) as http:
        while time.monotonic() < until:
            began = time.monotonic()
            answer = http.post(f"{served.url}/segment", files={"video": video}, data={"sentences": SENTENCES[0]})
            whole = answer.status_code != 200 or json.loads(answer.text.splitlines()[-1])["done"]
            codes[answer.status_code if whole else 0] += 1
            if answer.status_code == 200:
                seconds.append(time.monotonic() - began)
            else:
                time.sleep(min(1.0, float(answer.headers.get("retry-after", 1))))


def memory(served: Served) -> float:
    """Resident memory of the service and its Ray, in MB."""
    job = psutil.Process(served.process.pid)
    total = 0
    for one in (job, *job.children(recursive=True)):
        try:
            total += one.memory_info().rss
        except psutil.NoSuchProcess:
            continue
    return total / 1e6


def many_clients(served: Served, clients: int, duration: float) -> None:
    """Prints what so many clients see in so many seconds, and how the memory of the service goes."""
    seconds: list[float] = []
    codes: Counter[int] = Counter()
    until = time.monotonic() + duration
    video = served.video.read_bytes()
    threads = [threading.Thread(target=client, args=(served, video, until, seconds, codes)) for _ in range(clients)]
    for thread in threads:
        thread.start()
    sizes = []
    while time.monotonic() < until:
        sizes.append(memory(served))
        time.sleep(duration / 12)
    for thread in threads:
        thread.join()
    quarter = max(1, len(sizes) // 4)
    print(f"clients {clients}")
    print(f"seconds {duration:g}")
    for code, count in sorted(codes.items()):
        print(f"answers_{code} {count}")
    print(f"requests_per_second {len(seconds) / duration:.1f}")
    for share in (50, 95):
        print(f"answer_p{share}_ms {np.percentile(seconds, share) * 1000:.0f}")
    print(f"memory_first_quarter_mb {np.median(sizes[:quarter]):.0f}")
    print(f"memory_last_quarter_mb {np.median(sizes[-quarter:]):.0f}")


def further_sentences(served: Served, video: Path, repeats: int) -> None:
    """Prints what a video costs at once, and what it costs kept: the video, and each sentence."""
    content = video.read_bytes()
    with httpx.Client(timeout=600) as http:

        def timed(path: str, **request: object) -> float:
            began = time.monotonic()
            http.post(f"{served.url}{path}", **request).raise_for_status()  # pyright: ignore[reportArgumentType]
            return time.monotonic() - began

        def first_mask() -> float:
            began = time.monotonic()
            data = {"sentences": SENTENCES[0]}
            with http.stream("POST", f"{served.url}/segment", files={"video": content}, data=data) as answer:
                lines = answer.iter_lines()
                next(lines)
                next(lines)
                return time.monotonic() - began

        timed("/segment", files={"video": content}, data={"sentences": SENTENCES[0]})
        at_once = [
            timed("/segment", files={"video": content}, data={"sentences": SENTENCES[0]}) for _ in range(repeats)
        ]
        keep = timed("/videos", files={"video": content})
        id = http.post(f"{served.url}/videos", files={"video": content}).json()["id"]
        kept = [
            timed(f"/videos/{id}/sentences", json={"sentences": [SENTENCES[place % 3]]}) for place in range(repeats)
        ]
        first = [first_mask() for _ in range(repeats)]
    print(f"video_and_sentence_ms {np.median(at_once) * 1000:.0f}")
    print(f"first_mask_ms {np.median(first) * 1000:.0f}")
    print(f"keep_video_ms {keep * 1000:.0f}")
    print(f"sentence_of_kept_video_ms {np.median(kept) * 1000:.0f}")


def main() -> None:
    """Runs both."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clients", type=int, default=50)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--repeats", type=int, default=5)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        video = write_video(Path(folder) / "long.mp4", moving(1, 96, 160, 288), codec="libx264")
        (Path(folder) / "service").mkdir()
        with serving(Path(folder) / "service", "--requests-per-minute", "1000000") as served:
            many_clients(served, arguments.clients, arguments.seconds)
            further_sentences(served, video, arguments.repeats)


if __name__ == "__main__":
    main()
