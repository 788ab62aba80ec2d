"""Learning-rate finder that leaves no trace: a training after it is the training without it.

    found = find_rates(learn)
    found.suggestions["valley"]             # (rate, smoothed loss there)

fastai's own leaves the random states and the loaders advanced and writes into `path`. Here the
state of the learner and of all it holds is kept in memory and put back in place, also when the
run is interrupted. The price is a second copy of weights and optimizer state while it runs.

Not put back: what lies inside datasets and transforms (a cache that was filled stays filled), and
attributes of foreign objects that a callback holds. A callback that writes or stops on its own
stays quiet while `hasattr(self.learn, "lr_finder")`, as fastai's own callbacks do.
"""

import dataclasses
import functools
import math
import random
import types
import warnings
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

import numpy as np
import torch
from fastai.callback.core import Callback, CancelFitException, CancelValidException
from fastai.callback.schedule import minimum, slide, steep, valley
from fastai.data.core import DataLoaders
from fastai.learner import Learner, Metric
from fastai.optimizer import Optimizer, OptimWrapper
from fastcore.basics import even_mults
from fastcore.foundation import L
from torch import Tensor, nn

_SKIPPED_END = 5  # steps: the last ones before a stop lie on the cliff; fastai's number
_SMOOTHING = 0.98  # share of the loss that is of the steps before: the Recorder's number
_FEWEST_LOSSES = {"slide": 16, "steep": 2}  # slide compares slopes 15 steps apart; others need 1
_RANDOM = (random.Random, np.random.Generator, np.random.RandomState, torch.Generator)
# A loader of fastai's augments one batch more, and draws for it, when it first needs these.
_LAZY = {"_n_inp", "_types"}
_OBJECTS = (
    *(Learner, Callback, Metric, L, Optimizer, OptimWrapper, types.SimpleNamespace),
    *(nn.Module, torch.optim.Optimizer, torch.optim.lr_scheduler.LRScheduler),
    torch.amp.GradScaler,
)


class Rates(NamedTuple):
    """What a run of the finder saw.

    Attributes:
        rates: learning rate of each step, of the last parameter group.
        losses: smoothed training loss after each step, all finite.
        suggestions: by the name of the method, the suggested rate and the smoothed loss there.
    """

    rates: tuple[float, ...]
    losses: tuple[float, ...]
    suggestions: dict[str, tuple[float, float]]


def largest(rates: Tensor, losses: Tensor, num_it: int) -> tuple[float, tuple[float, float]]:
    """Suggest the rate of the lowest loss: the largest that a cycle should rise to.

    Mostly it is ten times fastai's `minimum`, which is for a rate that stays. A cycle, which soon
    falls from its top, bears more than `valley` suggests. It is sought in the upper half of the
    sweep: a trained net's loss hardly falls, and that of the first few batches may be the lowest by
    chance. Only where it has risen by a tenth there, all rates count.

    Args:
        rates: of the finder's steps, without the first and the last ones.
        losses: after each of these steps.
        num_it: steps of the finder, which tell the half.

    Returns:
        the rate, and the point (rate, loss) of the curve that it stands for.

    Source: Smith 2018, arXiv:1803.09820.
    """
    half = num_it // 2 - num_it // 10  # `rates` begins after a tenth of the steps
    upper = losses[half:]
    skipped = half if len(upper) and upper.min() <= 1.1 * losses.min() else 0
    lowest = skipped + int(losses[skipped:].argmin())
    rate, loss = float(rates[lowest]), float(losses[lowest])
    return rate, (rate, loss)


SUGGESTIONS = (valley, steep, slide, minimum, largest)


def find_rates(
    learn: Learner,
    *,
    start_lr: float | Sequence[float] = 1e-7,
    end_lr: float | Sequence[float] = 10,
    num_it: int = 100,
    stop_div: bool = True,
    spread: float = 1.0,
    suggest_funcs: Sequence[Callable] = SUGGESTIONS,
) -> Rates:
    """Train `learn` with an exponentially growing learning rate, then put everything back.

    Step i trains at start_lr * (end_lr / start_lr) ** (i / num_it). The run goes round a training
    set of fewer batches than `num_it`, and ends early at the first loss that is not finite.

    Args:
        learn: any fastai Learner; freezing, callbacks and optimizer are used as they are.
        start_lr: first rate; a sequence gives one for each parameter group.
        end_lr: the rate after the last step, as `start_lr`.
        num_it: steps, at least 6.
        stop_div: stop when the smoothed loss exceeds four times its best.
        spread: the rates are the last parameter group's; the first's are divided by this, and those
            between lie evenly, in ratio.
        suggest_funcs: `largest`, and fastai's methods: `f(rates, losses, num_it) -> rate, point`.

    Raises:
        ValueError: the rates do not grow, or there is too little to learn a suggestion from.
    """
    start, end = np.asarray(start_lr, dtype=float), np.asarray(end_lr, dtype=float)
    if not (np.all(start > 0) and np.all(end > start)):
        raise ValueError(
            f"the rates must grow from above zero, got start_lr={start_lr} and end_lr={end_lr}"
        )
    if num_it < 6:
        raise ValueError(f"num_it must be at least 6 steps, got {num_it}")
    if len(learn.dls.train) == 0:
        raise ValueError("the training set must give at least one batch: lower the batch size")

    sweep = _Sweep(start, end, num_it, stop_div, spread)
    with untouched(learn), learn.no_logging():
        learn.fit(num_it // len(learn.dls.train) + 1, cbs=sweep)

    steps = num_it if sweep.exploded else len(sweep.losses)
    kept = slice(num_it // 10, max(steps - _SKIPPED_END, 0))
    rates, losses = torch.tensor(sweep.rates)[kept], torch.tensor(sweep.losses)[kept]
    suggestions = {}
    for suggest in suggest_funcs:
        name = getattr(suggest, "func", suggest).__name__  # a partial has its function's name
        fewest = _FEWEST_LOSSES.get(name, 1)
        if len(losses) < fewest:
            raise ValueError(
                f"{name} needs at least {fewest} finite losses after the first {num_it // 10} and "
                f"before the last {_SKIPPED_END} of {num_it} steps, got {len(losses)}: raise "
                f"num_it, or lower start_lr (now {start_lr})"
            )
        with warnings.catch_warnings():  # fastai's slide hands a tensor to numpy 2
            warnings.filterwarnings("ignore", "__array_wrap__", DeprecationWarning)
            rate = float(suggest(rates, losses, num_it)[0])
        # `minimum` suggests a tenth of the rate it points at: the loss is read at the suggestion.
        there = np.interp(math.log(rate), np.log(sweep.rates), sweep.losses)
        suggestions[name] = (rate, float(there))
    return Rates(tuple(sweep.rates), tuple(sweep.losses), suggestions)


@contextmanager
def untouched(learn: Learner) -> Iterator[None]:
    """Put the learner, what it holds and every random state back when the block ends, however."""
    memory = _Memory()
    memory.keep_randomness(learn.dls)
    memory.keep(learn)
    autocast = _autocast()
    try:
        yield
    finally:
        memory.restore()
        _restore_autocast(*autocast)


@contextmanager
def untouched_randomness(dls: DataLoaders) -> Iterator[None]:
    """Put every random state back, also the loaders' own, when the block ends, however."""
    memory = _Memory()
    memory.keep_randomness(dls)
    try:
        yield
    finally:
        memory.restore()


class _Sweep(Callback):
    """Raises the learning rate step by step and records the smoothed loss."""

    order, run_valid = 60, False  # after the Recorder, where fastai's finder stands
    name = "lr_finder"  # callbacks that must stay quiet look for this attribute of the learner

    def __init__(
        self, start: np.ndarray, end: np.ndarray, steps: int, stop_div: bool, spread: float
    ):
        self.start, self.end, self.steps, self.stop_div = start, end, steps, stop_div
        self.spread = spread
        self.rates: list[float] = []
        self.losses: list[float] = []
        self.average, self.exploded = torch.zeros(()), False

    def before_fit(self):
        self.shares = np.asarray(even_mults(1 / self.spread, 1, len(self.opt.hypers)))

    def before_batch(self):
        grown = (self.end / self.start) ** (self.train_iter / self.steps)
        self.opt.set_hyper("lr", (self.start * grown * self.shares).tolist())

    def after_batch(self):
        # fastai's smoothing, in float32 also where the loss is in half precision.
        self.average = torch.lerp(self.loss.detach().mean().float().cpu(), self.average, _SMOOTHING)
        loss = (self.average / (1 - _SMOOTHING ** (len(self.losses) + 1))).item()
        if not math.isfinite(loss):  # the weights are lost: every later loss is the same
            self.exploded = True
            raise CancelFitException
        self.rates.append(self.opt.hypers[-1]["lr"])
        self.losses.append(loss)
        diverged = self.stop_div and loss > 4 * min(self.losses)
        if diverged or self.train_iter >= self.steps:
            raise CancelFitException

    def before_validate(self):
        raise CancelValidException


class _Memory:
    """States of objects, found by walking what they hold, and put back into the same objects."""

    def __init__(self):
        self._undo: list[Callable[[], None]] = []
        self._seen: dict[int, object] = {}  # holds the objects, so that no id is used twice

    def restore(self) -> None:
        for undo in self._undo:
            undo()

    def keep(self, thing: object) -> None:
        """Remember `thing` and what it holds; objects of kinds not known here are left out."""
        if id(thing) in self._seen:
            return
        self._seen[id(thing)] = thing
        held: Sequence = ()
        match thing:
            case Tensor() if thing.layout is torch.strided and not thing.is_inference():
                self._undo.append(_tensor_restorer(thing))
                held = [thing.grad] if thing.is_leaf else []
            case np.ndarray() if thing.flags.writeable:
                self._undo.append(functools.partial(np.copyto, thing, thing.copy()))
            case list() | deque() | set():
                held = list(thing)
                self._undo.append(functools.partial(_refill, thing, held))
            case dict():
                held = list(thing.values())
                self._undo.append(functools.partial(_refill_dict, thing, dict(thing)))
            case tuple():
                held = thing
            case _ if isinstance(thing, _RANDOM):
                self._undo.append(_generator_restorer(thing))
            case _ if isinstance(thing, _OBJECTS) or dataclasses.is_dataclass(thing):
                # A class, and a dataclass with slots, has no dict of its own to restore.
                own = getattr(thing, "__dict__", None)
                held = [own] if isinstance(own, dict) else []
        for value in held:
            self.keep(value)

    def keep_randomness(self, dls: DataLoaders) -> None:
        """Remember the global random states and the generators that are attributes of loaders."""
        self._undo.append(functools.partial(random.setstate, random.getstate()))
        self._undo.append(functools.partial(np.random.set_state, np.random.get_state()))
        self._undo.append(functools.partial(torch.set_rng_state, torch.get_rng_state()))
        # Asking for CUDA's states starts CUDA: only where it runs or is about to.
        device = torch.device(getattr(dls, "device", None) or "cpu")
        if torch.cuda.is_initialized() or device.type == "cuda":
            states = torch.cuda.get_rng_state_all()
            self._undo.append(functools.partial(torch.cuda.set_rng_state_all, states))
        if device.type == "mps":
            self._undo.append(functools.partial(torch.mps.set_rng_state, torch.mps.get_rng_state()))
        for loader in dls.loaders:
            for name, value in list(vars(loader).items()):
                if isinstance(value, _RANDOM):
                    self.keep(value)
                    # fastai's loaders begin each epoch with a new generator of that name.
                    self._undo.append(functools.partial(vars(loader).__setitem__, name, value))
            for name in _LAZY - vars(loader).keys():
                self._undo.append(functools.partial(vars(loader).pop, name, None))


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
    if not same:  # most are: a second Ctrl-C then finds fewer of them empty
        thing.clear()
        thing.update(contents)


def _generator_restorer(generator) -> Callable[[], None]:
    match generator:
        case random.Random():
            return functools.partial(generator.setstate, generator.getstate())
        case np.random.Generator():
            bits = generator.bit_generator
            return functools.partial(setattr, bits, "state", bits.state)
    return functools.partial(generator.set_state, generator.get_state())


def _autocast() -> tuple[dict[str, tuple[bool, torch.dtype]], int]:
    """Return where autocast is on, in which type, and how deep it is nested."""
    modes = {
        device: (torch.is_autocast_enabled(device), torch.get_autocast_dtype(device))
        for device in ("cpu", "cuda")
    }
    torch.autocast_increment_nesting()
    return modes, torch.autocast_decrement_nesting()


def _restore_autocast(modes: dict[str, tuple[bool, torch.dtype]], depth: int) -> None:
    """Leave the autocast that an interrupted batch entered; its cached casts are of old weights."""
    for device, (enabled, dtype) in modes.items():
        torch.set_autocast_enabled(device, enabled)
        torch.set_autocast_dtype(device, dtype)
    torch.autocast_increment_nesting()
    while torch.autocast_decrement_nesting() > depth:
        pass
    torch.clear_autocast_cache()
