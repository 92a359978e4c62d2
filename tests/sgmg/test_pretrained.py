import http.server
import os
import subprocess
import sys
import threading
from pathlib import Path

import huggingface_hub
import pytest
import torch
from safetensors.torch import save_file

from sgmg.config import TextConfig
from sgmg.pretrained import find_files, roberta_state
from sgmg.text import TextEncoder
from sgmg.tokenizer import Tokenizer

CONFIG = TextConfig(vocabulary=300, width=16, layers=1, heads=2, ffn=32, max_tokens=12)
WEIGHTS = [["model.safetensors"], ["pytorch_model.bin"]]


@pytest.fixture
def encoder() -> TextEncoder:
    return TextEncoder(CONFIG, width=32, dropout=0.0)


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    return tmp_path / "hub"


def snapshot(cache: Path, name: str) -> Path:
    """The folder in which the cache keeps the files of that name."""
    commit = "0" * 40
    model = cache / f"models--{name.replace('/', '--')}"
    (model / "refs").mkdir(parents=True)
    (model / "refs" / "main").write_text(commit)
    (model / "snapshots" / commit).mkdir(parents=True)
    return model / "snapshots" / commit


def published_weights(encoder: TextEncoder) -> dict[str, torch.Tensor]:
    """The weights as roberta-base distributes them: under a prefix, beside a language model head."""
    weights = {f"roberta.{name}": weight.clone() for name, weight in encoder.roberta.state_dict().items()}
    return weights | {
        "lm_head.bias": torch.zeros(300),
        "lm_head.dense.weight": torch.zeros(16, 16),
        "roberta.embeddings.position_ids": torch.arange(14)[None],
    }


def same_weights(state: dict[str, torch.Tensor], encoder: TextEncoder) -> bool:
    loaded = TextEncoder(CONFIG, width=32, dropout=0.0).roberta
    loaded.load_state_dict(state, strict=True)
    old = encoder.roberta.state_dict()
    return all(torch.equal(weight, old[name]) for name, weight in loaded.state_dict().items())


def test_weights_of_either_file_load_strictly(encoder: TextEncoder, tmp_path: Path) -> None:
    torch.save(published_weights(encoder), tmp_path / "pytorch_model.bin")
    assert same_weights(roberta_state(tmp_path), encoder)
    (tmp_path / "pytorch_model.bin").unlink()
    save_file(published_weights(encoder), tmp_path / "model.safetensors")
    assert same_weights(roberta_state(str(tmp_path)), encoder)


def test_weights_saved_without_the_prefix_load_too(encoder: TextEncoder, tmp_path: Path) -> None:
    save_file(encoder.roberta.state_dict(), tmp_path / "model.safetensors")
    assert same_weights(roberta_state(tmp_path), encoder)


def test_weights_without_a_pooler_are_an_error_that_says_so(encoder: TextEncoder, tmp_path: Path) -> None:
    weights = {name: weight for name, weight in published_weights(encoder).items() if "pooler" not in name}
    save_file(weights, tmp_path / "model.safetensors")
    with pytest.raises(ValueError, match=r"model.safetensors has no pooler"):
        roberta_state(tmp_path)


@pytest.mark.parametrize("exists", [True, False])
def test_a_folder_without_the_files_is_an_error_that_says_where_to_get_them(exists: bool, tmp_path: Path) -> None:
    folder = tmp_path if exists else tmp_path / "typo"
    with pytest.raises(FileNotFoundError, match=r"model.safetensors, nor pytorch_model.bin.*hf download roberta-base"):
        roberta_state(folder)
    with pytest.raises(FileNotFoundError, match=f"{folder}.*tokenizer.json, nor vocab.json and merges.txt"):
        Tokenizer.from_folder(folder)


def test_half_of_a_choice_is_not_taken(tmp_path: Path) -> None:
    (tmp_path / "vocab.json").touch()
    with pytest.raises(FileNotFoundError):
        find_files(tmp_path, [["vocab.json", "merges.txt"]])


@pytest.mark.parametrize("name", ["roberta-base", "FacebookAI/roberta-base"])
def test_the_cache_is_searched_by_the_old_and_the_new_name(name: str, encoder: TextEncoder, cache: Path) -> None:
    folder = snapshot(cache, name)
    Tokenizer.train(["a cat"], vocabulary=300).save(folder)
    save_file(published_weights(encoder), folder / "model.safetensors")
    assert same_weights(roberta_state("roberta-base"), encoder)
    assert Tokenizer.from_cache() == Tokenizer.from_folder(folder)


@pytest.mark.usefixtures("cache")
@pytest.mark.parametrize("name", ["roberta-base", "weights/of/mine"])
def test_a_name_that_is_nowhere_is_an_error_that_says_how_to_get_it(name: str) -> None:
    with pytest.raises(FileNotFoundError, match=f"'{name}' is not a folder, and the Hugging Face cache .*hf download"):
        find_files(name, WEIGHTS)


@pytest.mark.usefixtures("cache")
def test_a_hub_that_cannot_be_reached_is_an_error_that_says_how_to_get_it() -> None:
    with pytest.raises(FileNotFoundError, match=r"The hub did not give 'roberta-base': .*hf download roberta-base"):
        find_files("roberta-base", WEIGHTS, allow_download=True)


class Hub(http.server.BaseHTTPRequestHandler):
    """Serves one tokenizer.json as the hub does, and counts who asks."""

    content = b""
    requests = 0

    def do_HEAD(self) -> None:
        type(self).requests += 1
        known = self.path.endswith("/tokenizer.json")
        self.send_response(200 if known else 404)
        self.send_header("X-Repo-Commit", "0" * 40)
        self.send_header("Content-Length", str(len(self.content) if known else 0))
        self.send_header(*(("ETag", '"1"') if known else ("X-Error-Code", "EntryNotFound")))
        self.end_headers()

    def do_GET(self) -> None:
        self.do_HEAD()
        self.wfile.write(self.content)

    def log_message(self, format: str, *args: object) -> None:
        pass


def ask_hub(server: http.server.ThreadingHTTPServer, cache: Path, expression: str) -> subprocess.CompletedProcess[str]:
    """Runs a line in a new process, since the hub's address and the offline switch are read at import."""
    address = f"http://127.0.0.1:{server.server_port}"
    environment = os.environ | {"HF_HUB_OFFLINE": "0", "HF_ENDPOINT": address, "HF_HOME": str(cache), "NO_PROXY": "*"}
    code = f"from sgmg.pretrained import *; from sgmg.tokenizer import *; print({expression})"
    command = [sys.executable, "-W", "error", "-c", code]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


@pytest.mark.slow
def test_the_hub_is_asked_only_where_allowed_and_only_once(tmp_path: Path) -> None:
    tokenizer = Tokenizer.train(["a cat"], vocabulary=300)
    Hub.content = tokenizer.to_json().encode()
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hub) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        refused = ask_hub(server, tmp_path, "Tokenizer.from_pretrained('a/b')")
        assert "FileNotFoundError: 'a/b' is not a folder" in refused.stderr
        assert Hub.requests == 0
        loaded = ask_hub(server, tmp_path, "Tokenizer.from_pretrained('a/b', allow_download=True).fingerprint")
        assert loaded.stdout.strip() == tokenizer.fingerprint, loaded.stderr
        asked = Hub.requests
        again = ask_hub(server, tmp_path, "Tokenizer.from_cache('a/b').fingerprint")
        assert again.stdout.strip() == tokenizer.fingerprint, again.stderr
        assert Hub.requests == asked > 0
        without = ask_hub(server, tmp_path, "roberta_state('a/b', allow_download=True)")
        assert "The hub's 'a/b' does not hold model.safetensors, nor pytorch_model.bin" in without.stderr
        server.shutdown()


def test_a_folder_that_is_not_there_is_not_offered_for_download() -> None:
    with pytest.raises(FileNotFoundError, match="hf download roberta-base"):
        find_files("/nowhere/roberta", [["tokenizer.json"]])
