"""Reasons of MLflow's errors, in one line."""

import re

_OF_DATABASE = re.compile(r"^\((?:\w+\.)+\w+\) (.+)$", re.MULTILINE)


def reason_of(error: BaseException) -> str:
    r"""Returns what an error says in one line; of a database's, only that and not the SQL and advice around it.

    >>> reason_of(OSError("(raised by autoflush)\n(sqlite3.OperationalError) no room\n[SQL: UPDATE runs …]"))
    'no room'
    """
    said = str(error)
    found = _OF_DATABASE.search(said)
    return found[1] if found else " ".join(said.split()) or type(error).__name__
