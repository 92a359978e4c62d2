"""Memory that this process has from the system."""

import ctypes
import platform

_TRIM_THRESHOLD, _MMAP_MAX = -1, -4
"""Parameters of glibc's `mallopt` (malloc.h): free bytes from which on memory is given back; blocks mapped alone."""


def keep_freed_memory() -> bool:
    """Lets this process keep what it frees, for its next tensors, until it ends.

    glibc gives each freed block of more than 32 MB back to the system, which then clears new pages for the next one.
    Training on a CPU makes and frees such blocks all the time: with 200 MB of them a layer, half of a step went by in
    that. The most memory that the process holds grows by about a tenth.

    Returns:
        Whether it does: other C libraries than glibc are left as they are.
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    mallopt = ctypes.CDLL(None).mallopt
    return bool(mallopt(_TRIM_THRESHOLD, -1)) and bool(mallopt(_MMAP_MAX, 0))
