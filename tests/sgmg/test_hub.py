"""A segmenter shared through a folder, or through a hub: the client is the real one, the hub a stand-in on loopback."""

import base64
import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from huggingface_hub import ModelCard, ModelHubMixin, constants

from sgmg.checkpoints import load, save
from sgmg.config import SgMgConfig, SwinConfig, TextConfig
from sgmg.model import SgMg
from sgmg.segmenter import Segmenter
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
NOTES = {
    "run": "finetune | tiny",
    "recipe": "tiny",
    "step": 60,
    "data": ["ref-youtube-vos/train", "own/train"],
    "metrics": {"ref-davis17/valid": {"J": 0.58, "J&F": 0.61234}},
    "licence": "cc-by-nc-4.0",
}
WRITTEN = {"model.safetensors", "config.json", "tokenizer.json", "README.md"}
SENTENCES = ["the red car", "the ball"]
COMMIT = "0" * 39 + "1"


class Hub(ThreadingHTTPServer):
    """The few answers of the hub that an upload and a download need: repositories by name, each a dict of its files.

    What it holds is what the real client sent; whether the real hub would take it, only that can say.
    """

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Answers)
        self.repositories: dict[str, dict[str, bytes]] = {}
        self.cards: list[str] = []  # that the client wanted checked

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


@contextmanager
def running_hub() -> Iterator[Hub]:
    """A hub for as long as the block lasts."""
    hub = Hub()
    thread = threading.Thread(target=hub.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        hub.shutdown()
        hub.server_close()
        thread.join()


class _Answers(BaseHTTPRequestHandler):
    server: Hub  # pyright: ignore[reportIncompatibleVariableOverride]

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        path = self.path.partition("?")[0]
        if path == "/api/repos/create":
            asked = json.loads(body)
            name = "/".join(filter(None, (asked.get("organization"), asked["name"])))
            self.server.repositories.setdefault(name, {})
            self._say({"url": f"{self.server.address}/{name}", "id": name, "name": name})
        elif path == "/api/validate-yaml":
            self.server.cards.append(json.loads(body)["content"])
            self._say({"errors": [], "warnings": []})
        elif "/preupload/" in path:
            files = json.loads(body)["files"]
            self._say(
                {"files": [{"path": one["path"], "uploadMode": "regular", "shouldIgnore": False} for one in files]}
            )
        elif "/commit/" in path:
            name = path.removeprefix("/api/models/").partition("/commit/")[0]
            for line in map(json.loads, body.splitlines()):
                if line["key"] == "file":
                    content = base64.b64decode(line["value"]["content"])
                    self.server.repositories[name][line["value"]["path"]] = content
            self._say({"success": True, "commitOid": COMMIT, "commitUrl": f"{self.server.address}/{name}/commit/1"})
        else:
            self._nothing()

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        for name, held in self.server.repositories.items():
            if path == f"/api/models/{name}/revision/main":
                self._say({"id": name, "sha": COMMIT, "siblings": [{"rfilename": file} for file in held]})
                return
            if path == f"/api/models/{name}/tree/{COMMIT}":
                self._say(
                    [
                        {"type": "file", "path": file, "size": len(content), "oid": COMMIT}
                        for file, content in held.items()
                    ]
                )
                return
            for file, content in held.items():
                if path in (f"/{name}/resolve/{COMMIT}/{file}", f"/{name}/resolve/main/{file}"):
                    self._file(content)
                    return
        self._nothing()

    do_HEAD = do_GET

    def log_message(self, format: str, *args: Any) -> None:
        """Says nothing."""

    def _file(self, content: bytes) -> None:
        tag = hashlib.sha256(content).hexdigest()
        self._send(200, content, {"ETag": f'"{tag}"', "X-Repo-Commit": COMMIT})

    def _say(self, answer: Any) -> None:
        self._send(200, json.dumps(answer).encode(), {"Content-Type": "application/json"})

    def _nothing(self) -> None:
        self._send(404, b"{}", {"X-Error-Code": "RepoNotFound", "Content-Type": "application/json"})

    def _send(self, status: int, content: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(content))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)


@pytest.fixture(scope="module")
def segmenter() -> Segmenter:
    torch.manual_seed(0)
    tokenizer = Tokenizer.train(["the red car", "the red ball"], vocabulary=300)
    return Segmenter(SgMg(CONFIG), tokenizer, device="cpu", short_side=130, window=4, notes=NOTES)


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Hub]:
    with running_hub() as hub:
        monkeypatch.setattr(constants, "ENDPOINT", hub.address)
        monkeypatch.setattr(
            constants, "HUGGINGFACE_CO_URL_TEMPLATE", hub.address + "/{repo_id}/resolve/{revision}/{filename}"
        )
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
        yield hub


def names_in(folder: Path) -> set[str]:
    return {file.name for file in folder.iterdir()}


def assert_answers_alike(one: Segmenter, other: Segmenter) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (2, 60, 90, 3), dtype=np.uint8)
    for mine, theirs in zip(one(pixels, SENTENCES), other(pixels, SENTENCES), strict=True):
        np.testing.assert_array_equal(mine, theirs)


def test_a_saved_segmenter_comes_back_from_its_folder_without_network(segmenter: Segmenter, tmp_path: Path) -> None:
    assert isinstance(segmenter, ModelHubMixin)
    segmenter.save_pretrained(tmp_path / "shared")
    assert names_in(tmp_path / "shared") == WRITTEN
    for name in (tmp_path / "shared", str(tmp_path / "shared")):
        loaded = Segmenter.from_pretrained(name, device="cpu")
        assert (loaded.short_side, loaded.window, loaded.tokenizer) == (130, 4, segmenter.tokenizer)
        assert loaded.notes["metrics"] == NOTES["metrics"]
        assert_answers_alike(loaded, segmenter)


def test_what_was_saved_is_a_checkpoint_that_training_can_start_from(segmenter: Segmenter, tmp_path: Path) -> None:
    segmenter.save_pretrained(tmp_path)
    checkpoint = load(tmp_path)
    assert checkpoint.model.config == CONFIG
    assert checkpoint.tokenizer == segmenter.tokenizer
    assert checkpoint.notes["data"] == NOTES["data"]


def test_settings_of_the_caller_win_over_the_saved_ones(segmenter: Segmenter, tmp_path: Path) -> None:
    segmenter.save_pretrained(tmp_path)
    loaded = Segmenter.from_pretrained(tmp_path, device="cpu", short_side=140, rows=1)
    assert (loaded.short_side, loaded.window, loaded.rows) == (140, 4, 1)


def test_a_checkpoint_of_a_training_is_asked_as_published(segmenter: Segmenter, tmp_path: Path) -> None:
    save(tmp_path / "plain", segmenter.model, tokenizer=segmenter.tokenizer)
    loaded = Segmenter.from_pretrained(tmp_path / "plain", device="cpu")
    assert (loaded.short_side, loaded.window) == (360, 36)


def test_saving_again_replaces_the_weights_and_keeps_a_card_that_was_edited(
    segmenter: Segmenter, tmp_path: Path
) -> None:
    segmenter.save_pretrained(tmp_path)
    (tmp_path / "README.md").write_text("mine")
    other = Segmenter(SgMg(CONFIG), segmenter.tokenizer, device="cpu", short_side=131)
    other.save_pretrained(tmp_path)
    assert names_in(tmp_path) == WRITTEN
    assert (tmp_path / "README.md").read_text() == "mine"
    assert_answers_alike(Segmenter.from_pretrained(tmp_path, device="cpu"), other)


def test_a_training_keeps_its_checkpoint(segmenter: Segmenter, tmp_path: Path) -> None:
    save(tmp_path / "step", segmenter.model, training={"step": 3})
    with pytest.raises(FileExistsError, match=r"training\.pt.*another folder"):
        segmenter.save_pretrained(tmp_path / "step")
    assert load(tmp_path / "step").training() == {"step": 3}


def test_the_card_tells_data_scores_and_licence(segmenter: Segmenter, tmp_path: Path) -> None:
    segmenter.save_pretrained(tmp_path)
    card = ModelCard.load(tmp_path / "README.md")
    head = yaml.safe_load(card.content.split("---")[1])
    assert head["license"] == "cc-by-nc-4.0"
    assert head["library_name"] == "sgmg"
    assert head["pipeline_tag"] == "image-segmentation"
    assert "arxiv:2307.13537" in head["tags"]
    (index,) = head["model-index"]
    scores = {(one["dataset"]["name"], m["type"]): m["value"] for one in index["results"] for m in one["metrics"]}
    assert scores == {("ref-davis17/valid", "J"): 0.58, ("ref-davis17/valid", "J&F"): 0.6123}
    for said in (
        r"# finetune \| tiny",
        "- ref-youtube-vos/train\n- own/train",
        "recipe tiny, 60 optimiser steps",
        "| ref-davis17/valid | J&F | 0.6123 |",
        "`cc-by-nc-4.0`",
        "Video Swin, 8 channels",
        "130 pixels",
    ):
        assert said in card.text


def test_the_card_says_what_nobody_noted(segmenter: Segmenter) -> None:
    bare = Segmenter(segmenter.model, segmenter.tokenizer, device="cpu")
    card = bare.generate_model_card()
    head = card.data.to_dict()
    assert (head["license"], head["license_name"]) == ("other", "not-given")
    assert "model-index" not in head
    for said in ("# sgmg-small", "Nothing is noted about the data.", "It was not scored.", "Not given: ask"):
        assert said in card.text


def test_scores_and_licence_can_be_given_to_the_card(segmenter: Segmenter, tmp_path: Path) -> None:
    given = {"metrics": {"mevis/valid": {"J&F": 0.5}}, "licence": "apache-2.0"}
    segmenter.save_pretrained(tmp_path, model_card_kwargs=given)
    text = (tmp_path / "README.md").read_text()
    assert "| mevis/valid | J&F | 0.5000 |" in text
    assert "ref-davis17" not in text
    assert "license: apache-2.0" in text


def test_metrics_in_another_shape_are_said(segmenter: Segmenter) -> None:
    odd = Segmenter(segmenter.model, segmenter.tokenizer, device="cpu", notes={"metrics": {"J&F": 0.5}})
    with pytest.raises(ValueError, match=r"J&F.*by dataset"):
        odd.generate_model_card()


def test_what_is_pushed_comes_back_by_its_name(segmenter: Segmenter, hub: Hub) -> None:
    segmenter.push_to_hub("somebody/found", token="hf_stand_in")
    assert hub.repositories["somebody/found"].keys() == WRITTEN
    assert hub.cards == [hub.repositories["somebody/found"]["README.md"].decode()]
    loaded = Segmenter.from_pretrained("somebody/found", device="cpu")
    assert_answers_alike(loaded, segmenter)
    del hub.repositories["somebody/found"]  # the cache has it
    again = Segmenter.from_pretrained("somebody/found", device="cpu", local_files_only=True)
    assert_answers_alike(again, segmenter)


def test_a_name_that_the_hub_does_not_know_is_said(hub: Hub) -> None:
    assert not hub.repositories
    with pytest.raises(FileNotFoundError, match=r"no folder 'somebody/nothing'.*hf download somebody/nothing"):
        Segmenter.from_pretrained("somebody/nothing")


def test_without_network_a_name_is_said_to_be_missing(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="hf download somebody/nothing"):
        Segmenter.from_pretrained("somebody/nothing", cache_dir=tmp_path)


@pytest.mark.parametrize("name", ["./nowhere", "/nowhere/at/all", Path("nowhere")])
def test_what_was_plainly_meant_as_a_folder_is_no_name(name: str | Path) -> None:
    with pytest.raises(FileNotFoundError, match="There is no checkpoint"):
        Segmenter.from_pretrained(name)


def test_the_package_says_that_it_is_typed() -> None:
    assert (files("sgmg") / "py.typed").is_file()
