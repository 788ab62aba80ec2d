"""How the processor's memory is handed out while a net trains."""

import ctypes
import os
import sys

# Of glibc's <malloc.h>.
M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_MAX = -1, -2, -4

LARGEST = 2**31 - 1
PAD = 64 * 2**20


def keep_freed_memory() -> bool:
    """Have glibc keep the memory that tensors free, for the next ones, as torch does on a GPU.

    Each step of a training frees and takes again the same tensors of some megabytes. glibc gives
    such memory back to the system and has it cleared, page by page, when it is asked for again:
    a quarter of the step of a small convolutional net. The process holds on to the most memory
    that it needed at any time. Settings of one's own, as environment variables, stay as they are.

    Returns:
        whether that is now so: False off Linux, with another C library or with such settings.
    """
    if sys.platform != "linux" or _set_by_user():
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    done = mallopt(M_TRIM_THRESHOLD, LARGEST), mallopt(M_TOP_PAD, PAD), mallopt(M_MMAP_MAX, 0)
    return all(done)


def _set_by_user() -> bool:
    tunables = os.environ.get("GLIBC_TUNABLES", "")
    return "glibc.malloc." in tunables or any(name.startswith("MALLOC_") for name in os.environ)
