"""The whole way a user of the published checkpoints goes: a .pth file, a tokenizer folder, frames, masks."""

import argparse
from pathlib import Path

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer as Backend
from tokenizers import models, pre_tokenizers, processors

from model_cases import config_of, published_model
from pack import cases
from sgmg.published import published_names
from sgmg.segmenter import Segmenter
from sgmg.tokenizer import Tokenizer


def word_level(ids: list[int], folder: Path) -> str:
    """Writes a tokenizer that knows one word an id, and gives the sentence that becomes these ids."""
    begin, *inner, end = ids
    words = {f"word{index}": id for index, id in enumerate(dict.fromkeys(inner))}
    backend = Backend(models.WordLevel({"<s>": begin, "<pad>": 1, "</s>": end, **words}, unk_token="<pad>"))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    backend.post_processor = processors.BertProcessing(("</s>", end), ("<s>", begin))
    backend.save(str(folder / "tokenizer.json"))
    names = {id: word for word, id in words.items()}
    return " ".join(names[id] for id in inner)


@pytest.mark.slow
@pytest.mark.xdist_group("model")
def test_a_published_file_gives_the_published_masks(parity_pack: Path, tmp_path: Path) -> None:
    case = cases(parity_pack)["pipeline_ytvos"]()
    model = published_model(config_of(case), case.salt)
    state = {theirs: model.state_dict()[ours] for ours, theirs in published_names(model).items()}
    patches = "backbone.0.body.patch_embed.proj.weight"
    state[patches] = state[patches][:, :, None]  # as published: a convolution over one frame
    torch.save({"model": state, "args": argparse.Namespace(backbone=case.params["backbone"])}, tmp_path / "ytvos.pth")
    sentence = word_level(case.inputs["input_ids"][0].tolist(), tmp_path)
    words, _ = Tokenizer.from_folder(tmp_path)([sentence])
    assert words.tolist() == case.inputs["input_ids"].tolist()

    # "auto" would be bfloat16 on a processor that is fast in it; the published masks were made in float32.
    segmenter = Segmenter.from_checkpoint(tmp_path / "ytvos.pth", tokenizer=tmp_path, device="cpu", precision="float32")
    found = segmenter(case.inputs["images"], [sentence])

    wrong = (found.masks[0] != (case.expected["png"] > 0)).sum()
    assert wrong <= case.meta["outputs"]["png"].get("max_mismatch", 0)
    assert np.all((found.scores > 0) & (found.scores < 1))
