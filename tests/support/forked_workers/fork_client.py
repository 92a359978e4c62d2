"""Asks the fork server of this process's raylet for a worker. Imports nothing that takes time."""

import json
import os
import socket
import sys
from pathlib import Path
from typing import Any

_SETUP = "setup_worker.py"
"""Name of the program of Ray that sets a runtime environment up, and then starts the worker."""
_CONTEXT = "--serialized-runtime-env-context="
_LANGUAGE = "--language="


def address() -> str:
    """Returns the address of the fork server of this process's raylet, a socket without a file (Linux)."""
    return f"\0forked-workers-{os.environ['RAY_RAYLET_PID']}"


def start(words: list[str]) -> None:
    """Has a worker started, and ends this process. The first of a raylet becomes the fork server instead.

    Returns if the worker is to start as usual: its code or its folder is another than that of its raylet.

    Args:
        words: the program and arguments that Ray starts this process with.
    """
    context = _context(words)
    variables = context["env_vars"]
    if context["command_prefix"] or context["override_worker_entrypoint"] or "PYTHONPATH" in variables:
        return
    request = {
        "words": [word for word in words if not word.startswith((_CONTEXT, _LANGUAGE)) and not word.endswith(_SETUP)],
        "variables": {**os.environ, **variables},
        "folder": str(Path.cwd()),
    }
    if not ask(json.dumps(request)):
        # Not as an argument: tests find workers by words of their command lines, and the variables may hold these.
        file = os.memfd_create("request", 0)
        os.write(file, json.dumps(request).encode())
        server = str(Path(__file__).with_name("fork_server.py"))
        os.execv(sys.executable, [sys.executable, server, str(file)])
    os._exit(0)


def ask(request: str) -> bool:
    """Sends a request to the fork server; returns whether there is one."""
    with socket.socket(socket.AF_UNIX) as connection:
        try:
            connection.connect(address())
        except ConnectionRefusedError:
            return False
        connection.sendall(request.encode())
    return True


def _context(words: list[str]) -> dict[str, Any]:
    """Returns what Ray says of the runtime environment."""
    said = next((word.removeprefix(_CONTEXT) for word in words if word.startswith(_CONTEXT)), "{}")
    none: dict[str, Any] = {"command_prefix": [], "override_worker_entrypoint": None, "env_vars": {}}
    return none | json.loads(said)
