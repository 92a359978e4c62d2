import pytest
import torch
from torch import Tensor

from sgmg._torchvision import make_torchvision_importable
from sgmg.config import TextConfig
from sgmg.roberta import PAD_ID, Roberta

make_torchvision_importable()  # transformers imports it

from transformers import RobertaConfig, RobertaModel  # noqa: E402

CONFIG = TextConfig(vocabulary=50, width=32, layers=3, heads=4, ffn=48, max_tokens=12, dropout=0.2)


def transformers_roberta() -> RobertaModel:
    config = RobertaConfig(
        vocab_size=CONFIG.vocabulary,
        hidden_size=CONFIG.width,
        num_hidden_layers=CONFIG.layers,
        num_attention_heads=CONFIG.heads,
        intermediate_size=CONFIG.ffn,
        hidden_dropout_prob=CONFIG.dropout,
        attention_probs_dropout_prob=CONFIG.dropout,
        max_position_embeddings=CONFIG.max_tokens + PAD_ID + 1,
        type_vocab_size=1,
        initializer_range=CONFIG.initial_std,
        pad_token_id=PAD_ID,
        layer_norm_eps=1e-5,
        attn_implementation="sdpa",  # pyright: ignore[reportCallIssue]  # every config takes it, none declares it
    )
    return RobertaModel(config, add_pooling_layer=True)


@pytest.fixture
def both() -> tuple[Roberta, RobertaModel]:
    """Ours and that of transformers, made with the same draws."""
    ours = Roberta(CONFIG)
    torch.manual_seed(0)
    return ours, transformers_roberta()


def test_names_shapes_and_initial_weights_are_those_of_transformers(both: tuple[Roberta, RobertaModel]) -> None:
    ours, theirs = (model.state_dict() for model in both)
    assert list(ours) == list(theirs)
    assert all(torch.equal(weight, theirs[name]) for name, weight in ours.items())


@pytest.mark.parametrize(
    "token_ids",
    [
        pytest.param(torch.tensor([[0, 7, 8, 9, 2]]), id="one sentence"),
        pytest.param(torch.tensor([[0, *range(n, n + 7), 2] for n in range(3, 31, 7)]), id="several of one length"),
        pytest.param(torch.tensor([[0, 7, 8, 9, 2], [0, 7, 2, PAD_ID, PAD_ID]]), id="of two lengths"),
        pytest.param(torch.tensor([[0, *range(3, 13), 2]]), id="as long as there are positions"),
    ],
)
@pytest.mark.parametrize("training", [False, True])
def test_results_and_gradients_are_those_of_transformers_bit_by_bit(
    both: tuple[Roberta, RobertaModel], token_ids: Tensor, training: bool
) -> None:
    padding = token_ids == PAD_ID
    found: list[tuple[Tensor, ...]] = []
    for model in both:
        model.train(training)
        torch.manual_seed(1)  # dropout draws alike
        if isinstance(model, Roberta):
            hidden, pooled = model(token_ids, padding)
        else:
            output = model(input_ids=token_ids, attention_mask=(~padding).long())
            hidden, pooled = output.last_hidden_state, output.pooler_output
        (hidden[~padding].square().sum() + pooled.sum()).backward()
        gradients = [parameter.grad for parameter in model.parameters()]
        found.append((hidden[~padding], pooled, *(one for one in gradients if one is not None)))
    assert len(found[0]) == 2 + len(list(both[0].parameters()))
    for ours, theirs in zip(*found, strict=True):
        assert torch.equal(ours, theirs)
