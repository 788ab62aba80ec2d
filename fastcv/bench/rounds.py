"""Fair timing: contenders take turns in interleaved rounds, each after a warm-up."""

import random
import time
from collections.abc import Callable, Iterable, Iterator
from statistics import median as median
from statistics import quantiles

import torch
from fastai.callback.core import Callback, CancelFitException, CancelValidException

# Not timed: a round starts worker processes, fills their queues, and wakes a processor that the
# contender before has left in another state.
WARM_UP_BATCHES = 2
WARM_UP_SECONDS = 0.5

Contenders = dict[str, Callable[[], float]]  # each measures one round


class Clock:
    """Tell a loop over batches when to stop, and measure its speed.

    A round is a warm-up, then as many images as the first round finished in `seconds`, so that
    every round does the same work. The clock is read after a GPU has finished.
    """

    def __init__(self, device: torch.device, seconds: float):
        self.device = device
        self.seconds = seconds
        self.goal: int | None = None  # images in a round's timed part, set by the first round
        self.start()

    def measure(self, run: Callable[["Clock"], None]) -> float:
        """Measure a round of a loop, in images per second."""
        self.start()
        run(self)
        return self.rate

    def start(self) -> None:
        """Start a round with its warm-up."""
        self.warmed = 0
        self.images = 0
        self.rate = 0.0
        self.running = False
        self.began = time.perf_counter()

    def tick(self, images: int) -> bool:
        """Count a finished batch, and return whether the round is over."""
        if not self.running:
            self.warmed += 1
            warm = time.perf_counter() - self.began >= min(WARM_UP_SECONDS, self.seconds)
            if warm and self.warmed >= WARM_UP_BATCHES:
                self.running = True
                self.began = self._now()
            return False
        self.images += images
        if self.goal is None:
            if time.perf_counter() - self.began < self.seconds:
                return False
            self.goal = self.images
        elif self.images < self.goal:
            return False
        self.rate = self.images / (self._now() - self.began)
        return True

    def batches(self, loader: Iterable[tuple]) -> Iterator[tuple]:
        """Pass a loader's batches on, epoch after epoch, until the round is over."""
        while True:
            for batch in loader:
                yield batch
                if self.tick(len(batch[0])):
                    return

    def _now(self) -> float:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return time.perf_counter()


class Stopwatch(Callback):
    """Time a fit with a `Clock`: end it with the round, and skip validation."""

    order = 1000  # after every callback whose work counts

    def __init__(self, clock: Clock):
        self.clock = clock

    def before_validate(self) -> None:
        """Skip validation: with small data sets a round has many epochs."""
        raise CancelValidException

    def after_batch(self) -> None:
        """Count the batch."""
        if self.clock.tick(len(self.learn.xb[0])):
            raise CancelFitException


def drain(loader: Iterable, clock: Clock) -> None:
    """Take batches from a loader until the round is over."""
    for _ in clock.batches(loader):
        pass


def interleaved(contenders: Contenders, rounds: int) -> dict[str, list[float]]:
    """Measure every contender once in each round, in a new order each time.

    Changes of the machine (heat, other programs) and aftereffects of the contender before then
    affect all contenders alike. The orders are the same on every machine; the measurements are
    returned in the order of the rounds.
    """
    measured: dict[str, list[float]] = {name: [] for name in contenders}
    for number in range(rounds):
        for name in random.Random(number).sample(list(contenders), len(contenders)):
            measured[name].append(contenders[name]())
    return measured


def quartiles(values: list[float]) -> list[float]:
    """Return the first and third quartile, which enclose the middle half of the rounds."""
    if len(values) == 1:
        return [values[0], values[0]]
    first, _, third = quantiles(values, n=4, method="inclusive")
    return [first, third]
