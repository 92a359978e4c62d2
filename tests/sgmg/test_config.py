import dataclasses
import json

import pytest

from sgmg.config import PRESETS, ResNetConfig, SgMgConfig, SwinConfig, TextConfig

TINY = SgMgConfig.preset("tiny")


@pytest.mark.parametrize(
    ("name", "channels"),
    [
        ("video-swin-t", (96, 192, 384, 768)),
        ("video-swin-s", (96, 192, 384, 768)),
        ("video-swin-b", (128, 256, 512, 1024)),
        ("resnet50", (256, 512, 1024, 2048)),
        ("resnet101", (256, 512, 1024, 2048)),
        ("swin-t", (96, 192, 384, 768)),
        ("swin-s", (96, 192, 384, 768)),
        ("swin-b", (128, 256, 512, 1024)),
        ("swin-l", (192, 384, 768, 1536)),
        ("tiny", (32, 64, 128, 256)),
    ],
)
def test_every_published_model_has_a_preset_of_its_name(name: str, channels: tuple[int, ...]) -> None:
    config = SgMgConfig.preset(name)
    assert config.name == name
    assert config.backbone.channels == channels


def test_an_unknown_preset_is_answered_with_the_choices() -> None:
    with pytest.raises(ValueError, match="video-swin-x") as error:
        SgMgConfig.preset("video-swin-x")
    assert all(name in str(error.value) for name in PRESETS)


@pytest.mark.parametrize("name", PRESETS)
def test_a_config_survives_the_round_trip_through_json(name: str) -> None:
    config = dataclasses.replace(SgMgConfig.preset(name), queries=7, refine_boxes=False)
    assert SgMgConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config


def test_a_saved_config_with_an_unknown_field_is_refused_by_its_name() -> None:
    with pytest.raises(ValueError, match="SgMgConfig has no field quries"):
        SgMgConfig.from_dict(TINY.to_dict() | {"quries": 5})
    with pytest.raises(ValueError, match="TextConfig has no field depth"):
        SgMgConfig.from_dict(TINY.to_dict() | {"text": {"depth": 12}})


@pytest.mark.parametrize("missing", ["name", "backbone", "text"])
def test_a_saved_config_that_lacks_a_field_is_refused_by_its_name(missing: str) -> None:
    values = TINY.to_dict()
    del values[missing]
    with pytest.raises(ValueError, match=missing):
        SgMgConfig.from_dict(values)


def test_a_saved_backbone_of_unknown_kind_is_refused() -> None:
    values = TINY.to_dict()
    values["backbone"]["kind"] = "vit"
    with pytest.raises(ValueError, match="Unknown backbone kind 'vit'"):
        SgMgConfig.from_dict(values)


@pytest.mark.parametrize(
    ("field", "value"),
    [("width", 100), ("queries", 0), ("points", -1), ("encoder_layers", 0), ("decoder_layers", 0), ("dropout", 1.0)],
)
def test_a_value_that_no_model_can_have_is_refused_at_birth(field: str, value: float) -> None:
    with pytest.raises(ValueError, match=f"{field}={value}"):
        dataclasses.replace(TINY, **{field: value})


def test_a_backbone_or_text_encoder_that_cannot_be_built_is_refused_at_birth() -> None:
    swin = TINY.backbone
    assert isinstance(swin, SwinConfig)
    with pytest.raises(ValueError, match=r"depths=\(2, 2, 2\)"):
        dataclasses.replace(swin, depths=(2, 2, 2))
    with pytest.raises(ValueError, match="Stage 1 has 64 channels, which 3 heads"):
        dataclasses.replace(swin, heads=(1, 3, 4, 8))
    with pytest.raises(ValueError, match=r"drop_path=-0\.1"):
        dataclasses.replace(swin, drop_path=-0.1)
    # A TypeError where the tests' own type checks speak before we do.
    with pytest.raises((ValueError, TypeError), match="resnet18"):
        ResNetConfig("resnet18")  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match="Text width 100 cannot be shared by 12 heads"):
        TextConfig(width=100)


@pytest.mark.usefixtures("as_users_run_it")
@pytest.mark.parametrize("value", [2**63, 65, 0, -1, "4", 4.0, True, None, [4], float("nan")])
def test_a_saved_number_of_layers_is_a_whole_number_that_a_model_can_have(value: object) -> None:
    with pytest.raises(ValueError, match=r"SgMgConfig\.decoder_layers=.* must be a whole number from 1 to 64"):
        SgMgConfig.from_dict(TINY.to_dict() | {"decoder_layers": value})


@pytest.mark.usefixtures("as_users_run_it")
@pytest.mark.parametrize(
    ("part", "key", "value"),
    [
        ("", "name", 5),
        ("", "dropout", float("nan")),
        ("", "dropout", "0.1"),
        ("", "refine_boxes", 1),
        ("", "heads", 0),
        ("text", "vocabulary", 2**40),
        ("text", "heads", 0),
        ("text", "initial_std", float("inf")),
        ("backbone", "depths", [2, 2, 2]),
        ("backbone", "depths", [2, 2, 2, 2**63]),
        ("backbone", "heads", [1, 2, 4, 0]),
        ("backbone", "window", [8, 700, 700]),
        ("backbone", "window", "878"),
        ("backbone", "video", "yes"),
        ("backbone", "dim", -32),
    ],
)
def test_a_saved_value_of_another_type_or_beyond_its_range_is_named(part: str, key: str, value: object) -> None:
    values = TINY.to_dict()
    (values[part] if part else values)[key] = value
    with pytest.raises(ValueError, match=rf"Config\.{key}=.* must be"):
        SgMgConfig.from_dict(json.loads(json.dumps(values)))


@pytest.mark.usefixtures("as_users_run_it")
@pytest.mark.parametrize("value", [None, [], "x", 5])
@pytest.mark.parametrize("part", ["text", "backbone"])
def test_a_saved_part_that_is_no_object_is_refused(part: str, value: object) -> None:
    with pytest.raises(ValueError, match="not an object"):
        SgMgConfig.from_dict(TINY.to_dict() | {part: value})
