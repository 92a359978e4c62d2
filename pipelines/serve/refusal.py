"""Refusals of requests: a status of HTTP and one sentence, in JSON."""

from collections.abc import Mapping

from starlette.exceptions import HTTPException


class Refusal(HTTPException):
    """Error that a client can mend: it is answered with its status and one sentence.

    Args:
        status: of HTTP.
        sentence: what is wrong, and what to do.
        headers: of the answer.
    """

    def __init__(self, status: int, sentence: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(status, sentence, dict(headers or {}))

    @property
    def sentence(self) -> str:
        """Sentence that says what is wrong, and what to do."""
        return self.detail
