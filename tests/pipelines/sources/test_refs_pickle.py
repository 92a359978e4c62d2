import pickle
import tracemalloc
from collections import OrderedDict
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest

from pipelines.errors import LayoutError
from pipelines.sources.refs_pickle import plain_pickle

REFS = [{"ref_id": 1, "split": "train", "sentences": [{"sent": "the café", "tokens": ("the", "café")}], "odd": {1, 2}}]


class RunsCode:
    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return eval, (f"open({str(self.marker)!r}, 'w')",)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_plain_values_are_read_from_every_protocol(protocol: int) -> None:
    assert plain_pickle(pickle.dumps(REFS, protocol), "refs.p") == REFS


@pytest.mark.parametrize("text", ["café".encode(), "café".encode("latin-1")])
def test_strings_of_python_2_are_read_as_utf_8_and_else_as_latin_1(text: bytes) -> None:
    assert plain_pickle(b"U" + bytes([len(text)]) + text + b".", "refs.p") == "café"


def test_a_pickle_that_tries_to_run_code_is_refused_and_runs_nothing(tmp_path: Path) -> None:
    data = pickle.dumps([RunsCode(tmp_path / "ran")])
    with pytest.raises(LayoutError, match=r"/data/refs\(unc\)\.p wants builtins\.eval, .* may try to run code"):
        plain_pickle(data, "/data/refs(unc).p")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_numbers_of_numpy_become_plain_ones(protocol: int) -> None:
    value = [np.int64(7), np.int32(-1), np.float32(0.5), np.bool_(True), np.uint8(255), np.dtype(">i4").type(3)]
    found = plain_pickle(pickle.dumps(value, protocol), "refs.p")
    assert found == [7, -1, 0.5, True, 255, 3]
    assert all(type(one) in (int, float, bool) for one in found)  # pyright: ignore[reportGeneralTypeIssues]


def test_the_names_of_numpy_1_are_read_too() -> None:
    data = pickle.dumps(np.int64(7), 2).replace(b"numpy._core", b"numpy.core")
    assert plain_pickle(data, "refs.p") == 7


@pytest.mark.parametrize(
    "data",
    [
        b"c__builtin__\nbytearray\n(I4294967296\ntR.",
        b"\x96\x00\x00\x00\x00\x01\x00\x00\x00.",
        b"]r\xff\xff\xff\x7f.",
        b"\x8d\x00\x00\x00\x00\x01\x00\x00\x00a.",
        b"cnumpy\ndtype\n(V4294967296\ntR.",
    ],
    ids=["bytearray", "BYTEARRAY8", "memo", "BINUNICODE8", "dtype"],
)
def test_a_few_bytes_that_ask_for_gigabytes_get_none(data: bytes) -> None:
    tracemalloc.start()
    try:
        with suppress(LayoutError):
            plain_pickle(data, "refs.p")
        assert tracemalloc.get_traced_memory()[1] < 10 * 2**20
    finally:
        tracemalloc.stop()


def test_a_class_that_is_no_plain_value_is_named() -> None:
    with pytest.raises(LayoutError, match=r"refs\.p wants collections\.OrderedDict"):
        plain_pickle(pickle.dumps(OrderedDict(a=1)), "refs.p")


@pytest.mark.parametrize(
    "data", [b"", b"no pickle", b"\x80\x02]q\x00(", pickle.dumps(REFS)[:-20], b"}]]s.", b"cbuiltins\nset\n(K\x01tR."]
)
def test_what_is_no_whole_pickle_names_its_file(data: bytes) -> None:
    with pytest.raises(LayoutError, match=r"/data/refs\.p is no whole pickle .* Take the file again"):
        plain_pickle(data, "/data/refs.p")
