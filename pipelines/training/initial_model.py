"""The model a run starts with: new, or from a checkpoint, or with the pretrained parts it names."""

from dataclasses import replace
from pathlib import Path

import torch

from pipelines.training.config import TrainConfig
from sgmg.backbone_weights import load_backbone
from sgmg.checkpoints import load_pretrained
from sgmg.config import SgMgConfig
from sgmg.model import SgMg
from sgmg.pretrained import roberta_state


def model_config(config: TrainConfig) -> SgMgConfig:
    """The preset with the switches of the run."""
    return replace(SgMgConfig.preset(config.model), activation_checkpointing=config.activation_checkpointing)


def start_model(config: TrainConfig, init: Path | None) -> SgMg:
    """The model before the first step; the same on every rank, which loads it for itself.

    Args:
        init: a checkpoint, all of which but the class heads is taken.

    Raises:
        FileNotFoundError: pretrained weights are nowhere; the message says where to get them.
        ValueError: a file does not fit the model.
    """
    torch.manual_seed(config.seed)
    model = SgMg(model_config(config))
    if init:
        load_pretrained(model, init)
        return model
    if config.model != "tiny":
        model.text.roberta.load_state_dict(roberta_state(config.text_weights))
    if config.backbone_weights:
        load_backbone(model, config.backbone_weights)
    return model
