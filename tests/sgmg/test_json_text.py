"""JSON of others: whatever is wrong with it is one kind of error."""

import json

import pytest

from sgmg.json_text import MAX_NESTING, parse_json


def test_what_is_json_is_read_as_json_reads_it() -> None:
    for text in ('{"a": [1, 2.5, null, "é]"]}', b'\xef\xbb\xbf{"a": 1}', "[]", "7", json.dumps({"a": "[" * 5000})):
        assert parse_json(text) == json.loads(text)
    assert parse_json('{"a": 1, "a": 2}', object_pairs_hook=list) == [("a", 1), ("a", 2)]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "Expecting value"),
        (b'{"a": "\xff"}', "is not utf-8"),
        ("[" * 200_000 + "]" * 200_000, "lists or objects in one another"),
        ('{"a":' * 200_000 + "1" + "}" * 200_000, "lists or objects in one another"),
        ('["' + "]" * 200_000 + '", ' + "[" * 200_000 + "]" * 200_000 + "]", "lists or objects in one another"),
        ("9" * 5000, "thousands of digits"),
    ],
)
def test_whatever_is_wrong_with_it_is_one_kind_of_error(text: str | bytes, said: str) -> None:
    with pytest.raises(json.JSONDecodeError, match=said):
        parse_json(text)


def test_the_deepest_that_is_read_is_as_deep_as_promised() -> None:
    assert parse_json("[" * MAX_NESTING + "]" * MAX_NESTING)
    with pytest.raises(json.JSONDecodeError, match="in one another"):
        parse_json("[" * (MAX_NESTING + 1) + "]" * (MAX_NESTING + 1))
