"""Restore a Learner and every random state when a block ends, also by an exception.

    with snapshot(learn):
        learn.fit(1)  # leaves no trace

The state of the Learner and of everything it holds is copied in memory and put back into the same
objects. The price is a second copy of weights and optimizer state. Not restored: the insides of
Datasets and transforms (a filled cache stays filled), and attributes of objects of other libraries
that a callback holds.
"""

import dataclasses
import random
import types
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager

import numpy as np
import torch
from fastai.callback.core import Callback
from fastai.data.core import DataLoaders
from fastai.learner import Learner, Metric
from fastai.optimizer import Optimizer, OptimWrapper
from fastcore.foundation import L
from torch import Tensor, nn

_RANDOM = (random.Random, np.random.Generator, np.random.RandomState, torch.Generator)
# When fastai's loader first needs these, it makes and augments an extra batch, with random draws.
_LAZY = {"_n_inp", "_types"}
_OBJECTS = (
    *(Learner, Callback, Metric, L, Optimizer, OptimWrapper, types.SimpleNamespace),
    *(nn.Module, torch.optim.Optimizer, torch.optim.lr_scheduler.LRScheduler),
    torch.amp.GradScaler,
)


@contextmanager
def snapshot(learn: Learner) -> Iterator[None]:
    """Restore the learner, what it holds and every random state when the block ends."""
    with _Memory() as memory:
        memory.keep_autocast()
        memory.keep(learn)
        memory.keep_randomness(learn.dls)
        yield


@contextmanager
def snapshot_rng(dls: DataLoaders) -> Iterator[None]:
    """Restore every random state, including the loaders' own, when the block ends."""
    with _Memory() as memory:
        memory.keep_randomness(dls)
        yield


def random_states(device: torch.device, *, own: bool = True) -> tuple:
    """Return the global random states, to see whether numbers were drawn.

    Args:
        device: where a net computes.
        own: whether to include the generator that torch uses on `device`.
    """
    _, keys, *rest = np.random.get_state()
    processor = torch.get_rng_state().tolist() if own or device.type != "cpu" else None
    gpu = torch.cuda.get_rng_state(device).tolist() if own and device.type == "cuda" else None
    return random.getstate(), keys.tolist(), rest, processor, gpu


class _Memory(ExitStack):
    """Puts the states of objects, and of what they hold, back into the same objects."""

    def __init__(self):
        super().__init__()
        self._seen: dict[int, object] = {}  # keeps the objects alive, so that ids stay unique

    def keep(self, thing: object) -> None:
        """Remember `thing` and what it holds; objects of unknown classes are skipped."""
        if id(thing) in self._seen:
            return
        self._seen[id(thing)] = thing
        held: Sequence = ()
        match thing:
            case Tensor() if thing.layout is torch.strided and not thing.is_inference():
                self.callback(_tensor_restorer(thing))
                held = [thing.grad] if thing.is_leaf else []
            case np.ndarray() if thing.flags.writeable:
                self.callback(np.copyto, thing, thing.copy())
            case list() | deque() | set():
                held = list(thing)
                self.callback(_refill, thing, held)
            case dict():
                held = list(thing.values())
                self.callback(_refill_dict, thing, dict(thing))
            case tuple():
                held = thing
            case random.Random():
                self.callback(thing.setstate, thing.getstate())
            case np.random.Generator():
                self.callback(setattr, thing.bit_generator, "state", thing.bit_generator.state)
            case np.random.RandomState() | torch.Generator():
                self.callback(thing.set_state, thing.get_state())
            case _ if isinstance(thing, _OBJECTS) or dataclasses.is_dataclass(thing):
                # A class, and a dataclass with slots, has no dict to restore.
                own = getattr(thing, "__dict__", None)
                held = [own] if isinstance(own, dict) else []
        for value in held:
            self.keep(value)

    def keep_autocast(self) -> None:
        """Remember autocast's state and type for each device, and its nesting depth."""
        modes = {
            device: (torch.is_autocast_enabled(device), torch.get_autocast_dtype(device))
            for device in ("cpu", "cuda")
        }
        torch.autocast_increment_nesting()
        self.callback(_restore_autocast, modes, torch.autocast_decrement_nesting())

    def keep_randomness(self, dls: DataLoaders) -> None:
        """Remember the global random states and the generators that are attributes of loaders."""
        self.callback(random.setstate, random.getstate())
        self.callback(np.random.set_state, np.random.get_state())
        self.callback(torch.set_rng_state, torch.get_rng_state())
        # Reading CUDA's states initializes CUDA: only where it runs or is about to.
        device = torch.device(getattr(dls, "device", None) or "cpu")
        if torch.cuda.is_initialized() or device.type == "cuda":
            self.callback(torch.cuda.set_rng_state_all, torch.cuda.get_rng_state_all())
        if device.type == "mps":
            self.callback(torch.mps.set_rng_state, torch.mps.get_rng_state())
        for loader in dls.loaders:
            for name, value in list(vars(loader).items()):
                if isinstance(value, _RANDOM):
                    self.keep(value)
                    # fastai's loaders put a new generator there in each epoch.
                    self.callback(vars(loader).__setitem__, name, value)
            for name in _LAZY - vars(loader).keys():
                self.callback(vars(loader).pop, name, None)


def _tensor_restorer(tensor: Tensor) -> Callable[[], None]:
    values, leaf, requires_grad = tensor.detach().clone(), tensor.is_leaf, tensor.requires_grad
    grad = tensor.grad if leaf else None

    def undo():
        if _layout(tensor) == _layout(values):
            with torch.no_grad():
                tensor.copy_(values)
        else:
            tensor.data = values
        if leaf:
            tensor.requires_grad_(requires_grad)
            tensor.grad = grad

    return undo


def _layout(tensor: Tensor) -> tuple:
    return tensor.device, tensor.dtype, tensor.shape, tensor.stride()


def _refill(thing: list | deque | set, contents: list) -> None:
    thing.clear()
    thing.update(contents) if isinstance(thing, set) else thing.extend(contents)


def _refill_dict(thing: dict, contents: dict) -> None:
    same = list(thing) == list(contents) and all(thing[k] is v for k, v in contents.items())
    if not same:  # rewriting few of them leaves a second Ctrl-C fewer empty ones to hit
        thing.clear()
        thing.update(contents)


def _restore_autocast(modes: dict[str, tuple[bool, torch.dtype]], depth: int) -> None:
    """Leave the autocast that an interrupted batch entered; its cached casts hold old weights."""
    for device, (enabled, dtype) in modes.items():
        torch.set_autocast_enabled(device, enabled)
        torch.set_autocast_dtype(device, dtype)
    torch.autocast_increment_nesting()
    while torch.autocast_decrement_nesting() > depth:
        pass
    torch.clear_autocast_cache()
