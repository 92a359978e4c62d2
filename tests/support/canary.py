"""A secret that tests give to jobs, and the search for it in everything that they leave behind."""

import gzip
import zipfile
from io import BytesIO
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow import fs

from pipelines.files import Folder

KEY, SECRET, PASSWORD = "CANARYKEY", "CANARY/sec+ret", "CANARYPASSWORD"
"""All begin with the word that is searched for; the secret holds what URIs want to be encoded."""
CANARY = b"CANARY"
VARIABLES = {"AWS_SECRET_ACCESS_KEY": f"{PASSWORD}0", "MLFLOW_TRACKING_PASSWORD": PASSWORD, "HF_TOKEN": f"{PASSWORD}1"}
"""Environment variables of a job that hold it."""


def with_secret(uri: str, secret: str = SECRET) -> str:
    """A URI as people give it, key and secret in it."""
    return uri.replace("://", f"://{KEY}:{secret}@")


def holders(folder: Folder) -> list[str]:
    """The files below a folder that hold the secret, packed or not. There is at least one file."""
    found = folder.filesystem.get_file_info(fs.FileSelector(folder.path(), recursive=True))
    files = [one.path for one in found if one.type == fs.FileType.File]
    assert files, folder
    return [path for path in files if CANARY in path.encode() or any(CANARY in one for one in _contents(folder, path))]


def logs_that_hold(folder: Path) -> list[str]:
    """The log files of Ray below a folder that hold the secret. There is at least one file; some may vanish."""
    found, looked_at = [], 0
    for path in folder.rglob("session_2*/logs/**/*"):
        try:
            data = path.read_bytes() if path.is_file() else b""
        except FileNotFoundError:
            continue
        looked_at += bool(data)
        found += [str(path)] if CANARY in data else []
    assert looked_at, folder
    return found


def _contents(folder: Folder, path: str) -> list[bytes]:
    with folder.filesystem.open_input_file(path) as file:
        data = file.read()
    if path.endswith(".gz"):
        return [gzip.decompress(data)]
    if path.endswith(".zip"):
        with zipfile.ZipFile(BytesIO(data)) as archive:
            return [archive.read(name) for name in archive.namelist()]
    if path.endswith(".parquet"):
        with pq.ParquetFile(pa.BufferReader(data)) as parquet:
            return [data, repr(parquet.read().to_pylist()).encode()]
    return [data]
