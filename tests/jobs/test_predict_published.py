"""From frames to masks through the real job: a published checkpoint gives what the published inference gave."""

import argparse
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer as Backend
from tokenizers import models, pre_tokenizers, processors

from jobs.predict import PredictConfig, main
from model_cases import config_of, published_model
from pack import Case, cases
from pipelines.errors import Exit
from pipelines.files import Folder
from pipelines.images import object_map
from pipelines.prediction_reader import iter_predictions
from pipelines.records import Expression, Record
from prepared_data import a_record, png, prepared_folder
from sgmg.masks import rles_to_masks
from sgmg.published import published_names
from sgmg.tokenizer import Tokenizer

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("ray_local")]

Run = Callable[[Case, str], Folder]


def sentences_of(case: Case, folder: Path) -> list[str]:
    """Writes a tokenizer that knows one word an id, and gives the sentences that become the case's ids."""
    rows = [ids[mask == 1].tolist() for ids, mask in zip(*_words(case), strict=True)]
    begin, end = rows[0][0], rows[0][-1]
    words = {f"word{id}": id for row in rows for id in row[1:-1]}
    backend = Backend(models.WordLevel({"<s>": begin, "<pad>": 1, "</s>": end, **words}, unk_token="<pad>"))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    backend.post_processor = processors.BertProcessing(("</s>", end), ("<s>", begin))
    backend.save(str(folder / "tokenizer.json"))
    sentences = [" ".join(f"word{id}" for id in row[1:-1]) for row in rows]
    assert Tokenizer.from_folder(folder)(sentences)[0].tolist() == case.inputs["input_ids"].tolist()
    return sentences


def _words(case: Case) -> tuple[np.ndarray, np.ndarray]:
    return case.inputs["input_ids"], case.inputs["attention_mask"]


def published_file(case: Case, path: Path) -> Path:
    """The weights of the case, as its authors publish theirs."""
    model = published_model(config_of(case), case.salt)
    state = {theirs: model.state_dict()[ours] for ours, theirs in published_names(model).items()}
    patches = "backbone.0.body.patch_embed.proj.weight"
    state[patches] = state[patches][:, :, None]
    torch.save({"model": state, "args": argparse.Namespace(backbone=case.params["backbone"])}, path)
    return path


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Runs the job on the frames and sentences of a case, each sentence about an object of its own."""

    def run(case: Case, dataset: str) -> Folder:
        images = case.inputs["images"]
        expressions = tuple(
            Expression(str(4 * number), text, annotator=0) for number, text in enumerate(sentences_of(case, tmp_path))
        )
        record: Record = replace(
            a_record(case.id, t=len(images), dataset=dataset),
            frames=tuple(png(image) for image in images),
            expressions=expressions,
            **{f"{which}height": images.shape[1] for which in ("", "original_")},
            **{f"{which}width": images.shape[2] for which in ("", "original_")},
        )
        config = PredictConfig(
            data=str(prepared_folder(tmp_path / "data", [record])),
            checkpoint=str(published_file(case, tmp_path / "published.pth")),
            out=str(tmp_path / "out"),
            tokenizer=str(tmp_path),
            window=case.params.get("crop_len"),
            precision="float32",  # as the published masks were made; "auto" may be bfloat16
        )
        assert main(config) == Exit.CLEAN
        return Folder(config.out)

    return run


def test_ref_youtube_vos(parity_pack: Path, run: Run) -> None:
    case = cases(parity_pack)["pipeline_ytvos"]()
    (found,) = iter_predictions(run(case, "ref-youtube-vos"))
    masks, wanted = rles_to_masks(found.queries[0].rle, (found.height, found.width)), case.expected["png"] > 0
    assert (masks == wanted).mean() >= 0.9999
    assert all((one & other).sum() >= 0.999 * (one | other).sum() for one, other in zip(masks, wanted, strict=True))


def test_ref_davis(parity_pack: Path, run: Run) -> None:
    case = cases(parity_pack)["pipeline_davis"]()
    first, second = iter_predictions(run(case, "ref-davis17"))
    assert second.merged is None
    assert first.merged is not None
    maps, wanted = np.stack([object_map(data) for data in first.merged]), case.expected["index_map"]
    assert (maps == wanted).mean() >= 0.9999
    for number in (0, 1, 2):
        one, other = maps == number, wanted == number
        assert (one & other).sum() >= 0.999 * (one | other).sum()
