"""First weights of a run: new, from a checkpoint, or with pretrained parts."""

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
    """Returns the preset, with the settings of the run."""
    preset = replace(SgMgConfig.preset(config.model), activation_checkpointing=config.activation_checkpointing)
    if not config.multi_object:
        return preset
    return replace(preset, multi_object=True, sentences_per_clip=config.most_sentences)


def start_model(config: TrainConfig, init: Path | None) -> SgMg:
    """Returns the model before the first step; each rank loads it, and all get the same.

    Args:
        init: checkpoint that gives all weights except those of the class heads.

    Raises:
        FileNotFoundError: pretrained weights are missing; the message says where to get them.
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
