"""Whether a training step fits into memory, and which batch would."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import torch
from fastai.learner import Learner
from torch import Tensor

from fastcv import ranks
from fastcv.learning.snapshot import snapshot_rng

# Bytes that a deep net keeps of an image for the backward pass, for each byte of the image: for a
# ResNet-50 about 200. Batches far below that are not measured.
_DEEP = 400
# What torch says where shared memory runs out: to the process that writes, and to its parent.
_SHARED = ("unable to write to file </torch", "Bus error", "unable to allocate shared memory")
_MEMINFO = Path("/proc/meminfo")
_CGROUP = Path("/sys/fs/cgroup")


def check_batch(learn: Learner) -> None:
    """Refuse a batch that cannot fit into memory, before anything is trained.

    What a training step keeps for its backward pass is measured on two images. It is the least
    that a step needs, so that whatever is refused here would have failed.

    Raises:
        ValueError: names the batch size that would fit.
    """
    shape = getattr(learn.dls, "image_shape", None)
    free = free_bytes(learn.dls.device)
    if shape is None or free is None:
        return
    images = _images(learn)
    if images * torch.Size(shape).numel() * 4 * _DEEP <= free:
        return
    per_image = kept_bytes(learn, shape)
    if images * per_image > free:
        raise ValueError(_sentence(learn, images, max(free // per_image, 1), images * per_image))


@contextmanager
def memory_in_words(learn: Learner) -> Iterator[None]:
    """Turn an error of torch's that memory is exhausted into a sentence.

    Raises:
        ValueError: names a batch size that may fit.
    """
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if any(each in str(error) for each in _SHARED):
            raise ValueError(
                "processes that decode images must have room in shared memory, and /dev/shm is "
                "full: empty or enlarge it (docker run --shm-size), or let the images be decoded "
                "once, with cache='auto'"
            ) from error
        if not is_exhausted(error):
            raise
        images = _images(learn)
        raise ValueError(_sentence(learn, images, max(images // 2, 1), None)) from error


def is_exhausted(error: BaseException) -> bool:
    """Whether an error says that memory cannot be allocated."""
    words = ("can't allocate memory", "not enough memory", "out of memory")
    text = str(error)
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or any(
        each in text for each in words
    )


def kept_bytes(learn: Learner, shape: tuple[int, int, int]) -> int:
    """Return the bytes that a training step keeps of an image for its backward pass.

    Neither weights nor statistics nor random states change: the net is in evaluation mode.
    """
    kept: dict[int, int] = {}
    weights = {each.data_ptr() for each in learn.model.parameters()}

    def keep(tensor: Tensor) -> Tensor:
        if tensor.data_ptr() not in weights:
            kept[tensor.data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    training = learn.model.training
    x = torch.zeros(2, *shape, device=learn.dls.device)
    with snapshot_rng(learn.dls), learn.precision.scope(x.device):
        learn.model.eval()
        try:
            with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
                result = learn.model(learn.precision.laid_out(x))
        finally:
            learn.model.train(training)
    del result
    return max(sum(kept.values()) // len(x), x.nbytes // len(x), 1)


def free_bytes(device: torch.device) -> int | None:
    """Return the memory that is free on a device; None where that is not known."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    found = []
    with suppress(OSError, ValueError, StopIteration):  # other systems than Linux
        lines = _MEMINFO.read_text(encoding="ascii").splitlines()
        found.append(
            1024 * int(next(each for each in lines if each.startswith("MemAvailable")).split()[1])
        )
    with suppress(OSError, ValueError):  # no container, or "max"
        limit, used = (
            int((_CGROUP / name).read_text(encoding="ascii"))
            for name in ("memory.max", "memory.current")
        )
        found.append(max(limit - used, 0))
    return min(found, default=None)


def _images(learn: Learner) -> int:
    """Return how many images of a batch this process computes."""
    loader = learn.dls.train
    return -(-min(loader.bs or 1, len(loader.dataset)) // ranks.count())


def _sentence(learn: Learner, images: int, fitting: int, needed: int | None) -> str:
    # The power of two below, of a batch that ranks share.
    size = 2 ** (fitting.bit_length() - 1) * ranks.count()
    needs = "more" if needed is None else f"{needed / 1e9:,.1f} GB"
    free = free_bytes(learn.dls.device)
    there = "" if free is None else f" ({free / 1e9:,.1f} GB are free)"
    remedy = f"set batch_size to {size}, as by --set data.batch_size={size}"
    if images == 1:
        remedy = "take smaller images or a smaller net"
    return (
        f"a training step must fit into the memory of {learn.dls.device}{there}, but "
        f"{images:,} images need {needs}: {remedy}"
    )
