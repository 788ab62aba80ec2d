"""The number format that a net computes in, and the memory layout of its images."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch
from fastai.callback.core import Callback
from torch import Tensor, nn

from fastcv.learning.conv_gradients import ConvGradients, needs_fp32_gradients
from fastcv.recipe.values import PRECISIONS

BLOCK = 8  # channels that oneDNN computes together where a processor has AVX2


def resolve(precision: str, device: torch.device) -> str:
    """Return the precision that "auto" means on this device: bf16 where it is native, else fp32.

    A processor without bf16 instructions (avx512_bf16, amx_bf16) emulates them at half the speed of
    fp32, so its capabilities are checked.

    Raises:
        ValueError: an unknown precision.
    """
    if precision not in PRECISIONS:
        raise ValueError(f"precision must be one of {', '.join(PRECISIONS)}, got {precision!r}")
    if precision != "auto":
        return precision
    if device.type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"
    return "bf16" if device.type == "cpu" and cpu_has_bf16() else "fp32"


def cpu_has_bf16() -> bool:
    """Return whether the processor has bf16 instructions."""
    if hasattr(torch.cpu, "get_capabilities"):  # public since torch 2.12 or so
        found = torch.cpu.get_capabilities()
        return bool(found.get("avx512_bf16") or found.get("amx_bf16"))
    try:
        with open("/proc/cpuinfo") as file:
            flags = next((line for line in file if line.startswith("flags")), "")
    except OSError:  # not Linux
        return False
    return bool({"avx512_bf16", "amx_bf16"} & set(flags.split()))


class Precision(Callback):
    """Run the net channels-last and, in bf16, under autocast; loss and optimizer stay fp32.

    `Learner` runs every forward pass inside `scope`, so that an exception leaves it too.

    Args:
        precision: "fp32" or "bf16", as returned by `resolve`.
        channels_last: the memory layout of weights and images; False: torch's default. A net that
            oneDNN would break (`breaks_channels_last`) keeps torch's default on a processor.
    """

    order = 9.5  # after fastai's cast to plain tensors, before the forward pass
    run_valid = True

    def __init__(self, precision: str, *, channels_last: bool = True):
        self.precision = precision
        self.layout = torch.channels_last if channels_last else torch.contiguous_format
        self.fp32_gradients = False

    def use(self, precision: str) -> None:
        """Compute in another precision, "fp32" or "bf16", from the next batch on."""
        vars(self)["precision"] = precision  # setting it would warn: the Learner has one, this

    def before_fit(self) -> None:
        """Convert the layout of the weights in place."""
        on_cpu = next(self.learn.model.parameters()).device.type == "cpu"
        if on_cpu and breaks_channels_last(self.learn.model):
            self.layout = torch.contiguous_format
        self.fp32_gradients = on_cpu and needs_fp32_gradients(self.learn.model)
        self.learn.model.to(memory_format=self.layout)

    def before_batch(self) -> None:
        """Convert the layout of the images."""
        self.learn.xb = tuple(map(self.laid_out, self.learn.xb))

    def laid_out(self, x: Tensor) -> Tensor:
        """Return a batch of images in the layout; other tensors stay as they are."""
        return x.contiguous(memory_format=self.layout) if x.ndim == 4 else x

    def scope(self, device: torch.device) -> AbstractContextManager:
        """Return the context of a forward pass on `device`."""
        if self.precision == "fp32":
            return nullcontext()
        # A captured graph must convert the weights in every replay, not use casts from the cache;
        # and as a net is recompiled whenever this changes, it is the same for all steps.
        cached = device.type != "cuda"
        autocast = torch.autocast(device.type, dtype=torch.bfloat16, cache_enabled=cached)
        return _with_conv_gradients(autocast) if self.fp32_gradients else autocast


@contextmanager
def _with_conv_gradients(autocast: AbstractContextManager) -> Iterator[None]:
    with autocast, ConvGradients():
        yield


def breaks_channels_last(net: nn.Module) -> bool:
    """Return whether training a net channels-last may corrupt memory on a processor.

    oneDNN's gradient of a strided 1x1 convolution of fewer input channels than `BLOCK` writes past
    its workspace where there is AVX2 but no AVX-512: training then crashes, or goes on with wrong
    gradients (github.com/uxlfoundation/oneDNN/issues/6035).
    """
    return any(
        isinstance(each, nn.Conv2d)
        and each.kernel_size == (1, 1)
        and max(each.stride) > 1
        and each.in_channels // each.groups < BLOCK
        for each in net.modules()
    )
