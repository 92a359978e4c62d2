import pytest

from pipelines.serve.fair_queue import FairQueue


def test_requests_take_turns_and_keep_their_own_order() -> None:
    queue: FairQueue[str] = FairQueue()
    for job in ("a1", "a2", "a3", "b1", "c1", "b2"):
        queue.add(job[0], job)
    assert len(queue) == 6
    assert [queue.take() for _ in range(6)] == ["a1", "b1", "c1", "a2", "b2", "a3"]
    with pytest.raises(IndexError, match="No job waits"):
        queue.take()


def test_a_request_that_comes_later_is_next_but_one() -> None:
    queue: FairQueue[str] = FairQueue()
    for number in range(100):
        queue.add("long", f"long {number}")
    assert queue.take() == "long 0"
    queue.add("short", "short")
    assert [queue.take(), queue.take()] == ["long 1", "short"]


def test_alike_jobs_are_taken_from_other_requests_only() -> None:
    queue: FairQueue[str] = FairQueue()
    for job in ("a1", "a1", "b1", "c2", "d1", "e1"):
        queue.add(job[0], job)
    assert queue.take() == "a1"
    assert queue.take_alike(lambda job: job.endswith("1"), 2) == ["b1", "d1"]
    assert [queue.take() for _ in range(3)] == ["c2", "e1", "a1"]


def test_a_removed_job_is_not_taken() -> None:
    queue: FairQueue[str] = FairQueue()
    for job in ("a1", "a2", "b1"):
        queue.add(job[0], job)
    queue.remove("a1")
    queue.remove("b1")
    queue.remove("unknown")
    assert (len(queue), queue.take()) == (1, "a2")
