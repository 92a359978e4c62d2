"""Which frames, sentences and queries each benchmark asks for."""

from dataclasses import replace

import pytest

from pipelines.inference.protocols import PROTOCOLS, InferenceProtocol, Pass, inference_protocol
from pipelines.records import Expression
from prepared_data import a_record


def test_a_video_of_ref_youtube_vos_goes_in_one_pass() -> None:
    record = a_record("dog", t=50)
    assert inference_protocol("ref-youtube-vos").passes(record) == [Pass(tuple(range(50)), (0, 1, 2))]


def test_ref_davis_goes_in_windows_of_36_frames() -> None:
    passes = inference_protocol("ref-davis17").passes(a_record("dog", t=80))
    assert [(one.frames[0], len(one.frames)) for one in passes] == [(0, 36), (36, 36), (72, 8)]
    assert {one.expressions for one in passes} == {(0, 1, 2)}


def test_a2d_shows_two_frames_on_either_side_of_the_one_it_asks_about() -> None:
    asked = (Expression("0", "a", frames=(1, 7)), Expression("1", "b", frames=(7,)))
    passes = inference_protocol("a2d-sentences").passes(replace(a_record("dog", t=9), expressions=asked))
    assert passes == [Pass((0, 0, 1, 2, 3), (0,), place=2), Pass((5, 6, 7, 8, 8), (0, 1), place=2)]


def test_a_causal_frame_is_shown_with_those_before_it() -> None:
    asked = (Expression("0", "a", frames=(0, 4)), Expression("1", "b", frames=(4,)))
    passes = InferenceProtocol(context=3, causal=True).passes(replace(a_record("dog", t=6), expressions=asked))
    assert passes == [Pass((0,), (0,), place=0), Pass((2, 3, 4), (0, 1), place=2)]


def test_a_causal_protocol_needs_a_context_and_alone_says_that_it_is_causal() -> None:
    with pytest.raises(ValueError, match="causal=True needs a context"):
        InferenceProtocol(causal=True)
    assert InferenceProtocol(context=3, causal=True).provenance()["causal"]
    assert "causal" not in InferenceProtocol(context=3).provenance()


def test_nothing_is_asked_where_there_is_no_sentence() -> None:
    for protocol in PROTOCOLS.values():
        assert protocol.passes(a_record("dog", sentences=())) == []


def test_frame_sizes_padding_and_queries_are_the_published_ones() -> None:
    seen = {name: (one.short_side, one.long_side, one.multiple, one.keep, one.merge) for name, one in PROTOCOLS.items()}
    videos, frames = (360, None, 16, "chosen", False), (360, 640, 32, "all", False)
    assert seen["ref-youtube-vos"] == seen["mevis"] == seen["own"] == videos
    assert seen["ref-davis17"] == (360, None, 16, "chosen", True)
    assert seen["a2d-sentences"] == seen["jhmdb-sentences"] == frames
    assert seen["refcoco"] == seen["refcoco+"] == seen["refcocog"] == (360, 640, 32, "ranked", False)


def test_frame_size_and_window_may_differ_from_the_published_ones() -> None:
    published = inference_protocol("ref-davis17")
    assert inference_protocol("ref-davis17", short_side=160, window=2) == replace(published, short_side=160, window=2)


def test_an_unknown_dataset_is_said_with_the_choices() -> None:
    with pytest.raises(ValueError, match=r"'davis'.*ref-davis17"):
        inference_protocol("davis")


def test_sizes_must_be_positive() -> None:
    with pytest.raises(ValueError, match="window=0"):
        InferenceProtocol(window=0)
