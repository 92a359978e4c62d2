"""Backbones learned on ImageNet, as their authors' files hold them; those of Kinetics: test_published.py."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from sgmg.backbone_weights import load_backbone
from sgmg.config import SgMgConfig, SwinConfig
from sgmg.model import SgMg
from sgmg.published import published_names

SMALL = SgMgConfig.preset("tiny")
SWIN = replace(
    SMALL, name="a 2-d swin", backbone=SwinConfig(32, (2, 2, 2, 2), (1, 2, 4, 8), video=False, window=(1, 7, 7))
)
RESNET = replace(SMALL, name="resnet50", backbone=SgMgConfig.preset("resnet50").backbone)
AUTHORS = published_names(SgMg(SWIN))


@pytest.fixture(scope="module")
def resnet() -> SgMg:
    return SgMg(RESNET)


@pytest.fixture(scope="module")
def resnet_file(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Tensor]]:
    """What timm's file of resnet50 holds, classifier and counters of batch norm included."""
    import timm  # takes seconds

    weights = timm.create_model("resnet50").state_dict()
    path = tmp_path_factory.mktemp("resnet") / "model.safetensors"
    save_file(weights, path)
    return path, weights


def test_a_resnet_takes_all_of_timms_file_but_the_classifier(
    resnet: SgMg, resnet_file: tuple[Path, dict[str, Tensor]]
) -> None:
    path, weights = resnet_file
    before = {name: weight.clone() for name, weight in resnet.state_dict().items() if not name.startswith("backbone.")}
    load_backbone(resnet, path)
    after = resnet.state_dict()
    loaded = {name.removeprefix("backbone.body."): w for name, w in after.items() if name.startswith("backbone.")}
    assert loaded
    assert all(weight.equal(weights[name]) for name, weight in loaded.items())
    assert all(after[name].equal(weight) for name, weight in before.items())


def test_a_swin_takes_its_authors_file_and_keeps_the_norms_of_its_outputs(tmp_path: Path) -> None:
    giver, taker = SgMg(SWIN), SgMg(SWIN)
    with torch.no_grad():
        for name, weight in taker.backbone.named_parameters():
            if name.startswith("norms."):
                weight.fill_(7)
    file = {_authors_name(name): weight for name, weight in giver.backbone.state_dict().items()}
    file = {name: weight for name, weight in file.items() if not name.startswith("norm")}
    extra = {
        "norm.weight": torch.ones(256),
        "head.bias": torch.zeros(1000),
        "layers.0.blocks.1.attn_mask": torch.ones(4),
    }
    torch.save({"model": file | extra}, tmp_path / "swin.pth")
    load_backbone(taker, tmp_path / "swin.pth")
    given = giver.backbone.state_dict()
    norms = {name for name in given if name.startswith("norms.")}
    assert len(norms) == 8
    for name, weight in taker.backbone.state_dict().items():
        assert (weight == 7).all() if name in norms else weight.equal(given[name]), name


def _authors_name(name: str) -> str:
    """Of a weight of the backbone, in the files of Swin's authors."""
    return AUTHORS[f"backbone.{name}"].removeprefix("backbone.0.body.")


def test_a_file_of_another_backbone_is_refused(
    resnet_file: tuple[Path, dict[str, Tensor]], tmp_path: Path, resnet: SgMg
) -> None:
    with pytest.raises(ValueError, match=r"does not fit the backbone of a 2-d swin: .*Get the file of that backbone"):
        load_backbone(SgMg(SWIN), resnet_file[0])
    (tmp_path / "cut.safetensors").write_bytes(resnet_file[0].read_bytes()[:1000])
    with pytest.raises(ValueError, match=r"cut.safetensors is damaged or cut short"):
        load_backbone(resnet, tmp_path / "cut.safetensors")


def test_a_missing_file_says_where_to_get_it(resnet: SgMg, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"nothing\.safetensors.*tv_in1k"):
        load_backbone(resnet, tmp_path / "nothing.safetensors")
