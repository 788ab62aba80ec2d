"""How torch computes on a GPU: in which precision fp32 is multiplied, and by which kernels."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch


def prepare() -> None:
    """Set what fastcv computes with on a GPU, for the whole process.

    - fp32 is fp32. Left alone, torch multiplies it as TF32, with 10 bits instead of 23, in
      convolutions but not in matrix products.
    - cuDNN tries its algorithms for each new shape and keeps the fastest, which may differ from
      process to process in the last bits. Where determinism was asked for, it does not.
    """
    torch.backends.cudnn.allow_tf32 = False
    torch.set_float32_matmul_precision("highest")
    torch.backends.cudnn.benchmark = not _deterministic()


def settings() -> dict[str, Any]:
    """Return the settings that `prepare` decides on."""
    return {
        "tf32_convolutions": torch.backends.cudnn.allow_tf32,
        "matmul_precision": torch.get_float32_matmul_precision(),
        "cudnn_benchmark": torch.backends.cudnn.benchmark,
    }


@contextmanager
def torchs_own() -> Iterator[None]:
    """Compute with torch's defaults within the block, as code without fastcv does."""
    before = settings()
    torch.backends.cudnn.allow_tf32 = True
    torch.set_float32_matmul_precision("highest")
    torch.backends.cudnn.benchmark = False
    try:
        yield
    finally:
        torch.backends.cudnn.allow_tf32 = before["tf32_convolutions"]
        torch.set_float32_matmul_precision(before["matmul_precision"])
        torch.backends.cudnn.benchmark = before["cudnn_benchmark"]


def _deterministic() -> bool:
    return torch.backends.cudnn.deterministic or torch.are_deterministic_algorithms_enabled()
