import json
import pickle
import re
from pathlib import Path

import pytest
import tokenizers
from transformers import RobertaTokenizer

from sgmg.expressions import normalize_expression
from sgmg.tokenizer import Tokenizer

SENTENCES = ["a man in a red shirt", "the red car on the left", "a red ball", "the man with the ball"] * 3


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer.train(SENTENCES, vocabulary=320)


def write_roberta_files(folder: Path, tokenizer: Tokenizer) -> None:
    """The vocabulary and merges of a tokenizer as roberta-base distributes them, `<mask>` included."""
    model = json.loads(tokenizer.to_json())["model"]
    vocabulary = {**model["vocab"], "<mask>": len(model["vocab"])}
    (folder / "vocab.json").write_text(json.dumps(vocabulary))
    merges = [" ".join(pair) for pair in model["merges"]]
    (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *merges]))


def word_level(**settings: object) -> tokenizers.Tokenizer:
    vocabulary = {"[UNK]": 0, "red": 1, "car": 2, "[PAD]": 3, **settings}
    backend = tokenizers.Tokenizer(tokenizers.models.WordLevel(vocabulary, unk_token="[UNK]"))
    backend.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    return backend


def test_case_and_white_space_do_not_matter(tokenizer: Tokenizer) -> None:
    token_ids, _ = tokenizer(["  The RED\tcar\non the  left ", "the red car on the left"])
    assert token_ids[0].tolist() == token_ids[1].tolist()


@pytest.mark.parametrize("text", ["", "  ", "\n\t"])
def test_an_empty_expression_is_an_error_that_shows_it(text: str, tokenizer: Tokenizer) -> None:
    with pytest.raises(ValueError, match=f"The expression {re.escape(repr(text))} is empty"):
        normalize_expression(text)
    with pytest.raises(ValueError, match="is empty"):
        tokenizer(["a man", text])


def test_begin_and_end_surround_the_words_and_the_shorter_one_is_padded(tokenizer: Tokenizer) -> None:
    token_ids, padding = tokenizer(["red", "a man in a red shirt"])
    begin, pad, end = 0, 1, 2
    last = int((~padding[0]).sum()) - 1
    assert token_ids[0, 0] == token_ids[1, 0] == begin
    assert token_ids[0, last] == token_ids[1, -1] == end
    assert (token_ids[0, last + 1 :] == pad).all()
    assert padding[0].tolist() == [place > last for place in range(token_ids.shape[1])]
    assert not padding[1].any()


def test_special_tokens_have_the_ids_of_roberta(tokenizer: Tokenizer) -> None:
    vocabulary = json.loads(tokenizer.to_json())["model"]["vocab"]
    assert [vocabulary[token] for token in ("<s>", "<pad>", "</s>", "<unk>")] == [0, 1, 2, 3]


def test_any_character_has_words_and_survives_the_round_trip(tokenizer: Tokenizer) -> None:
    token_ids, _ = tokenizer(["черный 猫 \N{CAT FACE} naïve"])
    backend = tokenizers.Tokenizer.from_str(tokenizer.to_json())
    assert backend.decode(token_ids[0].tolist()) == "черный 猫 \N{CAT FACE} naïve"


def test_training_learns_words_seen_often_and_keeps_to_the_vocabulary_asked_for(tokenizer: Tokenizer) -> None:
    token_ids, _ = tokenizer(["the red"])
    assert token_ids.shape[1] == 4, "begin, the, red, end"
    assert 260 < tokenizer.vocabulary <= 320


def test_the_order_of_sentences_does_not_change_what_is_learned(tokenizer: Tokenizer) -> None:
    assert Tokenizer.train(iter(SENTENCES[::-1]), vocabulary=320) == tokenizer


def test_other_sentences_give_another_tokenizer(tokenizer: Tokenizer) -> None:
    other = Tokenizer.train(["two dogs", "two dogs"], vocabulary=320)
    assert other != tokenizer
    assert other.fingerprint != tokenizer.fingerprint


def test_training_on_nothing_is_an_error() -> None:
    with pytest.raises(ValueError, match="no sentence to train"):
        Tokenizer.train([])


def test_a_vocabulary_without_room_for_every_byte_is_an_error() -> None:
    with pytest.raises(ValueError, match=r"vocabulary=200 is too small.*260"):
        Tokenizer.train(SENTENCES, vocabulary=200)


def test_600_words_are_refused_by_name_and_never_cut(tokenizer: Tokenizer) -> None:
    sentence = " ".join(["the red"] * 300)
    with pytest.raises(ValueError, match=r"'the red the.*600 words and 602 tokens.*at most 512"):
        tokenizer(["a man", sentence])
    token_ids, _ = tokenizer([sentence], max_tokens=602)
    assert token_ids.shape == (1, 602)


def test_no_expression_is_an_error(tokenizer: Tokenizer) -> None:
    with pytest.raises(ValueError, match="no expression"):
        tokenizer([])


def test_a_single_string_is_not_taken_for_a_list_of_letters(tokenizer: Tokenizer) -> None:
    with pytest.raises(TypeError, match="not the single string 'a man'"):
        tokenizer("a man")


def test_saving_json_and_pickling_all_give_an_equal_tokenizer_back(tokenizer: Tokenizer, tmp_path: Path) -> None:
    tokenizer.save(tmp_path / "new")
    copies = [
        Tokenizer.from_folder(tmp_path / "new"),
        Tokenizer.from_json(tokenizer.to_json()),
        pickle.loads(pickle.dumps(tokenizer)),
    ]
    assert all(copy == tokenizer for copy in copies)
    assert {tokenizer, *copies} == {tokenizer}


def test_text_that_is_no_tokenizer_is_an_error_that_shows_it() -> None:
    with pytest.raises(ValueError, match="not the JSON of a tokenizer: '<html>'"):
        Tokenizer.from_json("<html>")


def test_a_broken_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(ValueError, match=re.escape(str(tmp_path / "tokenizer.json"))):
        Tokenizer.from_folder(tmp_path)


def test_vocabulary_and_merges_give_the_words_of_transformers(tokenizer: Tokenizer, tmp_path: Path) -> None:
    write_roberta_files(tmp_path, tokenizer)
    theirs = RobertaTokenizer.from_pretrained(tmp_path)
    expressions = ["the man  with a balloon", "a </s> car", "zebra, 3 o'clock!"]
    token_ids, padding = Tokenizer.from_folder(tmp_path)(expressions)
    expected = theirs([normalize_expression(text) for text in expressions], padding=True)
    assert token_ids.tolist() == expected["input_ids"]
    assert (~padding).int().tolist() == expected["attention_mask"]


def test_tokenizer_json_is_preferred_to_vocabulary_and_merges(tokenizer: Tokenizer, tmp_path: Path) -> None:
    write_roberta_files(tmp_path, Tokenizer.train(["two dogs"], vocabulary=300))
    tokenizer.save(tmp_path)
    assert Tokenizer.from_folder(tmp_path) == tokenizer


def test_a_vocabulary_without_special_tokens_is_an_error_that_names_them(tmp_path: Path) -> None:
    (tmp_path / "vocab.json").write_text(json.dumps({"a": 0, "<s>": 1}))
    (tmp_path / "merges.txt").write_text("#version: 0.2\n")
    with pytest.raises(ValueError, match="lacks <pad>, </s>, <unk>"):
        Tokenizer.from_folder(tmp_path)


def test_a_word_level_tokenizer_is_padded_as_its_settings_say() -> None:
    backend = word_level()
    backend.enable_padding(direction="left", pad_id=3, pad_token="[PAD]")
    token_ids, padding = Tokenizer.from_json(backend.to_str())(["red", "red car blue"])
    assert token_ids.tolist() == [[1, 3, 3], [1, 2, 0]]
    assert padding.tolist() == [[False, True, True], [False, False, False]]


def test_the_pad_token_comes_before_the_settings_and_one_is_the_last_resort() -> None:
    backend = word_level(**{"<pad>": 4})
    backend.enable_padding(pad_id=3, pad_token="[PAD]")
    assert Tokenizer(backend).pad == 4
    assert Tokenizer(word_level()).pad == 1


def test_a_tokenizer_that_would_cut_does_not() -> None:
    backend = word_level()
    backend.enable_truncation(max_length=2)
    token_ids, _ = Tokenizer.from_json(backend.to_str())(["red car red car"])
    assert token_ids.tolist() == [[1, 2, 1, 2]]


def test_an_expression_without_a_known_word_is_an_error() -> None:
    backend = tokenizers.Tokenizer(tokenizers.models.BPE({"a": 0}, []))
    with pytest.raises(ValueError, match="'xyz' has no token"):
        Tokenizer(backend)(["a", "xyz"])


@pytest.mark.usefixtures("as_users_run_it")
def test_what_is_no_text_is_named() -> None:
    with pytest.raises(TypeError, match="Expression 1 is None, a NoneType"):
        Tokenizer.train(["the red car"])(["the car", None])  # pyright: ignore[reportArgumentType]
