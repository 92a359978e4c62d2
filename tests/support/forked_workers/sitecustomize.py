"""Makes a test's Ray cheap: workers are forked off a process that has imported what they import, see `fork_server.py`.

Python imports this as it starts, in each process whose PYTHONPATH has this folder. It does nothing but in processes
that Ray starts.
"""

import os
import sys

_program = "".join(sys.orig_argv[1:2])
if "/ray/_private/workers/" in _program and "RAY_RAYLET_PID" in os.environ:
    from fork_client import start

    start(sys.orig_argv[1:])
elif _program.endswith("/ray/dashboard/dashboard.py"):
    # Ray Train asks it for the state of an actor, and the demo submits jobs: of its ten processes they need two.
    sys.argv.append("--modules-to-load=UsageStatsHead,StateHead,JobHead")
