"""Recipes: the published settings of training runs (spec model.md §11), and small ones for demos."""

from collections.abc import Mapping
from dataclasses import replace

from pipelines.training.config import SENTENCES_TOGETHER, TrainConfig

FROM_SINGLE_OBJECT = "multi"
"""Recipe that starts from a single-object checkpoint."""
FROM_CHECKPOINT = frozenset({"finetune", "a2d", FROM_SINGLE_OBJECT})
"""Recipes that start from a trained checkpoint."""
FROM_BACKBONE = frozenset({"pretrain", "scratch", "joint", "multi-scratch"})
"""Recipes that start from a backbone that has learned from Kinetics or ImageNet."""

_FINETUNE = TrainConfig(data=())
_SMALL = {
    "model": "tiny",
    "short_sides": (160,),
    "lr": 1e-3,
    "backbone_lr": 1e-3,
    # Its words start from nothing, but at the others' rate sentences come to mean the same before they mean anything.
    "text_lr": 5e-4,
    "schedule": "one-cycle",
    "freeze_text": False,
    "max_grad_norm": 1.0,
    # Asked of the same frames, sentences differ in their words alone: it learns to listen long before it would else.
    "sentences_per_clip": 4,
    # Its sentences are about colours, places and directions: they must stay true.
    "crop": False,
    "reverse": False,
    "colour": False,
    "valid_short_side": 160,
    "log_every": 10,
    "checkpoint_every": 200,
}


def _and_multi_object(recipes: Mapping[str, TrainConfig], scratch: str) -> dict[str, TrainConfig]:
    """Adds the recipes of a multi-object model, which are the first of these, and the one that starts from nothing."""
    whole = {"multi_object": True, "sentences_per_clip": SENTENCES_TOGETHER}
    return {
        **recipes,
        FROM_SINGLE_OBJECT: replace(next(iter(recipes.values())), recipe=FROM_SINGLE_OBJECT, **whole),
        "multi-scratch": replace(recipes[scratch], recipe="multi-scratch", **whole),
    }


PRETRAIN: dict[str, TrainConfig] = _and_multi_object({
    "pretrain": replace(
        _FINETUNE, recipe="pretrain", frames=1, global_batch=16, lr_batch=16, clips_per_pass=2, epochs=11,
        lr_milestones=(8, 10), freeze_text=False,
    ),
    "tiny": replace(
        _FINETUNE, recipe="tiny", frames=1, global_batch=4, lr_batch=4, clips_per_pass=2, epochs=6, **_SMALL
    ),
}, scratch="pretrain")  # fmt: skip
"""Recipes of jobs/pretrain_refcoco.py; the first is the default. Published runs used 2 GPUs: --global-batch 4."""

FINETUNE: dict[str, TrainConfig] = _and_multi_object({
    "finetune": _FINETUNE,
    "scratch": replace(_FINETUNE, recipe="scratch", lr_batch=4, global_batch=4, epochs=10, lr_milestones=(6, 8)),
    "joint": replace(_FINETUNE, recipe="joint", epochs=12, lr_milestones=(8, 10)),
    # At the rates of pre-training it forgets what words mean before it learns to follow.
    "tiny": replace(
        _FINETUNE, recipe="tiny", frames=3, global_batch=4, lr_batch=4, clips_per_pass=2, epochs=4,
        **_SMALL | {"lr": 3e-4, "backbone_lr": 3e-4, "text_lr": 3e-4},
    ),
}, scratch="scratch")  # fmt: skip
"""Recipes of jobs/finetune_ytvos.py. Published runs used 2 GPUs: --global-batch 2."""

A2D: dict[str, TrainConfig] = _and_multi_object({
    "a2d": replace(_FINETUNE, recipe="a2d", global_batch=16, lr_batch=16, clips_per_pass=2,
                   activation_checkpointing=True),
    "tiny": replace(_FINETUNE, recipe="tiny", global_batch=4, lr_batch=4, clips_per_pass=2, epochs=4, **_SMALL),
}, scratch="a2d")  # fmt: skip
"""Recipes of jobs/finetune_a2d.py. Published runs used 2 GPUs: --global-batch 4."""
