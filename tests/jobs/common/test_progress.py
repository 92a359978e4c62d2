"""The progress of a job: a bar on a terminal, else log lines."""

import logging

import pytest

from jobs.common import progress
from jobs.common.progress import track


def test_items_pass_and_a_line_follows_each_one_that_the_caller_has_handled(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(progress, "terminal", lambda: False)
    monkeypatch.setattr(progress, "LOG_INTERVAL", -1.0)
    caplog.set_level(logging.INFO, logger=progress.__name__)
    assert list(track([5, 6], 2, "shard")) == [5, 6]
    assert caplog.messages == ["1 of 2 shards", "2 of 2 shards"]
    caplog.clear()
    handled: list[int] = []
    for item in track([5, 6], 2, "video", lambda: f"handled {handled}"):
        handled.append(item)
    assert caplog.messages == ["handled [5]", "handled [5, 6]"]


def test_between_two_lines_time_passes(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr(progress, "terminal", lambda: False)
    caplog.set_level(logging.INFO, logger=progress.__name__)
    assert list(track([], 2, "shard")) == []
    assert list(track(range(9), 9, "shard")) == list(range(9))
    assert caplog.messages == []


def test_a_bar_counts_completed_units_and_shows_the_rest_of_the_status(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(progress, "terminal", lambda: True)
    seen: list[str] = []
    for event in track("avbv", 2, "video", lambda: "n/2 videos, 7 frames/s", lambda: seen.count("v")):
        seen.append(event)
    shown = capsys.readouterr().err
    assert "2/2" in shown
    assert "7 frames/s" in shown
    assert "n/2 videos" not in shown
