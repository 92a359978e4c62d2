"""Check that a Ray cluster answers at an address: Ray itself would try for a quarter of an hour."""

import os
import re
import socket
import time

from pipelines.errors import JobError

_WITHOUT_PORT = ("auto", "local")
_ADDRESS = re.compile(r"(ray://)?(?P<host>\[[0-9a-fA-F:]+\]|[^:/]+):(?P<port>\d{1,5})/?")
_SECONDS, _PAUSE = 12.0, 1.0
"""How long nobody may answer, and between two attempts: a head node may be starting."""
_HELLO = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0])
"""How a client of gRPC begins: the preface of HTTP/2 and empty settings (RFC 9113 §3.4). The server sends its own."""
_SETTINGS = 4


def check_cluster(address: str, seconds: float = _SECONDS) -> None:
    """Checks that a Ray cluster answers at RAY_ADDRESS. `auto`, `local` and other schemes than ray:// are left to Ray.

    Raises:
        JobError: the address is none, nobody answers within `seconds`, or something else than Ray does.
    """
    if address in _WITHOUT_PORT or "://" in address.removeprefix("ray://"):
        return
    place = _ADDRESS.fullmatch(address)
    if place is None or int(place["port"]) >= 2**16:
        raise JobError(f"RAY_ADDRESS={address} is no address of a Ray cluster. Give host:port, or take it out.")
    end, reason = time.monotonic() + seconds, ""
    while True:
        try:
            reason = _answer(place["host"].strip("[]"), int(place["port"]))
        except OSError as error:
            reason = str(error.strerror or error)
        if not reason:
            return
        if time.monotonic() + _PAUSE >= end:
            raise JobError(
                f"No Ray cluster answers at RAY_ADDRESS={address} ({reason}). Start it, mend the address, or take "
                f"RAY_ADDRESS out of the environment to use this machine alone."
            )
        time.sleep(_PAUSE)


def _answer(host: str, port: int) -> str:
    """Returns what is wrong with who answers at a port; empty if it speaks gRPC.

    Raises:
        OSError: nobody answers.
    """
    with socket.create_connection((host, port), timeout=3) as connection:
        if os.environ.get("RAY_USE_TLS", "0").lower() in ("1", "true"):  # only Ray has the certificates
            return ""
        connection.settimeout(3)
        connection.sendall(_HELLO)
        try:
            frame = connection.recv(9)
        except TimeoutError:
            return "something listens there, but does not speak as Ray does"
    return "" if len(frame) > 3 and frame[3] == _SETTINGS else "something else than Ray listens there"
