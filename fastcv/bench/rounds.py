"""Fair timing: contenders in turn, round after round, warm-up left out."""

import random
import statistics
import time
from collections.abc import Callable, Iterable, Mapping

import torch
from fastai.callback.core import Callback, CancelFitException, CancelValidException

# What a round begins with and does not count: starting worker processes, filling and draining
# their queues, and waking a processor that other contenders have left in another state.
WARM_UP_BATCHES = 2
WARM_UP_SECONDS = 0.5


class Clock:
    """Tells a loop over batches when to stop, and how fast it was.

    Each round has a warm-up, then as many images as the first round got done in `seconds`, so that
    every round does the same work.

    Args:
        device: where the work is done; a GPU is waited for before the clock is read.
        seconds: that the timed part of the first round takes.
    """

    def __init__(self, device: torch.device, seconds: float):
        self.device = device
        self.seconds = seconds
        self.goal: int | None = None  # images of each round's timed part; the first one sets it
        self.start()

    def start(self) -> None:
        """Begin a round with its warm-up."""
        self.warmed = 0
        self.images = 0
        self.rate = 0.0
        self.running = False
        self.began = time.perf_counter()

    def tick(self, images: int) -> bool:
        """Count a batch that is done; say whether the round is over."""
        if not self.running:
            self.warmed += 1
            if self.warmed >= WARM_UP_BATCHES and time.perf_counter() - self.began >= min(
                WARM_UP_SECONDS, self.seconds
            ):
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

    def _now(self) -> float:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return time.perf_counter()


class Stopwatch(Callback):
    """Time a fit with a `Clock`, end it with the round, and leave validation out of it."""

    order = 1000  # behind every callback whose work counts

    def __init__(self, clock: Clock):
        self.clock = clock

    def before_validate(self) -> None:
        """Go on with the next epoch: small data sets have many in a round."""
        raise CancelValidException

    def after_batch(self) -> None:
        """Count the batch."""
        if self.clock.tick(len(self.learn.xb[0])):
            raise CancelFitException


def timed(run: Callable[[Clock], None], clock: Clock) -> Callable[[], float]:
    """Make of a loop that obeys a clock a contender that returns images per second."""

    def round_() -> float:
        clock.start()
        run(clock)
        return clock.rate

    return round_


def drained(batches: Iterable, clock: Clock) -> None:
    """Take batches from a loader, epoch after epoch, until the clock says stop."""
    while True:
        for batch in batches:
            if clock.tick(len(batch[0])):
                return


def interleaved(
    contenders: Mapping[str, Callable[[], float]], rounds: int
) -> dict[str, list[float]]:
    """Let all contenders measure once, then all again, and so on, each round in another order.

    What changes on the machine meanwhile (heat, other programs) so meets all of them alike, and so
    does what the contender before leaves behind. The orders are the same on every machine.

    Returns:
        For each contender what it measured, in the order of the rounds.
    """
    measured: dict[str, list[float]] = {name: [] for name in contenders}
    for number in range(rounds):
        for name in random.Random(number).sample(list(contenders), len(contenders)):
            measured[name].append(contenders[name]())
    return measured


def median(values: list[float]) -> float:
    """The middle of what was measured."""
    return statistics.median(values)


def quartiles(values: list[float]) -> list[float]:
    """First and third quartile: between them lies the middle half of the rounds."""
    if len(values) == 1:
        return [values[0], values[0]]
    first, _, third = statistics.quantiles(values, n=4, method="inclusive")
    return [first, third]
