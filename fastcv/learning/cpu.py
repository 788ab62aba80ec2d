"""Settings for fast training on a CPU: freed memory kept, denormal numbers flushed."""

import ctypes
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import torch

# Of glibc's <malloc.h>.
M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_MAX = -1, -2, -4

LARGEST = 2**31 - 1
PAD = 64 * 2**20


def keep_freed_memory() -> bool:
    """Have glibc keep the memory that tensors free for the next ones, as torch does on a GPU.

    Each training step frees and allocates the same tensors of a few megabytes. glibc returns such
    memory to the system, which clears it page by page when it is allocated again: a quarter of the
    step of a small convolutional net. The process then holds its peak memory. Environment
    variables that configure malloc take precedence: where there are any, on other systems than
    Linux, and with another C library, nothing changes and the result is False.
    """
    if sys.platform != "linux" or _set_by_user():
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    done = mallopt(M_TRIM_THRESHOLD, LARGEST), mallopt(M_TOP_PAD, PAD), mallopt(M_MMAP_MAX, 0)
    return all(done)


@contextmanager
def denormals_flushed() -> Iterator[None]:
    """Flush denormal numbers (in float32, those below 1.2e-38) to zero within the block.

    A net that fits its training images has gradients of that size, and Adam squares of gradients;
    a processor takes many times as long for each. The mode belongs to a thread: torch's own threads
    inherit it from the thread that starts them and keep it, so enter before torch first computes
    in parallel. The calling thread's mode is restored.
    """
    before = torch.tensor(1e-39).mul(1).item() == 0
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(before)


def cores() -> int:
    """Return the number of processors that this process may use."""
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return usable or 1


def _set_by_user() -> bool:
    tunables = os.environ.get("GLIBC_TUNABLES", "")
    return "glibc.malloc." in tunables or any(name.startswith("MALLOC_") for name in os.environ)
