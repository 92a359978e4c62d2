import json
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from sgmg.checkpoints import AVERAGED, MODEL, load, load_pretrained, save, saved_tokenizer
from sgmg.config import SgMgConfig, SwinConfig, TextConfig
from sgmg.model import SgMg
from sgmg.optim import optimizer_for, schedule_for
from sgmg.published import published_names
from sgmg.tokenizer import Tokenizer

CONFIG = SgMgConfig(
    "small",
    SwinConfig(8, (1, 1, 1, 1), (1, 2, 4, 8), video=True, window=(8, 7, 7)),
    TextConfig(vocabulary=300, width=16, layers=1, heads=2, ffn=32, max_tokens=12),
    width=32,
    encoder_layers=1,
    decoder_layers=2,
    ffn=32,
)
FILES = {"model.safetensors", "config.json"}


def same(one: SgMg, other: SgMg) -> bool:
    pairs = [dict((*model.named_parameters(), *model.named_buffers())) for model in (one, other)]
    return pairs[0].keys() == pairs[1].keys() and all(tensor.equal(pairs[1][name]) for name, tensor in pairs[0].items())


def names_in(folder: Path) -> set[str]:
    return {file.name for file in folder.iterdir()}


def script(code: str, *arguments: object) -> str:
    """What a new process prints: the code finds `model`, and `attempt`, which runs a function in a child of its own."""
    start = f"""
import json, os, resource, signal, sys
from pathlib import Path
import torch
torch.set_num_threads(1)
from sgmg.checkpoints import save
from sgmg.config import SgMgConfig
from sgmg.model import SgMg
model = SgMg(SgMgConfig.from_dict(json.loads({json.dumps(CONFIG.to_dict())!r})))

def attempt(function):
    child = os.fork()
    if not child:
        function()
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
"""
    command = [sys.executable, "-c", start + code, *map(str, arguments)]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    return run.stdout


@pytest.fixture(scope="module")
def model() -> SgMg:
    return SgMg(CONFIG).eval()


@pytest.fixture
def tokenizer() -> Tokenizer:
    return Tokenizer.train(["the red car", "the red ball"], vocabulary=300)


def test_a_checkpoint_comes_back_as_it_was_saved(model: SgMg, tokenizer: Tokenizer, tmp_path: Path) -> None:
    save(tmp_path / "a", model, tokenizer=tokenizer, notes={"data": ["ytvos"], "metrics": {"J&F": 0.5}})
    loaded = load(tmp_path / "a")
    assert names_in(tmp_path) == {"a"}
    assert names_in(tmp_path / "a") == FILES | {"tokenizer.json"}
    assert loaded.model.config == CONFIG
    assert not loaded.model.training
    assert same(loaded.model, model)
    assert loaded.tokenizer == tokenizer
    assert loaded.notes == {"data": ["ytvos"], "metrics": {"J&F": 0.5}}


def test_the_file_of_the_weights_stands_for_its_folder(model: SgMg, tokenizer: Tokenizer, tmp_path: Path) -> None:
    save(tmp_path / "a", model, tokenizer=tokenizer)
    found = load(tmp_path / "a" / MODEL)
    assert found.tokenizer == tokenizer == saved_tokenizer(tmp_path / "a" / MODEL)
    assert all(torch.equal(weight, model.state_dict()[name]) for name, weight in found.model.state_dict().items())


def test_averaged_weights_lie_beside_the_others_and_load_alone_with_their_tokenizer(
    model: SgMg, tokenizer: Tokenizer, tmp_path: Path
) -> None:
    averaged = {name: weight + 1 for name, weight in model.state_dict().items()}
    save(tmp_path / "one", model, averaged=averaged, tokenizer=tokenizer)
    assert same(load(tmp_path / "one").model, model)
    for name, weight in load(tmp_path / "one" / AVERAGED).model.state_dict().items():
        torch.testing.assert_close(weight, averaged[name], rtol=0, atol=0)
    for path in (tmp_path / "one", tmp_path / "one" / AVERAGED):
        found = saved_tokenizer(path)
        assert found is not None
        assert found.to_json() == tokenizer.to_json()
    (tmp_path / "published.pth").write_bytes(b"")
    assert saved_tokenizer(tmp_path / "published.pth") is None


def test_training_goes_on_from_the_saved_state(tmp_path: Path) -> None:
    model = SgMg(CONFIG)
    optimizer = optimizer_for(model)
    schedule = schedule_for(optimizer, [1])
    model.query_positions.sum().backward()
    optimizer.step()
    schedule.step()
    state = {"optimizer": optimizer.state_dict(), "schedule": schedule.state_dict(), "step": 7}
    save(tmp_path, model, training=state)
    loaded = load(tmp_path).training()
    assert loaded["step"] == 7
    assert loaded["schedule"]["milestones"] == Counter([1])
    assert loaded["optimizer"]["param_groups"] == state["optimizer"]["param_groups"]
    torch.testing.assert_close(loaded["optimizer"]["state"], state["optimizer"]["state"], rtol=0, atol=0)
    optimizer_for(SgMg(CONFIG)).load_state_dict(loaded["optimizer"])


def test_a_checkpoint_without_training_says_so(model: SgMg, tmp_path: Path) -> None:
    save(tmp_path / "a", model)
    with pytest.raises(FileNotFoundError, match=r"a has no training\.pt: training cannot be resumed"):
        load(tmp_path / "a").training()


def test_weights_keep_their_dtype(tmp_path: Path) -> None:
    save(tmp_path / "a", SgMg(CONFIG).bfloat16())
    assert {weight.dtype for weight in load(tmp_path / "a").model.state_dict().values()} == {torch.bfloat16}


def test_saving_again_replaces_all_of_the_old_one(model: SgMg, tokenizer: Tokenizer, tmp_path: Path) -> None:
    save(tmp_path / "a", model, tokenizer=tokenizer, training={"step": 1})
    first = load(tmp_path / "a")
    newer = SgMg(CONFIG)
    save(tmp_path / "a", newer, notes={"step": 2})
    assert names_in(tmp_path) == {"a"}
    assert names_in(tmp_path / "a") == FILES
    assert same(load(tmp_path / "a").model, newer)
    assert same(first.model, model)  # it holds its weights, not the file they came from


def test_a_folder_with_other_files_is_never_replaced(model: SgMg, tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(FileExistsError, match=r"holds thesis\.tex, which a new checkpoint would remove"):
        save(tmp_path, model)
    with pytest.raises(FileExistsError, match=r"thesis\.tex is a file"):
        save(tmp_path / "thesis.tex", model)
    assert (tmp_path / "thesis.tex").read_text() == "years of work"


def test_what_macos_leaves_in_a_checkpoint_is_no_foreign_file(model: SgMg, tmp_path: Path) -> None:
    save(tmp_path / "a", model)
    (tmp_path / "a/.DS_Store").touch()
    (tmp_path / "a/._model.safetensors").write_bytes(b"no weights")
    load(tmp_path / "a")
    save(tmp_path / "a", model)


def test_a_link_to_a_checkpoint_stays_a_link(model: SgMg, tmp_path: Path) -> None:
    save(tmp_path / "a", model)
    (tmp_path / "newest").symlink_to("a")
    save(tmp_path / "newest", model, notes={"step": 2})
    assert (tmp_path / "newest").is_symlink()
    assert load(tmp_path / "newest").notes == load(tmp_path / "a").notes == {"step": 2}


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (
            {"training": {"optimizer": [{"lr": np.float64(1)}]}},
            r"training\['optimizer'\]\[0\]\['lr'\] is a numpy.float64",
        ),
        (
            {"training": {"schedule": {"f": len}}},
            r"training\['schedule'\]\['f'\] is a builtins.builtin_function_or_method",
        ),
        ({"training": {"lanes": {(1, 2): 0}}}, r"training\['lanes'\] has the key \(1, 2\), a tuple"),
        (
            {"notes": {"loss": torch.zeros(1)}},
            r"notes\['loss'\] is a torch.Tensor, but a checkpoint holds plain values",
        ),
        ({"notes": {"epochs": {1: 0.5}}}, r"notes\['epochs'\] has the key 1, a int"),
        ({"notes": {"path": Path("/data")}}, r"notes\['path'\] is a pathlib.*Convert it"),
    ],
)
def test_what_is_neither_tensor_nor_plain_is_refused_by_its_place(
    values: dict[str, Any], message: str, model: SgMg, tmp_path: Path
) -> None:
    with pytest.raises(TypeError, match=message):
        save(tmp_path / "a", model, **values)
    assert not (tmp_path / "a").exists()


KILLED = """
root = Path(sys.argv[1])

def saving(folder, moment):
    def hook(event, details):
        global left
        if str(folder.parent) in str(details):
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            left -= 1
    def run():
        global left
        left = moment
        sys.addaudithook(hook)
        save(folder, model, notes={"step": 2}, training={"step": 2})
    return run

torch.nn.init.zeros_(model.query_positions)
for moment in range(100):
    folder = root / str(moment) / "newest"
    save(folder, model, notes={"step": 1}, training={"step": 1})
    model.query_positions.data += 1
    if attempt(saving(folder, moment)) == 0:
        print(moment)
        break
    model.query_positions.data -= 1
"""


def test_a_kill_at_any_moment_leaves_a_whole_checkpoint(model: SgMg, tmp_path: Path) -> None:
    moments = int(script(KILLED, tmp_path))
    assert moments > 10  # at each file that is opened, renamed or removed
    steps = []
    for moment in range(moments):
        folder = tmp_path / str(moment) / "newest"
        found = load(folder)
        steps.append(found.notes["step"])
        assert found.training()["step"] == steps[-1]
        assert (found.model.query_positions == steps[-1] - 1).all()
        save(folder, model)
        assert names_in(folder.parent) == {"newest"}
        assert names_in(folder) == FILES
    assert steps == sorted(steps)
    assert set(steps) == {1, 2}


FULL = """
folder = Path(sys.argv[1])
save(folder, model, notes={"step": 1})

def saving(limit):
    def run():
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
        try:
            save(folder, model, notes={"step": 2}, training={"optimizer": torch.zeros(10**6)})
        except OSError as error:
            print(error, flush=True)
    return run

for limit in (10_000, 3_000_000):
    assert attempt(saving(limit)) == 0
"""


def test_a_full_disk_leaves_the_previous_checkpoint_and_says_so(tmp_path: Path) -> None:
    said = script(FULL, tmp_path / "a").splitlines()
    assert len(said) == 2, said
    for line in said:
        assert "could not be written" in line
        assert "still whole. Make room" in line
    assert load(tmp_path / "a").notes == {"step": 1}
    assert names_in(tmp_path) == {"a"}


def test_nothing_there_is_an_error_that_says_where_to_get_it(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no checkpoint .*typo\. Give a folder .* release page of the paper's"):
        load(tmp_path / "typo")


def test_a_folder_that_is_no_checkpoint_names_what_is_missing(model: SgMg, tmp_path: Path) -> None:
    save(tmp_path / "a", model)
    (tmp_path / "a" / "config.json").unlink()
    with pytest.raises(
        FileNotFoundError, match=r"a is no checkpoint: it lacks config\.json, and holds model\.safetens"
    ):
        load(tmp_path / "a")
    with pytest.raises(FileNotFoundError, match=r"lacks config\.json and model\.safetensors, and holds a"):
        load(tmp_path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            '{"format": 2, "notes": {}, "model": 1}',
            r"config\.json cannot be read: it has format 2, newer than the 1 of this sgmg",
        ),
        ('{"format": 1, "notes": {}}', r"config\.json cannot be read: 'model'"),
        ("{", r"config\.json cannot be read: Expecting"),
        ("[]", r"config\.json cannot be read: list indices"),
    ],
)
def test_a_config_that_cannot_be_read_says_why(text: str, message: str, model: SgMg, tmp_path: Path) -> None:
    save(tmp_path / "a", model)
    (tmp_path / "a" / "config.json").write_text(text)
    with pytest.raises(ValueError, match=message):
        load(tmp_path / "a")


def test_weights_that_do_not_fit_the_config_are_an_error_that_says_what(model: SgMg, tmp_path: Path) -> None:
    save(tmp_path / "a", model)
    message = r"does not fit the config wide: 1 of another shape \(query_positions is \(5, 32\), not \(6, 32\)\)"
    with pytest.raises(ValueError, match=message):
        load(tmp_path / "a", preset=replace(CONFIG, name="wide", queries=6))


def test_weights_cut_short_are_an_error_that_says_so(model: SgMg, tmp_path: Path) -> None:
    save(tmp_path / "a", model)
    with (tmp_path / "a" / "model.safetensors").open("r+b") as file:
        file.truncate(100_000)
    with pytest.raises(ValueError, match=r"model\.safetensors is damaged or cut short"):
        load(tmp_path / "a")


def test_a_config_given_in_place_of_the_saved_one_is_kept(model: SgMg, tmp_path: Path) -> None:
    save(tmp_path / "a", model)
    sparing = replace(CONFIG, activation_checkpointing=True)
    assert load(tmp_path / "a", preset=sparing).model.config == sparing


def test_a_published_file_is_a_checkpoint_without_tokenizer_and_training(model: SgMg, tmp_path: Path) -> None:
    weights = model.state_dict()
    state = {theirs: weights[ours] for ours, theirs in published_names(model).items()}
    torch.save({"model": state}, tmp_path / "a.pth")
    loaded = load(tmp_path / "a.pth", preset=CONFIG)
    assert same(loaded.model, model)
    assert loaded.tokenizer is None
    with pytest.raises(FileNotFoundError, match=r"a\.pth has no training\.pt"):
        loaded.training()
    with pytest.raises(ValueError, match=r"Unknown preset 'video-swin'\. Choose one of: video-swin-t"):
        load(tmp_path / "a.pth", preset="video-swin")


def test_pretrained_gives_everything_but_the_class_heads(model: SgMg, tokenizer: Tokenizer, tmp_path: Path) -> None:
    save(tmp_path / "a", model, tokenizer=tokenizer)
    new = SgMg(replace(CONFIG, name="new", dropout=0.0))
    new.query_positions.data.fill_(9)
    for head in new.class_heads.parameters():
        head.data.fill_(9)
    assert load_pretrained(new, tmp_path / "a") == tokenizer
    old = model.state_dict()
    for name, weight in new.state_dict().items():
        if name.startswith("class_heads."):
            assert not weight.equal(old[name]) or name.endswith("bias"), name
            assert (weight != 9).all(), name
        else:
            assert weight.equal(old[name]), name


def test_pretrained_weights_of_another_model_are_an_error_that_says_what(model: SgMg, tmp_path: Path) -> None:
    save(tmp_path / "a", model)
    with pytest.raises(ValueError, match=r"a is a small, which does not fit this wide: 1 of another shape \(query_pos"):
        load_pretrained(SgMg(replace(CONFIG, name="wide", queries=6)), tmp_path / "a")
