"""Signals: what stops a command, and what asks a training to save itself and stop.

SIGTERM, and SIGHUP of a closed terminal, stop a command as Ctrl-C does. SIGUSR1, with which Slurm
warns of the end of a job's time, asks a training to write a checkpoint after its running batch and
to end with `CHECKPOINTED`.
"""

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

# HTCondor's default for a job that saved itself and wants to be run again; others are free to
# choose theirs, and those below 64, or above 128, mean something else already.
CHECKPOINTED = 85
STOPPING = ("SIGTERM", "SIGHUP")
POLL_SECONDS = 1.0
LAST_SECONDS = 60.0  # for an orphan to write what it needs to be resumed


class Interrupted(KeyboardInterrupt):
    """A signal asked the command to stop, as Ctrl-C does; `code` is the exit code."""

    def __init__(self, number: int = signal.SIGINT):
        super().__init__(signal.Signals(number).name)
        self.code = 128 + number  # as shells have it


class Checkpointed(KeyboardInterrupt):
    """A training wrote a checkpoint, as it was asked to, and stopped."""

    code = CHECKPOINTED


_asked = threading.Event()


def is_asked() -> bool:
    """Whether a checkpoint was asked for, which ends a training."""
    return _asked.is_set()


def ask() -> None:
    """Ask the training of this process for a checkpoint, after which it ends."""
    _asked.set()


@contextmanager
def handled() -> Iterator[None]:
    """Handle the signals within the block; only the main thread can."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(number: int, frame: FrameType | None) -> None:
        raise Interrupted(number)

    def checkpoint(number: int, frame: FrameType | None) -> None:
        ask()

    taken = {}
    for name, handler in (*((name, stop) for name in STOPPING), ("SIGUSR1", checkpoint)):
        number = getattr(signal, name, None)  # Windows has neither SIGHUP nor SIGUSR1
        if number is not None and signal.getsignal(number) is not signal.SIG_IGN:  # nohup
            taken[number] = signal.signal(number, handler)
    try:
        yield
    finally:
        for number, before in taken.items():
            signal.signal(number, before)
        _asked.clear()


def end_with_parent(parent: int) -> None:
    """Stop this process as SIGTERM does when its parent, by its process id, is gone.

    A parent that is killed can tell its children nothing.
    """

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(POLL_SECONDS)
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(LAST_SECONDS)
        os.kill(os.getpid(), signal.SIGKILL)

    if os.name == "posix":
        threading.Thread(target=watch, name="fastcv-parent", daemon=True).start()
