"""Saving and loading of a segmenter as a model of the Hugging Face hub, with a model card."""

import tempfile
from collections.abc import Callable, Mapping
from os import PathLike
from pathlib import Path
from typing import Any, ClassVar, TypeVar

from huggingface_hub import ModelCard, ModelHubMixin, snapshot_download
from huggingface_hub.errors import HFValidationError

from sgmg.checkpoints import CONFIG, MODEL, TOKENIZER, TRAINING, save
from sgmg.model import SgMg
from sgmg.model_card import Facts, model_card
from sgmg.tokenizer import Tokenizer

HubMixinT = TypeVar("HubMixinT", bound="HubMixin")

SETTINGS = "segmenter"
"""Key of a checkpoint's notes that holds the settings of its segmenter: short_side and window."""


class HubMixin(ModelHubMixin):
    """Adds save_pretrained, push_to_hub and from_pretrained of huggingface_hub to `Segmenter`.

    A saved folder is a checkpoint of `sgmg.checkpoints` with its tokenizer and a README.md; it loads without network.
    """

    model: SgMg
    tokenizer: Tokenizer
    short_side: int
    window: int
    notes: Mapping[str, Any]
    from_checkpoint: ClassVar[Callable[..., Any]]  # of `Segmenter`

    @classmethod
    def from_pretrained(
        cls: type[HubMixinT],
        pretrained_model_name_or_path: str | PathLike[str],
        *,
        force_download: bool = False,
        token: str | bool | None = None,
        cache_dir: str | Path | None = None,
        local_files_only: bool = False,
        revision: str | None = None,
        **settings: Any,
    ) -> HubMixinT:
        """Loads a segmenter from a local folder, else from the Hugging Face cache or the hub.

        Args:
            pretrained_model_name_or_path: a folder written by `save_pretrained` or by training (needs no network), or
                the name of a repository.
            force_download: download even if the cache holds the model.
            token: access token of the hub; None takes the one of `hf auth login`.
            cache_dir: cache folder; None takes the default of huggingface_hub.
            local_files_only: use the cache only, without a network call.
            revision: branch, tag or commit of the repository.
            settings: arguments of `from_checkpoint`: device, precision, short_side, …

        Raises:
            FileNotFoundError: there is neither a folder nor a repository of that name; the message says what to do.
            ValueError: the folder or repository is not a checkpoint of `sgmg.checkpoints`.
        """
        name = pretrained_model_name_or_path
        if isinstance(name, PathLike) or Path(name).exists() or name.startswith(("/", ".", "~")):
            return cls.from_checkpoint(Path(name).expanduser(), **settings)
        try:
            folder = snapshot_download(
                name,
                revision=revision,
                cache_dir=cache_dir,
                force_download=force_download,
                local_files_only=local_files_only,
                token=token,
                allow_patterns=[MODEL, CONFIG, TOKENIZER],
            )
        except (OSError, HFValidationError) as error:
            reason = " ".join(str(error).split()).rstrip(".")  # it has lines
            raise FileNotFoundError(
                f"There is no folder {name!r}, and the hub gave no model of that name: {reason}. Correct the name, or "
                f"get it once, where there is a network, with `hf download {name} --local-dir weights/model`, and give "
                f"that folder."
            ) from error
        return cls.from_checkpoint(folder, **settings)

    def save_pretrained(self, save_directory: str | Path, **rest: Any) -> str | None:
        """Writes model.safetensors, config.json, tokenizer.json and, if it is missing, the model card README.md.

        Args:
            save_directory: folder; created if missing.
            rest: arguments of huggingface_hub's mixin: push_to_hub, repo_id, model_card_kwargs (arguments of
                `generate_model_card`), …

        Raises:
            FileExistsError: the folder holds a training checkpoint, which a run may still resume from.
            OSError: the disk is full, or permission is denied.
        """
        if (Path(save_directory) / TRAINING).is_file():
            raise FileExistsError(
                f"{save_directory} holds {TRAINING}: it is a training checkpoint, which would be overwritten. "
                f"Choose another folder."
            )
        return super().save_pretrained(save_directory, **rest)

    def generate_model_card(
        self, metrics: Mapping[str, Mapping[str, float]] | None = None, licence: str | None = None
    ) -> ModelCard:
        """Returns the model card: architecture, training data, scores, licence and an example.

        Args:
            metrics: scores by dataset, such as {"ref-davis17/valid": {"J&F": 0.61}}; None takes those of the notes.
            licence: of the weights, as the hub names it ("cc-by-nc-4.0", …); None takes the one of the notes.
                If neither gives one, the card says so.
        """
        notes = {**self.notes, **({"metrics": metrics} if metrics is not None else {})}
        if licence is not None:
            notes["licence"] = licence
        return model_card(Facts.of(self.model, self.short_side, notes))

    def _save_pretrained(self, save_directory: Path) -> None:
        """Writes the checkpoint into the folder, config.json last: without it, a folder is not a checkpoint.

        The mixin calls this after it removed config.json.
        """
        notes = {**self.notes, SETTINGS: {"short_side": self.short_side, "window": self.window}}
        with tempfile.TemporaryDirectory(dir=save_directory, prefix=".unfinished-") as staging:
            save(Path(staging) / "checkpoint", self.model, tokenizer=self.tokenizer, notes=notes)
            for file in sorted((Path(staging) / "checkpoint").iterdir(), key=lambda file: file.name == CONFIG):
                file.replace(save_directory / file.name)
