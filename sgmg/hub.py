"""A segmenter as a folder of the Hugging Face hub: saved with a model card, uploaded, and loaded again by name."""

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
"""Where the notes of a checkpoint keep how its frames were asked: short_side and window."""


class HubMixin(ModelHubMixin):
    """What `Segmenter` has from huggingface_hub: save_pretrained, push_to_hub, from_pretrained.

    A folder it saves is a checkpoint of ours with its tokenizer and a README.md: all that is needed, without network.
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
        """A segmenter from a local folder, else from the Hugging Face cache or the hub.

        Args:
            pretrained_model_name_or_path: a folder (`save_pretrained` or training wrote it), or the name of a
                repository. A folder makes no network call.
            force_download: although the cache holds it.
            token: of the hub; None takes that of `hf auth login`.
            cache_dir: instead of the usual one.
            local_files_only: take what the cache holds, without a network call.
            revision: branch, tag or commit of the repository.
            settings: as `from_checkpoint` takes them: device, precision, short_side, …

        Raises:
            FileNotFoundError: there is neither a folder nor a repository of that name; the message says what to do.
            ValueError: what is there is no checkpoint of ours.
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
        """Writes model.safetensors, config.json, tokenizer.json, and README.md, the model card, where there is none.

        Args:
            save_directory: made where missing.
            rest: as huggingface_hub's mixin takes them: push_to_hub, repo_id, model_card_kwargs (what
                `generate_model_card` takes), …

        Raises:
            FileExistsError: a training may want to go on from what is in the folder.
            OSError: there is no room, or no permission.
        """
        if (Path(save_directory) / TRAINING).is_file():
            raise FileExistsError(
                f"{save_directory} holds {TRAINING}: it is a training's checkpoint, which other weights would spoil. "
                f"Choose another folder."
            )
        return super().save_pretrained(save_directory, **rest)

    def generate_model_card(
        self, metrics: Mapping[str, Mapping[str, float]] | None = None, licence: str | None = None
    ) -> ModelCard:
        """The README.md of the hub: what the model is, what it learned from, how good it is, how to use it.

        Args:
            metrics: scores by dataset, such as {"ref-davis17/valid": {"J&F": 0.61}}; None takes those of the notes.
            licence: of the weights, as the hub names it ("cc-by-nc-4.0", …); None takes that of the notes. Where
                neither says one, the card says that none was given.
        """
        notes = {**self.notes, **({"metrics": metrics} if metrics is not None else {})}
        if licence is not None:
            notes["licence"] = licence
        return model_card(Facts.of(self.model, self.short_side, notes))

    def _save_pretrained(self, save_directory: Path) -> None:
        """Called by the mixin, which has removed config.json: until it is back, last, the folder is no checkpoint."""
        notes = {**self.notes, SETTINGS: {"short_side": self.short_side, "window": self.window}}
        with tempfile.TemporaryDirectory(dir=save_directory, prefix=".unfinished-") as staging:
            save(Path(staging) / "checkpoint", self.model, tokenizer=self.tokenizer, notes=notes)
            for file in sorted((Path(staging) / "checkpoint").iterdir(), key=lambda file: file.name == CONFIG):
                file.replace(save_directory / file.name)
