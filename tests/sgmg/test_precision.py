"""Which precision a model computes in: what each kind of processor and GPU takes, and what is said about it."""

import logging

import pytest
import torch

from sgmg import precision
from sgmg.config import SgMgConfig
from sgmg.precision import fastest_precision, find_precision

MODEL = SgMgConfig.preset("video-swin-t")


@pytest.fixture(autouse=True)
def _nothing_remembered() -> None:
    fastest_precision.cache_clear()


def a_processor(monkeypatch: pytest.MonkeyPatch, instructions: str | None, gain: float) -> None:
    """Stands for a processor: its instructions for bfloat16, and how much faster its products are in it."""
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {instructions: True} if instructions else {})
    monkeypatch.setattr(precision, "_gain_of_bfloat16", lambda *_: gain)


def a_gpu(monkeypatch: pytest.MonkeyPatch, capability: tuple[int, int]) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda *_: "a GPU")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda *_: capability)


@pytest.mark.parametrize(
    ("instructions", "gain", "wanted", "why"),
    [
        ("amx_bf16", 6.5, "bfloat16", "6.5 times as fast"),
        ("avx512_bf16", 2.1, "bfloat16", "2.1 times as fast"),
        ("avx512_bf16", 0.7, "float32", "only 0.7 times as fast"),
        (None, 9.0, "float32", "no instructions"),
    ],
)
def test_a_processor_takes_what_it_is_fast_in(
    monkeypatch: pytest.MonkeyPatch, instructions: str | None, gain: float, wanted: str, why: str
) -> None:
    a_processor(monkeypatch, instructions, gain)
    found = find_precision("auto", "cpu", MODEL)
    assert (found.precision, found.surprises) == (wanted, False)
    assert why in found.why


def test_a_small_model_is_not_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    a_processor(monkeypatch, "amx_bf16", 9.0)
    assert find_precision("auto", "cpu", SgMgConfig.preset("tiny")).precision == "float32"


@pytest.mark.parametrize(
    ("capability", "wanted"), [((9, 0), "bfloat16"), ((7, 5), "float16"), ((7, 0), "float16"), ((6, 1), "float32")]
)
def test_a_gpu_takes_what_it_has(monkeypatch: pytest.MonkeyPatch, capability: tuple[int, int], wanted: str) -> None:
    a_gpu(monkeypatch, capability)
    assert find_precision("auto", "cuda", MODEL).precision == wanted
    asked = find_precision("bfloat16", "cuda", MODEL)
    assert asked.precision == wanted
    assert asked.surprises == (wanted != "bfloat16")
    assert find_precision("float32", "cuda", MODEL).precision == "float32"


def test_a_processor_without_bfloat16_does_as_told_and_says_that_it_is_slow(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    a_processor(monkeypatch, None, 1.0)
    with caplog.at_level(logging.INFO, "sgmg.precision"):
        assert find_precision("bfloat16", "cpu", MODEL).log() == "bfloat16"
        assert find_precision("auto", "cpu", MODEL).log() == "float32"
    slow, found = caplog.records
    assert (slow.levelname, found.levelname) == ("WARNING", "INFO")
    assert slow.getMessage() == "precision bfloat16: as chosen, but slow: this processor has no instructions for it"
    assert found.getMessage() == "precision float32: this processor has no instructions for bfloat16"


def test_the_self_test_measures_in_a_second() -> None:
    assert 0.01 < precision._gain_of_bfloat16(64, 256) < 1000
