"""What a processor needs to train at its speed: its memory kept, its denormal numbers flushed."""

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


@contextmanager
def denormals_flushed() -> Iterator[None]:
    """Within, have numbers too small for a full mantissa (below 1.2e-38 in float32) become zero.

    A net that fits its training images has gradients, and Adam the squares of gradients, of that
    size, and a processor takes many times as long for each. The mode belongs to a thread: torch's
    own threads take it from the thread that starts them and keep it, so enter before torch first
    computes in parallel. The calling thread gets back the mode that it had.
    """
    before = torch.tensor(1e-39).mul(1).item() == 0
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(before)


def _set_by_user() -> bool:
    tunables = os.environ.get("GLIBC_TUNABLES", "")
    return "glibc.malloc." in tunables or any(name.startswith("MALLOC_") for name in os.environ)
