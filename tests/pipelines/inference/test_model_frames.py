"""Decoded and resized: only what somebody asks about."""

from dataclasses import replace

import numpy as np
import pytest

from pipelines.errors import BadItem
from pipelines.inference.model_frames import model_frames
from pipelines.inference.protocols import inference_protocol
from pipelines.records import Expression
from prepared_data import a_record, pixels_of
from sgmg.resize import resize_frames


def test_frames_are_rgb_at_the_size_the_model_sees() -> None:
    asked = model_frames(a_record("dog", t=3), inference_protocol("ref-youtube-vos", short_side=80))
    assert asked.numbers == (0, 1, 2)
    np.testing.assert_array_equal(asked.frames, resize_frames(pixels_of(sum(b"dog"), 3), 80, 112))


def test_frames_that_nobody_asks_about_are_not_decoded() -> None:
    record = a_record("dog", t=30)
    broken = tuple(data if 18 <= number <= 22 else b"" for number, data in enumerate(record.frames))
    record = replace(record, frames=broken, expressions=(Expression("0", "a", frames=(20,)),))
    protocol = inference_protocol("a2d-sentences", short_side=40)
    asked = model_frames(record, protocol)
    assert asked.numbers == (18, 19, 20, 21, 22)
    (one,) = protocol.passes(record)
    np.testing.assert_array_equal(asked.shown(one), pixels_of(sum(b"dog"), 30)[18:23])


def test_a_frame_at_the_edge_is_shown_as_often_as_it_is_copied() -> None:
    record = replace(a_record("dog"), expressions=(Expression("0", "a", frames=(0,)),))
    protocol = inference_protocol("jhmdb-sentences", short_side=40)
    (one,) = protocol.passes(record)
    shown = model_frames(record, protocol).shown(one)
    np.testing.assert_array_equal(shown, pixels_of(sum(b"dog"), 2)[[0, 0, 0, 1, 1]])


def test_what_travels_has_neither_bytes_nor_truth() -> None:
    record = model_frames(a_record("dog"), inference_protocol("own")).record
    assert record.frames == (b"", b"")
    assert record.objects == ()
    assert record.frame_names == ("00000", "00005")


def test_a_frame_that_cannot_be_decoded_is_named() -> None:
    record = a_record("dog")
    with pytest.raises(BadItem, match="dog: frame 00005") as caught:
        model_frames(replace(record, frames=(record.frames[0], b"no image")), inference_protocol("own"))
    assert caught.value.stage == "decode"


def test_a_frame_of_another_size_than_the_record_says_is_named() -> None:
    with pytest.raises(BadItem, match=r"frame 00000.*\(40, 56\).*\(41, 56\)"):
        model_frames(replace(a_record("dog"), height=41), inference_protocol("own"))
