"""In which number format a net computes, and how its images lie in memory."""

from contextlib import AbstractContextManager, nullcontext

import torch
from fastai.callback.core import Callback
from torch import Tensor

PRECISIONS = ("auto", "fp32", "bf16")


def resolve(precision: str, device: torch.device) -> str:
    """Say what "auto" means on this device: bf16 where it is computed natively, else fp32.

    A processor without bf16 instructions (avx512_bf16, amx_bf16) emulates them at half the speed of
    fp32, so it is asked, never assumed.

    Raises:
        ValueError: a precision of another name.
    """
    if precision not in PRECISIONS:
        raise ValueError(f"precision must be one of {', '.join(PRECISIONS)}, got {precision!r}")
    if precision != "auto":
        return precision
    if device.type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"
    return "bf16" if device.type == "cpu" and cpu_has_bf16() else "fp32"


def cpu_has_bf16() -> bool:
    """Whether the processor multiplies bf16 numbers itself."""
    if hasattr(torch.cpu, "get_capabilities"):  # public since torch 2.12 or so
        found = torch.cpu.get_capabilities()
        return bool(found.get("avx512_bf16") or found.get("amx_bf16"))
    try:
        with open("/proc/cpuinfo") as file:
            flags = next((line for line in file if line.startswith("flags")), "")
    except OSError:  # not Linux: nothing to ask
        return False
    return bool({"avx512_bf16", "amx_bf16"} & set(flags.split()))


class Precision(Callback):
    """Run the net channels-last and, in bf16, under autocast; loss and optimizer stay fp32.

    `Learner` runs every forward pass inside `scope`, so that it is left however the pass ends.

    Args:
        precision: "fp32" or "bf16", as `resolve` gives it.
        channels_last: how weights and images lie; else channels first, torch's default.
    """

    order = 9.5  # after fastai's cast to plain tensors, before the forward pass
    run_valid = True

    def __init__(self, precision: str, *, channels_last: bool = True):
        self.precision = precision
        self.layout = torch.channels_last if channels_last else torch.contiguous_format

    def before_fit(self) -> None:
        """Lay the weights out, in place."""
        self.learn.model.to(memory_format=self.layout)

    def before_batch(self) -> None:
        """Lay the images out."""
        self.learn.xb = tuple(map(self.laid_out, self.learn.xb))

    def laid_out(self, x: Tensor) -> Tensor:
        """Lay a batch of images out; what are no images is left as it is."""
        return x.contiguous(memory_format=self.layout) if x.ndim == 4 else x

    def scope(self, device: torch.device) -> AbstractContextManager:
        """Give the context of a forward pass on `device`."""
        if self.precision == "fp32":
            return nullcontext()
        # A graph must convert the weights of its own time, not find them converted; and a compiled
        # net is compiled anew where this changes, so it is one setting for all steps.
        cached = device.type != "cuda"
        return torch.autocast(device.type, dtype=torch.bfloat16, cache_enabled=cached)
