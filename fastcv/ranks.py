"""The ranks of a training: processes that train one net together, on one machine or several.

A launcher starts them (`torchrun`, `accelerate launch`, `srun`), each with the same command, and
tells them by RANK, WORLD_SIZE, LOCAL_RANK, MASTER_ADDR and MASTER_PORT who they are. The first one,
rank 0, writes and prints. This module knows the others; whatever computes asks it, and where there
is one process alone, each question costs a comparison.

There are two groups. Gradients and other tensors go through one of nccl on GPUs, of gloo on a
processor: who does not answer there within `SECONDS` is lost. Objects and waiting go through one of
gloo that is patient, since the first rank may decode images, seek a learning rate or write to a
slow disk meanwhile; a process that ends closes its connections, which the others notice at once.
"""

import os
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from functools import cache
from typing import TYPE_CHECKING, Any, TypeVar
from uuid import uuid4

if TYPE_CHECKING:
    from torch import Tensor

SECONDS = 45  # for the others to answer, while all of them train
TOLD = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")
_STARTING = timedelta(minutes=10)  # for all of them to be there: imports from a slow disk
_PATIENT = timedelta(days=1)
# A failure of the same kind on every rank is printed by the first: the launcher ends the others.
_LAUNCHER_SECONDS = 5.0
# What gloo, nccl and torch's store say of a rank that is gone.
_LOST = (
    "gloo", "nccl", "connection closed by peer", "connection reset", "connection refused",
    "broken pipe", "timed out", "socket", "tcpstore",
)  # fmt: skip

Value = TypeVar("Value")


class Lost(ValueError):
    """Another rank has ended, or cannot be reached."""


@dataclass(frozen=True, kw_only=True)
class _Joined:
    rank: int
    count: int
    local: int  # the rank among those of this machine
    tensors: Any  # the process group of tensors on the ranks' devices
    patient: Any  # that of objects, and of waiting


_joined: _Joined | None = None
_alone = 0  # blocks that are open


def asked() -> int:
    """Return how many ranks the launcher has started; 1 without one."""
    if _joined is not None:
        return _joined.count
    return max(_told("WORLD_SIZE", 1), 1) if "RANK" in os.environ else 1


def own() -> int:
    """Return which of them this process is, from 0."""
    return _told("RANK", 0) if asked() > 1 else 0


def count() -> int:
    """Return how many ranks work together here; 1 without others, and while this one is alone."""
    return 1 if _joined is None or _alone else _joined.count


def rank() -> int:
    """Return the number of this rank among those that work together, from 0."""
    return 0 if _joined is None or _alone else _joined.rank


def is_first() -> bool:
    """Whether this process writes and prints."""
    return _joined is None or _joined.rank == 0


def local() -> int | None:
    """Return the number of this rank on its machine; None without others."""
    return None if _joined is None else _joined.local


def tensor_group() -> Any:
    """Return torch's process group for tensors, which DDP needs."""
    return _joined.tensors


@contextmanager
def joined(device: str | None = None) -> Iterator[None]:
    """Join the other ranks that the launcher has started, as long as the block runs.

    Args:
        device: what the ranks compute on, as "cpu"; None takes a GPU each where there are some.

    Raises:
        ValueError: the launcher tells too little, or there is no GPU for this rank.
        Lost: another rank has ended.
    """
    global _joined
    if asked() == 1 or _joined is not None:
        yield
        return
    import torch  # what only asks must not wait for it

    if missing := [name for name in TOLD if name not in os.environ]:
        raise ValueError(
            f"several processes must be told {', '.join(TOLD)} by their launcher, there is no "
            f"{', '.join(missing)}: start them with torchrun"
        )
    gpu = torch.cuda.is_available() if device is None else str(device).startswith("cuda")
    if gpu and torch.cuda.is_available():
        torch.cuda.set_device(gpu_of(_told("LOCAL_RANK", 0)))
    with lost_in_words():
        _joined = _meet("nccl" if gpu else "gloo")
    # fastai would gather predictions and wait by itself, which does not fit.
    size = os.environ.pop("WORLD_SIZE")
    try:
        with lost_in_words():
            yield
    finally:
        _joined = None
        os.environ["WORLD_SIZE"] = size


@cache
def _meet(backend: str) -> _Joined:
    """Make the process groups; they stay until the process ends, as the launcher's store does."""
    from torch import distributed

    if not distributed.is_initialized():
        store, rank, count = next(distributed.rendezvous("env://", timeout=_STARTING))
        store = distributed.PrefixStore(_fresh(store, rank, count), store)
        distributed.init_process_group(
            "gloo", timeout=_STARTING, store=store, rank=rank, world_size=count
        )
    return _Joined(
        rank=own(),
        count=asked(),
        local=_told("LOCAL_RANK", 0),
        tensors=distributed.new_group(backend=backend, timeout=timedelta(seconds=SECONDS)),
        patient=distributed.new_group(backend="gloo", timeout=_PATIENT),
    )


def _fresh(store: Any, rank: int, count: int) -> str:
    """Agree on a name for what is kept in the launcher's store.

    torchrun keeps the store when it starts all ranks again, with the addresses of those that are
    gone. Its count of restarts is no such name: each machine counts its own.
    """
    own, deadline = uuid4().hex, time.monotonic() + _STARTING.total_seconds()
    others = range(1, count)
    store.set(f"fastcv/{rank}", own)
    while time.monotonic() < deadline:
        if rank == 0:
            there = [store.get(f"fastcv/{each}").decode() for each in others]
            store.set("fastcv/all", " ".join([own, *there]))
            agreed = [f"fastcv/agreed/{each}" for each in others]
            if store.check(agreed) and all(store.get(each).decode() == own for each in agreed):
                return own
        else:
            first, *there = store.get("fastcv/all").decode().split()
            if own in there:  # else it is what an earlier attempt wrote, or is not complete
                store.set(f"fastcv/agreed/{rank}", first)
                return first
        time.sleep(0.1)
    raise Lost(f"all {count} ranks must start within {_STARTING}, some are missing")


def gpu_of(local: int) -> int:
    """Return the number of a rank's GPU, among those that its process sees.

    Raises:
        ValueError: there are too few.
    """
    import torch

    there = torch.cuda.device_count()
    if there == 1:  # srun --gpus-per-task=1 shows each process its own
        return 0
    if local >= there:
        raise ValueError(
            f"each rank must have its own GPU, there are {there} for rank {local} of this machine "
            f"(counted from 0): start at most {there} processes on it, or add --device cpu"
        )
    return local


@contextmanager
def alone() -> Iterator[None]:
    """Let this process compute by itself within the block, as if there were no others."""
    global _alone
    _alone += 1
    try:
        yield
    finally:
        _alone -= 1


@contextmanager
def lost_in_words() -> Iterator[None]:
    """Say in a sentence that another rank is gone.

    Raises:
        Lost: it is.
    """
    try:
        yield
    except RuntimeError as error:
        text = " ".join(str(error).split())
        if asked() == 1 or not any(each in text.lower() for each in _LOST):
            raise
        raise Lost(
            "all ranks must go on until the end, but another one has ended, or did not answer "
            f"within {SECONDS} seconds: its own message, or the launcher's, says why ({text[:160]})"
        ) from error


def wait() -> None:
    """Wait until every rank is here."""
    if count() > 1:
        from torch import distributed

        distributed.barrier(group=_joined.patient)


@contextmanager
def machine_first() -> Iterator[None]:
    """Let the first rank of each machine run the block before the others do.

    It decodes images into the cache, or fetches weights, which the others then find.
    """
    if _joined is not None and _joined.local:
        wait()
    yield
    if _joined is not None and not _joined.local:
        wait()
    wait()


def from_first(value: Value) -> Value:
    """Return the first rank's value on every rank; anything that can be pickled."""
    if count() == 1:
        return value
    from torch import distributed

    values = [value if is_first() else None]
    distributed.broadcast_object_list(values, src=0, group=_joined.patient)
    return values[0]


def by_first(function: Callable[[], Value]) -> Value:
    """Let the first rank call a function, alone, and return its value on every rank."""
    if count() == 1:
        return function()
    found = None
    if is_first():
        with alone():
            found = function()
    return from_first(found)


def gathered(value: Value) -> list[Value]:
    """Return the values of all ranks, in their order, on every rank."""
    if count() == 1:
        return [value]
    from torch import distributed

    values: list[Any] = [None] * count()
    distributed.all_gather_object(values, value, group=_joined.patient)
    return values


def any_of(*flags: bool) -> tuple[bool, ...]:
    """Return for each flag whether it is set on some rank."""
    if count() == 1:
        return flags
    import torch
    from torch import distributed

    found = torch.tensor(flags, dtype=torch.uint8)
    distributed.all_reduce(found, distributed.ReduceOp.MAX, group=_joined.patient)
    return tuple(map(bool, found.tolist()))


def summed(tensor: "Tensor") -> "Tensor":
    """Return the sum of the ranks' tensors, which lie on their devices; the argument may change."""
    if count() > 1:
        from torch import distributed

        distributed.all_reduce(tensor, group=_joined.tensors)
    return tensor


def copy_from(source: int, tensors: Iterable["Tensor"]) -> None:
    """Copy the tensors of one rank into those of all others, which lie on their devices."""
    if count() > 1:
        from torch import distributed

        for tensor in tensors:
            distributed.broadcast(tensor, src=source, group=_joined.tensors)


def leave_to_first() -> None:
    """Wait a moment with this rank's message: the first one says the same, if it fails as well."""
    if own() > 0:
        time.sleep(_LAUNCHER_SECONDS)


def _told(name: str, default: int) -> int:
    text = os.environ.get(name, "")
    if not text:
        return default
    try:
        return int(text)
    except ValueError as error:
        raise ValueError(
            f"{name} must be a whole number, which the launcher sets, got {text!r}"
        ) from error
