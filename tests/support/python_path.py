"""Where the processes that tests start find modules."""

import os
import sys

from pack import ROOT

FORKED_WORKERS = [str(ROOT / "tests" / "support" / "forked_workers")] if sys.platform == "linux" else []
"""Folder that makes the workers of a Ray cheap to start, see its fork_server.py."""
PYTHONPATH = os.pathsep.join([*map(str, (ROOT, ROOT / "tests/parity", ROOT / "tests/support")), *FORKED_WORKERS])
"""Value of the variable: the project, and what tests share."""
