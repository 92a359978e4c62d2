"""Settings of a training run: the published recipes (spec model.md §11), and a small one for demos."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

from pipelines.clips.resize_filter import ResizeFilter
from sgmg.config import PRESETS, PrecisionChoice, SgMgConfig

Schedule = Literal["multistep", "one-cycle"]

SENTENCES_TOGETHER = SgMgConfig.preset("tiny").sentences_per_clip
"""Most sentences that a multi-object model is asked of a clip."""
FROM_SINGLE_OBJECT = "multi"
"""Recipe that starts from a single-object checkpoint."""


@dataclass(frozen=True, slots=True)
class TrainConfig:
    """Settings of one training run. Those not given on the command line come from the recipe."""

    data: tuple[str, ...]
    """Prepared folders (jobs/prepare.py) to train on, all of them together."""
    storage: str = "runs"
    """Folder of runs, checkpoints and MLflow's database: one that every node can read, or s3://…, gs://…."""
    name: str = ""
    """Name of the run; the same name resumes it. By default the recipe and the model."""
    recipe: str = "finetune"
    """Name of the recipe that sets the defaults of the other flags."""

    workers: str = "1"
    """Training processes, one per GPU; MIN:MAX uses as many as the cluster has room for."""
    gpus_per_worker: float = 0
    """GPUs per worker; 0 trains on the CPU."""
    cpus_per_worker: float = 1
    """Logical CPU cores per worker."""
    cpus_per_decode: float = 1
    """Logical CPU cores of a task that decodes clips."""
    threads: int = 0
    """CPU threads of torch in a worker; 0: torch's default."""
    start_timeout: float = 20
    """Minutes to wait for the nodes of the workers, at the start and after one is lost."""
    max_failures: int = 3
    """Number of worker failures that the run recovers from."""

    model: str = "video-swin-t"
    """Preset of the model."""
    init: str = ""
    """Checkpoint to start from, class heads new: mlflow:<run>, models:/<name>/<version>, a folder, a published .pth."""
    backbone_weights: str = ""
    """File of Kinetics (Video Swin) or ImageNet (ResNet) weights of the backbone alone."""
    text_weights: str = "roberta-base"
    """Folder with RoBERTa's weights, or a name in the Hugging Face cache; unused with --init and by `tiny`."""
    tokenizer: str = "roberta-base"
    """Folder with the tokenizer, or a name in the Hugging Face cache; `tiny` trains its own."""
    tokenizer_data: tuple[str, ...] = ()
    """Prepared folders whose sentences the tokenizer of `tiny` is trained on too, for a later fine-tuning."""
    freeze_text: bool = True
    """Freeze the text encoder; its features are then computed once per sentence."""

    frames: int = 5
    """Frames per clip."""
    sentences_per_clip: int = 0
    """Sentences per clip: further ones about a video share its frames, which are encoded once. A multi-object model is
    asked between one and so many. 0: one, as published, or 8 with --multi-object."""
    short_sides: tuple[int, ...] = ()
    """Pixels of the shorter side, drawn from these for each clip; empty: as published."""
    crop: bool = True
    """Enlarge half of the clips and crop them."""
    flip: bool = True
    """Mirror half of the clips, and exchange the words left and right."""
    reverse: bool = True
    """Reverse some clips in time, if the published recipe does."""
    colour: bool = True
    """Change colours, if the published recipe does."""
    resize: ResizeFilter = "torch"
    """Filter that resizes clips: `pillow` as published, or `torch`, three times as fast, with a difference of 1 of 255
    in one value of a thousand. Inference always uses Pillow."""
    global_batch: int = 8
    """Clips per optimiser step, over all workers; a worker accumulates gradients over several passes if needed."""
    clips_per_pass: int = 1
    """Clips that share a forward pass, padded to one size."""
    epochs: int = 6
    """Passes through the data."""
    max_steps: int = 0
    """Optimiser steps after which training stops; 0: after the epochs."""
    lr: float = 1e-4
    """Learning rate at `lr_batch` clips per step."""
    backbone_lr: float = 5e-5
    """Learning rate of the backbone."""
    text_lr: float = 1e-5
    """Learning rate of the text encoder."""
    lr_batch: int = 8
    """Clips per step that the rates are given for; the rates are scaled in proportion to --global-batch."""
    schedule: Schedule = "multistep"
    """`multistep`: to a tenth at each epoch of --lr-milestones. `one-cycle`: up over the first tenth, then to 0."""
    lr_milestones: tuple[int, ...] = (3, 5)
    """Epochs, counted from 0, from which on the rates are divided by ten."""
    max_grad_norm: float = 0.1
    """Norm that gradients are clipped to."""
    precision: PrecisionChoice = "auto"
    """Number type of the forward pass. auto: bfloat16 on a GPU, and on a CPU that is at least twice as fast in it;
    float16 on a GPU without it; else float32. A run that goes on keeps what it began with."""
    multi_object: bool = False
    """Train a model that answers the sentences of a clip in one pass; --init may be a single-object checkpoint."""
    activation_checkpointing: bool = False
    """Recompute the backbone in the backward pass: less memory, more time."""
    seed: int = 0
    """Seed of all random numbers."""

    shuffle_window: int = 128
    """Optimiser steps over which a lane of the data is shuffled."""
    prefetch: int = 4
    """Optimiser steps whose clips are loaded in advance."""
    checkpoint_every: int = 500
    """Optimiser steps between checkpoints; one is written at the end of each epoch, too."""
    keep: int = 2
    """Number of newest checkpoints to keep, besides the best."""
    log_every: int = 10
    """Optimiser steps between logged lines and metrics."""

    valid: tuple[str, ...] = ()
    """Prepared folders with a known ground truth, scored during training."""
    holdout: int = 0
    """Number of videos of --data that are scored instead of trained on, chosen by a hash of their names."""
    valid_every: int = 1
    """Epochs between scores."""
    log_samples: bool = False
    """Write the samples of each step into the folder samples/ of the run."""
    valid_short_side: int = 0
    """Pixels of the shorter side when scoring; 0: as published."""
    model_name: str = "sgmg"
    """Name under which the best checkpoint is registered in MLflow."""

    def __post_init__(self) -> None:
        """Checks the values, before anything is started.

        Raises:
            ValueError: a value is out of range; the message names it.
        """
        if self.model not in PRESETS:
            raise ValueError(f"--model {self.model!r} is no preset. Choose one of: {', '.join(PRESETS)}.")
        for name in ("frames", "global_batch", "clips_per_pass", "epochs", "lr_batch", "shuffle_window", "prefetch",
                     "checkpoint_every", "keep", "log_every", "valid_every"):  # fmt: skip
            if getattr(self, name) < 1:
                raise ValueError(f"--{name.replace('_', '-')} {getattr(self, name)} must be at least 1.")
        if self.sentences_per_clip < 0:
            raise ValueError(
                f"--sentences-per-clip {self.sentences_per_clip} must be at least 1, or 0 for the default."
            )
        if self.global_batch % self.clips_per_pass:
            raise ValueError(
                f"--global-batch {self.global_batch} cannot be cut into passes of --clips-per-pass "
                f"{self.clips_per_pass}. Choose a divisor."
            )
        least, most = self.worker_range
        if not 1 <= least <= most:
            raise ValueError(f"--workers {self.workers!r} must be a number from 1, or MIN:MAX.")
        if most > self.global_batch // self.clips_per_pass:
            raise ValueError(
                f"--workers {self.workers} for {self.global_batch // self.clips_per_pass} forward passes a step "
                f"(--global-batch {self.global_batch}, --clips-per-pass {self.clips_per_pass}): some would have "
                f"nothing to do. Take fewer workers or a larger --global-batch (the learning rate follows it)."
            )
        if self.init and self.backbone_weights:
            raise ValueError("--init brings a backbone: leave --backbone-weights out, or --init.")

    @property
    def worker_range(self) -> tuple[int, int]:
        """Smallest and largest number of workers."""
        least, _, most = self.workers.partition(":")
        try:
            return int(least), int(most or least)
        except ValueError:
            raise ValueError(f"--workers {self.workers!r} must be a number from 1, or MIN:MAX.") from None

    @property
    def worker_resources(self) -> Mapping[str, float]:
        """Resources of one worker, by Ray's names."""
        return {"CPU": self.cpus_per_worker} | ({"GPU": self.gpus_per_worker} if self.gpus_per_worker else {})

    @property
    def min_resources(self) -> Mapping[str, float]:
        """Resources of the smallest number of workers, and of one pipeline that feeds them."""
        needed = {name: self.worker_range[0] * count for name, count in self.worker_resources.items()}
        return needed | {"CPU": needed["CPU"] + self.cpus_per_decode}

    @property
    def most_sentences(self) -> int:
        """Most sentences that a clip is asked."""
        return self.sentences_per_clip or (SENTENCES_TOGETHER if self.multi_object else 1)

    @property
    def run_name(self) -> str:
        """Name of the run: --name, or the recipe and the model."""
        return self.name or f"{self.recipe}-{self.model}"

    @property
    def lr_scale(self) -> float:
        """Factor of the learning rates: the batch in use, over the one they are stated for."""
        return self.global_batch / self.lr_batch


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
