"""Memory that a process keeps."""

import platform
import subprocess
import sys

import pytest

HELD = """
import sys, torch
from sgmg.host_memory import keep_freed_memory

def held():
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmRSS"))

if sys.argv[1] == "keep":
    assert keep_freed_memory()
block = torch.ones(100 * 2**20, dtype=torch.uint8)
full = held()
del block
print(full - held())
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc's memory can be kept")
@pytest.mark.parametrize(("way", "most", "least"), [("keep", 1024, -1024), ("as it is", 101 * 1024, 99 * 1024)])
def test_what_is_freed_is_kept_if_wanted(way: str, most: int, least: int) -> None:
    ran = subprocess.run([sys.executable, "-c", HELD, way], capture_output=True, text=True, check=True)
    assert least <= int(ran.stdout) <= most  # KiB that were given back
