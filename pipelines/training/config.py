"""Settings of a training run."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from pipelines.clips.resize_filter import ResizeFilter
from sgmg.config import PRESETS, PrecisionChoice, SgMgConfig

Schedule = Literal["multistep", "one-cycle"]

SENTENCES_TOGETHER = SgMgConfig.preset("tiny").sentences_per_clip
"""Most sentences that a multi-object model is asked of a clip."""


@dataclass(frozen=True, slots=True)
class TrainConfig:
    """Settings of one training run. Those not given on the command line come from the recipe."""

    data: tuple[str, ...]
    """Prepared folders (jobs/prepare.py) to train on, all of them together."""
    weights: tuple[str, ...] = ()
    """Shares of the folders of --data in an epoch, as folder:share, such as data/a:0.7 data/b:0.3: samples are repeated
    or left out to fit. By default each sample is seen once."""
    storage: str = "runs"
    """Folder of runs, checkpoints and MLflow's database: one that every node can read, or s3://…, gs://…."""
    name: str = ""
    """Name of the run; the same name resumes it. By default the recipe and the model."""
    recipe: str = "finetune"
    """Name of the recipe that sets the defaults of the other flags."""
    change: tuple[str, ...] = ()
    """Settings that a run which has begun changes from here on, as name=value, such as lr=5e-5."""

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
    """Failures in a row, without a new checkpoint in between, that the run recovers from. Nodes that are taken away
    with notice are not counted."""

    model: str = "video-swin-t"
    """Preset of the model."""
    init: str = ""
    """Checkpoint to start from, class heads new: mlflow:<run>, models:/<name>/<version>, a folder, a published .pth."""
    from_scratch: bool = False
    """Start from random weights although the recipe starts from a checkpoint or a trained backbone."""
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
    warmup_steps: int = 0
    """Optimiser steps over which the rates rise from 0; with `one-cycle` in place of its first tenth."""
    max_grad_norm: float = 0.1
    """Norm that gradients are clipped to."""
    precision: PrecisionChoice = "auto"
    """Number type of the forward pass. auto: bfloat16 on a GPU, and on a CPU that is at least twice as fast in it;
    float16 on a GPU without it; else float32. A run that goes on keeps what it began with."""
    ema: float = 0.0
    """Decay of a moving average of the weights, such as 0.999, which is scored and saved beside them; 0: none."""
    skip_nonfinite: int = 0
    """Steps of a run that may be left out because a loss or the gradient is no number; their samples are kept."""
    multi_object: bool = False
    """Train a model that answers the sentences of a clip in one pass; --init may be a single-object checkpoint."""
    activation_checkpointing: bool = False
    """Recompute the backbone in the backward pass: less memory, more time."""
    seed: int = 0
    """Seed of all random numbers."""

    shuffle_window: int = 128
    """Samples within which videos or images are shuffled beyond the neighbours they are stored with (a row group)."""
    prefetch: int = 4
    """Optimiser steps whose clips are loaded in advance."""
    checkpoint_every: int = 500
    """Optimiser steps between checkpoints; one is written at the end of each epoch, too."""
    keep: int = 2
    """Number of newest checkpoints to keep, besides the best."""
    log_every: int = 10
    """Optimiser steps between logged lines and metrics."""

    valid: tuple[str, ...] = ()
    """Prepared folders with a known ground truth, scored during training. Each dataset and split has its own figures;
    the best checkpoint has the highest J&F, mAP (A2D, JHMDB) or overall IoU (RefCOCO), of several the mean of these."""
    holdout: int = 0
    """Number of videos of --data that are scored instead of trained on, chosen by a hash of their names."""
    valid_every: int = 1
    """Epochs between scores."""
    valid_every_steps: int = 0
    """Optimiser steps between scores, in place of --valid-every; 0: by epochs."""
    patience: int = 0
    """Scores without a new best after which training stops; 0: never."""
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
        for name in ("warmup_steps", "skip_nonfinite", "valid_every_steps", "patience"):
            if getattr(self, name) < 0:
                raise ValueError(f"--{name.replace('_', '-')} {getattr(self, name)} must be at least 0.")
        if not 0 <= self.ema < 1:
            raise ValueError(f"--ema {self.ema} must be at least 0 and less than 1, such as 0.999.")
        if self.patience and not (self.valid or self.holdout):
            raise ValueError(
                f"--patience {self.patience} counts scores, but nothing is scored. Give --valid or --holdout."
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
