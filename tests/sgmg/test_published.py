import argparse
import json
import os
import sys
import zipfile
from collections import Counter, OrderedDict
from dataclasses import replace
from datetime import datetime
from enum import Enum
from fractions import Fraction
from pathlib import Path, PosixPath
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from pack import recipe_weight
from sgmg.config import SgMgConfig
from sgmg.model import SgMg
from sgmg.plain_types import _enum_classes
from sgmg.published import load_kinetics, load_published, published_names

TINY = SgMgConfig.preset("tiny")
ALIAS = "transformer.decoder.bbox_embed.0.layers.0.bias"
INDEX = "backbone.0.body.layers.0.blocks.0.attn.relative_position_index"

Weights = dict[str, Tensor]


def published(model: SgMg) -> Weights:
    """The weights of the model as the authors' code saves them: aliases, derived entries, patches of one frame."""
    weights = model.state_dict()
    state = {theirs: weights[ours] for ours, theirs in published_names(model).items()}
    boxes = {name: weight for name, weight in state.items() if name.startswith("bbox_embed.")}
    if model.config.refine_boxes:
        state |= {f"transformer.decoder.{name}": weight for name, weight in boxes.items()}
    else:
        heads = {name: weight for name, weight in state.items() if name.startswith(("bbox_embed.0.", "class_embed.0."))}
        state |= {name.replace(".0.", ".1.", 1): weight for name, weight in heads.items()}
    patches = "backbone.0.body.patch_embed.proj.weight"
    return state | {
        patches: state[patches][:, :, None],
        INDEX: torch.zeros(392, 392, dtype=torch.int64),
        "text_encoder.text_backbone.embeddings.position_ids": torch.arange(514)[None],
        "backbone.0.total_ops": torch.zeros(1, dtype=torch.float64),
    }


def saved(path: Path, weights: Weights, backbone: str = "tiny") -> Path:
    """A file as the published training writes it."""
    schedule = {"milestones": Counter({3: 1, 5: 1}), "last_epoch": 5}
    arguments = argparse.Namespace(backbone=backbone, lr_drop=[3, 5], device="cuda")
    torch.save({"model": OrderedDict(weights), "lr_scheduler": schedule, "epoch": 5, "args": arguments}, path)
    return path


def same(one: SgMg, other: SgMg) -> bool:
    """All tensors, also those that no file holds."""
    pairs = [dict((*model.named_parameters(), *model.named_buffers())) for model in (one, other)]
    return pairs[0].keys() == pairs[1].keys() and all(tensor.equal(pairs[1][name]) for name, tensor in pairs[0].items())


def named_weights(parity_pack: Path, backbone: str) -> Weights:
    """All entries of that published checkpoint by name and shape, each of a single number: the file stays small."""
    entries = json.loads((parity_pack / "state_dict_keys.json").read_text())[backbone]["entries"]
    return {name: torch.zeros(1, dtype=getattr(torch, dtype)).expand(shape) for name, (shape, dtype) in entries.items()}


@pytest.fixture(scope="module")
def model() -> SgMg:
    model = SgMg(TINY)
    with torch.no_grad():
        for head in model.transformer.box_heads.parameters():  # new ones are the same in every layer
            head.add_(torch.rand_like(head))
    return model.eval()


@pytest.fixture
def weights(model: SgMg) -> Weights:
    return published(model)


def test_a_published_file_gives_the_model_it_was_made_of(model: SgMg, weights: Weights, tmp_path: Path) -> None:
    loaded = load_published(saved(tmp_path / "a.pth", weights))
    assert loaded.config == TINY
    assert not loaded.training
    assert same(loaded, model)


def test_the_preset_is_seen_from_weights_saved_alone_and_in_parallel(
    model: SgMg, weights: Weights, tmp_path: Path
) -> None:
    torch.save({f"module.{name}": weight for name, weight in weights.items()}, tmp_path / "bare.pth")
    loaded = load_published(tmp_path / "bare.pth")
    assert loaded.config == TINY
    assert same(loaded, model)


def test_a_file_of_the_old_kind_that_cannot_be_mapped_loads_too(model: SgMg, weights: Weights, tmp_path: Path) -> None:
    torch.save({"model": weights}, tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    assert same(load_published(tmp_path / "old.pth", TINY), model)


@pytest.mark.parametrize("option", ["refine_boxes", "relative_coordinates"])
def test_an_option_that_was_off_is_seen_from_the_weights(option: str, tmp_path: Path) -> None:
    model = SgMg(replace(TINY, **{option: False})).eval()
    if option == "relative_coordinates":
        torch.nn.init.normal_(next(model.class_heads.parameters()))
    path = saved(tmp_path / "a.pth", published(model))
    loaded = load_published(path)
    assert loaded.config == model.config
    assert same(loaded, model)
    assert same(load_published(path, model.config), model)


def test_heads_that_differ_do_not_load_as_one(weights: Weights, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"does not fit tiny.*: 8 unexpected \(bbox_embed\.1\.\S+, "):
        load_published(saved(tmp_path / "a.pth", weights), replace(TINY, refine_boxes=False))


def test_the_loaded_model_does_not_depend_on_the_file(model: SgMg, weights: Weights, tmp_path: Path) -> None:
    path = saved(tmp_path / "a.pth", weights)
    loaded = load_published(path)
    with path.open("r+b") as file:
        file.write(os.urandom(path.stat().st_size))
    assert same(loaded, model)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"class_embed.1.bias": None},
            r"does not fit tiny, the nearest preset: 1 missing \(class_embed.1.bias\)",
        ),
        ({"extra": torch.zeros(1)}, r"does not fit tiny, the nearest preset: 1 unexpected \(extra\)"),
        (
            {"query_embed.weight": torch.zeros(7, 64)},
            r"1 of another shape \(query_embed.weight is \(7, 64\), not \(5, 64\)",
        ),
        ({ALIAS: torch.zeros(64)}, f"contradicts itself: {ALIAS} differs from bbox_embed.0.layers.0.bias"),
    ],
)
def test_what_does_not_fit_is_said(change: dict[str, Any], message: str, weights: Weights, tmp_path: Path) -> None:
    changed = {name: weight for name, weight in (weights | change).items() if weight is not None}
    with pytest.raises(ValueError, match=message):
        load_published(saved(tmp_path / "a.pth", changed))


def test_a_file_of_another_preset_is_an_error_that_names_it(parity_pack: Path, tmp_path: Path) -> None:
    path = saved(tmp_path / "b.pth", named_weights(parity_pack, "swin_b_p4w7"), "swin_b_p4w7")
    with pytest.raises(
        ValueError, match=r"b\.pth does not fit video-swin-t, but is nearest to swin-b: \d+ missing \(.*\d+ unexpected"
    ):
        load_published(path, SgMgConfig.preset("video-swin-t"))


def test_a_published_video_swin_t_loads_every_number_in_its_place(parity_pack: Path, tmp_path: Path) -> None:
    weights = named_weights(parity_pack, "video_swin_t_p4w7")
    drawn = {
        name: torch.from_numpy(recipe_weight(name, tuple(weight.shape)))
        for name, weight in weights.items()
        if weight.is_floating_point() and not name.startswith("text_encoder.") and weight.numel() < 10**5
    }
    model = load_published(saved(tmp_path / "t.pth", weights | drawn, "video_swin_t_p4w7"))
    assert model.config == SgMgConfig.preset("video-swin-t")
    loaded = model.state_dict()
    for ours, theirs in published_names(model).items():
        wanted = drawn[theirs].flatten() if theirs in drawn else torch.zeros(loaded[ours].numel())
        assert loaded[ours].flatten().equal(wanted), ours
    assert torch.cat([weight.flatten() for weight in drawn.values()]).abs().sum() > 0


def test_text_named_pth_is_an_error_that_says_so(tmp_path: Path) -> None:
    (tmp_path / "a.pth").write_text("<html>Quota exceeded</html>")
    with pytest.raises(ValueError, match=r"a\.pth is not a file of torch\.save"):
        load_published(tmp_path / "a.pth")


def test_a_file_cut_short_is_an_error_that_says_so(weights: Weights, tmp_path: Path) -> None:
    path = saved(tmp_path / "a.pth", weights)
    os.truncate(path, 1_000_000)
    with pytest.raises(ValueError, match=r"a\.pth is cut short after 1000000 bytes. Download or copy it again"):
        load_published(path)


class Trap:
    """Makes a folder where it is unpickled by trust."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.folder),)


@pytest.mark.parametrize("zipped", [True, False])
def test_what_is_not_trusted_is_named_and_never_run(zipped: bool, tmp_path: Path) -> None:
    torch.save({"model": Trap(tmp_path / "sprung")}, tmp_path / "a.pth", _use_new_zipfile_serialization=zipped)
    with pytest.raises(ValueError, match=r"a\.pth asks for posix\.mkdir, which is not trusted"):
        load_published(tmp_path / "a.pth")
    assert not (tmp_path / "sprung").exists()
    torch.load(tmp_path / "a.pth", weights_only=False)
    assert (tmp_path / "sprung").exists()  # the trap would have worked


def test_a_harmless_class_is_not_trusted_either(weights: Weights, tmp_path: Path) -> None:
    torch.save({"model": weights, "args": argparse.Namespace(rate=Fraction(1, 3))}, tmp_path / "a.pth")
    with pytest.raises(ValueError, match=r"a\.pth asks for fractions\.Fraction, which is not trusted"):
        load_published(tmp_path / "a.pth")


class Optimizer(Enum):
    """As people have it in their configs."""

    ADAMW = "adamw"
    SGD = 2


def test_plain_values_that_people_save_beside_the_weights_are_read(
    model: SgMg, weights: Weights, tmp_path: Path
) -> None:
    args = argparse.Namespace(
        output_dir=tmp_path, lr=np.float64(1e-4), steps=np.int64(7), curve=np.arange(3.0), flag=np.bool_(True),
        optimizer=Optimizer.ADAMW, other=Optimizer.SGD, when=datetime(2024, 5, 6), dtype=np.dtype("f4"),
    )  # fmt: skip
    torch.save({"model": weights, "args": args}, tmp_path / "a.pth")
    assert same(load_published(tmp_path / "a.pth"), model)


def test_a_path_that_python_3_13_saved_is_read(
    model: SgMg, weights: Weights, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = type(sys)("pathlib._local")
    module.PosixPath = PosixPath  # pyright: ignore[reportAttributeAccessIssue]
    with monkeypatch.context() as changed:
        changed.setitem(sys.modules, "pathlib._local", module)
        changed.setattr(PosixPath, "__module__", "pathlib._local")
        torch.save({"model": weights, "args": argparse.Namespace(out=tmp_path)}, tmp_path / "a.pth")
    with zipfile.ZipFile(tmp_path / "a.pth") as archive:
        assert b"pathlib._local" in archive.read("a/data.pkl")
    assert same(load_published(tmp_path / "a.pth"), model)


def test_a_later_protocol_of_pickle_is_named(weights: Weights, tmp_path: Path) -> None:
    torch.save(weights, tmp_path / "a.pth", pickle_protocol=4)
    with pytest.raises(ValueError, match=r"a\.pth was saved with a pickle protocol above 2.*Save it again"):
        load_published(tmp_path / "a.pth")


def test_a_call_that_looks_like_an_enum_is_not_made(tmp_path: Path) -> None:
    torch.save({"model": Trap(tmp_path / "sprung")}, tmp_path / "a.pth")
    assert not list(_enum_classes(tmp_path / "a.pth")), "os.mkdir is called with one value, too"


def test_a_missing_file_is_an_error_that_says_where_to_get_it(tmp_path: Path) -> None:
    with pytest.raises(
        FileNotFoundError, match=r"no file .*a\.pth. Get it from the release page of the paper's authors"
    ):
        load_published(tmp_path / "a.pth")


def kinetics(model: SgMg) -> Weights:
    """The backbone as Video Swin's authors distribute it: patches of two frames, a classifier, a final norm."""
    old = {name: weight for name, weight in published(model).items() if name.startswith("backbone.0.body.")}
    state = {}
    for name, weight in old.items():
        parts = name.removeprefix("backbone.0.body.").split(".")
        if parts[0] == "downsamples":
            parts[:2] = ["layers", parts[1], "downsample"]
        state[f"backbone.{'.'.join(parts)}"] = weight
    patches = state["backbone.patch_embed.proj.weight"]
    state["backbone.patch_embed.proj.weight"] = torch.cat([0.25 * patches, 0.75 * patches], dim=2)
    return state | {"cls_head.fc_cls.bias": torch.zeros(400), "backbone.norm.weight": torch.ones(256)}


def test_a_kinetics_backbone_fills_the_backbone_and_nothing_else(model: SgMg, tmp_path: Path) -> None:
    torch.save({"meta": {"epoch": 30, "mmcv_version": "1.3"}, "state_dict": kinetics(model)}, tmp_path / "k.pth")
    new = SgMg(TINY)
    before = {name: weight.clone() for name, weight in new.state_dict().items()}
    load_kinetics(new, tmp_path / "k.pth")
    for name, weight in new.state_dict().items():
        wanted = model.state_dict()[name] if name.startswith("backbone.") else before[name]
        torch.testing.assert_close(weight, wanted, rtol=1e-6, atol=1e-7)


def test_a_kinetics_backbone_of_another_size_is_an_error_that_names_the_preset(model: SgMg, tmp_path: Path) -> None:
    torch.save({"state_dict": kinetics(model)}, tmp_path / "k.pth")
    small = replace(TINY, name="half", backbone=replace(TINY.backbone, dim=16))
    with pytest.raises(ValueError, match=r"k\.pth does not fit half, but is nearest to tiny: \d+ of another shape"):
        load_kinetics(SgMg(small), tmp_path / "k.pth")


def test_an_image_backbone_takes_no_kinetics_file(tmp_path: Path) -> None:
    image = replace(TINY, name="image", backbone=replace(TINY.backbone, video=False, window=(1, 7, 7)))
    with pytest.raises(ValueError, match=r"image has no Video Swin"):
        load_kinetics(SgMg(image), tmp_path / "k.pth")


def test_a_kinetics_file_is_no_checkpoint_and_the_error_says_which_way_to_go(model: SgMg, tmp_path: Path) -> None:
    torch.save({"meta": {}, "state_dict": kinetics(model)}, tmp_path / "k.pth")
    with pytest.raises(
        ValueError, match=r"k\.pth holds 'meta', 'state_dict', but no weights under 'model'.*load_kinetics"
    ):
        load_published(tmp_path / "k.pth")


def test_a_packed_file_which_could_unpack_to_any_size_is_refused(tmp_path: Path) -> None:
    torch.save({"model": {"a": torch.zeros(2)}}, tmp_path / "a.pth")
    with zipfile.ZipFile(tmp_path / "a.pth") as whole, zipfile.ZipFile(tmp_path / "b.pth", "w") as packed:
        for name in whole.namelist():
            packed.writestr(name, whole.read(name), zipfile.ZIP_DEFLATED)
    with pytest.raises(ValueError, match=r"b\.pth holds .*data\.pkl in compressed form, as torch\.save never writes"):
        load_published(tmp_path / "b.pth")
