import pytest
import torch
from torch import Tensor

from sgmg.config import TextConfig
from sgmg.positions import word_positions
from sgmg.text import TextEncoder

CONFIG = TextConfig(vocabulary=50, width=16, layers=2, heads=2, ffn=32, max_tokens=12, dropout=0.5)


@pytest.fixture
def encoder() -> TextEncoder:
    return TextEncoder(CONFIG, width=32, dropout=0.5)


@pytest.fixture
def token_ids() -> Tensor:
    return torch.tensor([[0, 7, 8, 9, 2], [0, 7, 2, 1, 1]])


@pytest.fixture
def padding(token_ids: Tensor) -> Tensor:
    return token_ids == 1


def test_words_and_sentence_come_at_the_width_of_the_model(
    encoder: TextEncoder, token_ids: Tensor, padding: Tensor
) -> None:
    features = encoder(token_ids, padding)
    assert features.words.shape == features.positions.shape == (2, 5, 32)
    assert features.sentence_feature.shape == (2, 32)
    assert torch.equal(features.padding, padding)
    assert torch.equal(features.positions, word_positions(padding, 32))


@pytest.mark.usefixtures("in_float64")
def test_padding_an_expression_does_not_change_it(encoder: TextEncoder, token_ids: Tensor, padding: Tensor) -> None:
    encoder.eval()
    batched = encoder(token_ids, padding)
    alone = encoder(token_ids[1:, :3], padding[1:, :3])
    torch.testing.assert_close(batched.words[1:, :3], alone.words)
    torch.testing.assert_close(batched.sentence_feature[1:], alone.sentence_feature)


def test_the_words_read_one_another(encoder: TextEncoder, token_ids: Tensor, padding: Tensor) -> None:
    encoder.eval()
    other = token_ids.clone()
    other[0, 3] = 30
    assert not torch.allclose(encoder(token_ids, padding).words[0, 1], encoder(other, padding).words[0, 1], atol=1e-4)


def test_resizing_what_was_embedded_is_the_whole_encoder(
    encoder: TextEncoder, token_ids: Tensor, padding: Tensor
) -> None:
    encoder.eval()
    whole = encoder(token_ids, padding)
    parts = encoder.resize(*encoder.embed(token_ids, padding), padding)
    assert torch.equal(whole.words, parts.words)
    assert torch.equal(whole.sentence_feature, parts.sentence_feature)


def test_unfrozen_everything_learns_and_dropout_is_on(encoder: TextEncoder, token_ids: Tensor, padding: Tensor) -> None:
    encoder.train()
    features = encoder(token_ids, padding)
    (features.words.square().sum() + features.sentence_feature.square().sum()).backward()
    assert all(parameter.grad is not None for parameter in encoder.parameters())
    assert not torch.equal(encoder.embed(token_ids, padding)[0], encoder.embed(token_ids, padding)[0])


def test_frozen_only_the_resizers_learn(encoder: TextEncoder, token_ids: Tensor, padding: Tensor) -> None:
    features = encoder.freeze()(token_ids, padding)
    (features.words.square().sum() + features.sentence_feature.square().sum()).backward()
    learned = {name.split(".")[0] for name, parameter in encoder.named_parameters() if parameter.grad is not None}
    assert learned == {"word_resizer", "sentence_resizer"}
    assert {name.split(".")[0] for name, parameter in encoder.named_parameters() if parameter.requires_grad} == learned


def test_frozen_roberta_has_no_dropout_whatever_train_is_called_with(
    encoder: TextEncoder, token_ids: Tensor, padding: Tensor
) -> None:
    encoder.eval()
    expected, _ = encoder.embed(token_ids, padding)
    encoder.freeze()
    for _ in range(2):
        encoder.train()
        assert torch.equal(encoder.embed(token_ids, padding)[0], expected)
    assert encoder.training
    assert encoder.word_resizer.dropout.training


def test_what_a_frozen_encoder_embeds_carries_no_gradient(
    encoder: TextEncoder, token_ids: Tensor, padding: Tensor
) -> None:
    assert all(feature.requires_grad for feature in encoder.embed(token_ids, padding))
    assert not any(feature.requires_grad for feature in encoder.freeze().embed(token_ids, padding))
    assert torch.is_grad_enabled()


@pytest.mark.parametrize("dtypes", [(torch.float64,), (torch.float64, torch.float32), (torch.bfloat16, torch.float32)])
def test_what_a_frozen_encoder_remembers_follows_the_number_type_of_its_weights(
    encoder: TextEncoder, token_ids: Tensor, padding: Tensor, dtypes: tuple[torch.dtype, ...]
) -> None:
    forgetful = TextEncoder(CONFIG, width=32, dropout=0.5)
    forgetful.load_state_dict(encoder.state_dict())
    forgetful.freeze().eval()
    encoder.freeze(keep=8).eval()
    encoder(token_ids[:1], padding[:1])  # the other sentence is new after the first change
    for dtype in dtypes:
        found = encoder.to(dtype)(token_ids, padding)
        wanted = forgetful.to(dtype)(token_ids, padding)
        assert found.words.dtype == found.sentence_feature.dtype == dtype
        rounding = 0.1 if dtype == torch.bfloat16 else 1e-5
        torch.testing.assert_close(found.words[~padding], wanted.words[~padding], rtol=0, atol=rounding)
        torch.testing.assert_close(found.sentence_feature, wanted.sentence_feature, rtol=0, atol=rounding)


def test_a_frozen_encoder_remembers_across_a_move_to_where_it_is(
    encoder: TextEncoder, token_ids: Tensor, padding: Tensor
) -> None:
    encoder.freeze(keep=8).eval()
    encoder(token_ids, padding)
    calls: list[int] = []
    encoder.roberta.register_forward_hook(lambda *_: calls.append(1))
    encoder.to("cpu", torch.float32)(token_ids, padding)
    assert not calls


@pytest.mark.parametrize("word", [50, -1])
def test_a_word_outside_the_vocabulary_is_named_with_its_place(
    word: int, encoder: TextEncoder, token_ids: Tensor, padding: Tensor
) -> None:
    token_ids[1, 2] = word
    with pytest.raises(ValueError, match=f"Word id {word} of expression 1, word 2, is outside 0 to 49"):
        encoder(token_ids, padding)


def test_an_expression_of_nothing_but_padding_is_an_error(encoder: TextEncoder, token_ids: Tensor) -> None:
    with pytest.raises(ValueError, match="Expression 1 of 2 is nothing but padding"):
        encoder(token_ids, torch.tensor([[False], [True]]).expand(2, 5))


def test_padding_of_another_shape_is_an_error(encoder: TextEncoder, token_ids: Tensor, padding: Tensor) -> None:
    with pytest.raises((ValueError, TypeError)):  # the latter from jaxtyping, where the tests switch it on
        encoder.embed(token_ids, padding[:, 1:])


def test_the_longest_expression_fits_and_one_more_word_is_an_error(encoder: TextEncoder) -> None:
    token_ids = torch.full((1, 13), 7)
    encoder(token_ids[:, :12], torch.zeros(1, 12, dtype=torch.bool))
    with pytest.raises(ValueError, match="Expressions of 13 tokens exceed the 12"):
        encoder(token_ids, torch.zeros(1, 13, dtype=torch.bool))


def test_the_default_sizes_are_those_of_roberta_base() -> None:
    with torch.device("meta"):
        encoder = TextEncoder(TextConfig(), width=256, dropout=0.1)
    assert sum(parameter.numel() for parameter in encoder.roberta.parameters()) == 124_645_632
