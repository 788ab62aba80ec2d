"""Say within the first epoch that other programs take the processors a training computes on."""

import os
import time
from dataclasses import dataclass
from pathlib import Path

import torch
from fastai.callback.core import Callback

from fastcv.learning.cpu import cores

SECONDS = 5.0  # of training that are measured; a shorter epoch is measured as a whole
FEWEST_SECONDS = 1.0
TAKEN = 0.25  # of the processors by others: from here on it is said
SHARE = 0.85  # of its threads' time that a training gets on an idle machine, at least
_STAT = Path("/proc/stat")
# Columns of a processor's line: user, nice, system, irq, softirq, steal. Idle and iowait are not
# work, and guests are counted among users.
_WORK = (1, 2, 3, 6, 7, 8)


@dataclass(frozen=True, kw_only=True)
class Clocks:
    """Seconds so far: of a clock, of this process's processor time, and of all processes' on it.

    Attributes:
        wall: seconds of the clock.
        own: seconds that the threads of this process computed.
        every: seconds that the processors of this process worked for anybody.
    """

    wall: float
    own: float
    every: float

    @classmethod
    def now(cls) -> "Clocks | None":
        """Read the clocks; None on another system than Linux."""
        try:
            lines = _STAT.read_text(encoding="ascii").splitlines()
            usable = {f"cpu{number}" for number in os.sched_getaffinity(0)}
            columns = [line.split() for line in lines]
            ticks = sum(int(each[i]) for each in columns if each[0] in usable for i in _WORK)
        except (OSError, ValueError, IndexError, AttributeError):
            return None
        every = ticks / os.sysconf("SC_CLK_TCK")
        return cls(wall=time.perf_counter(), own=time.process_time(), every=every)


def busy(before: Clocks, after: Clocks, processors: int, threads: int) -> str | None:
    """Return a sentence if a training had to wait for other programs; else None.

    Args:
        before: the clocks when it began.
        after: the clocks some seconds later.
        processors: that it may use.
        threads: with which it computes.
    """
    wall, own = after.wall - before.wall, after.own - before.own
    taken = max(after.every - before.every - own, 0.0) / wall  # processors
    wanted = min(threads, processors)
    if taken < TAKEN * processors or own > SHARE * wall * wanted:
        return None
    free = max(1, int(processors - taken + 0.5))
    remedy = f", or start with --threads {free}" if free < threads else ""
    return (
        f"the machine is busy: other programs take {taken:.1f} of {processors} processors, which "
        f"can cost most of the speed; stop them, or wait for them{remedy}"
    )


class Busy(Callback):
    """Measure the first seconds of a training, and print a line if others take the processors."""

    order, run_valid = 58, False

    def __init__(self) -> None:
        self._before: Clocks | None = None
        self._done = False

    def before_train(self) -> None:
        """Start the clocks."""
        learn = self.learn
        workers = getattr(getattr(learn.dls.train, "fake_l", None), "num_workers", 0)
        if learn.borrowed or self._done or workers or learn.dls.device.type != "cpu":
            return  # what other processes of its own do would look like somebody else's
        self._before = Clocks.now()
        self._done = self._before is None

    def after_batch(self) -> None:
        """Look after some seconds."""
        if self._before is not None and time.perf_counter() - self._before.wall >= SECONDS:
            self._look()

    def after_train(self) -> None:
        """Look when the epoch is over."""
        if self._before is not None and time.perf_counter() - self._before.wall >= FEWEST_SECONDS:
            self._look()
        self._before = None

    def _look(self) -> None:
        before, self._before, self._done = self._before, None, True
        after = Clocks.now()
        if after and (line := busy(before, after, cores(), torch.get_num_threads())):
            self.learn.epoch_lines.line(line)
