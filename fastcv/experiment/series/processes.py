"""Run commands in parallel, each with a log, and leave no orphans."""

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

POLL_SECONDS = 0.2
STOP_SECONDS = 60.0  # for an interrupted training to finish its files and its tracking


@dataclass(frozen=True, kw_only=True)
class Task:
    """A command, and the file for its output, which is overwritten; its folder must exist."""

    command: tuple[str, ...]
    log: Path


def run_tasks(
    tasks: Sequence[Task],
    at_once: int,
    *,
    started: Callable[[Task], None],
    ended: Callable[[Task, int], None],
    watched: Callable[[list[Task]], None] = lambda running: None,
) -> None:
    """Run every task in its own process, with the processor's threads divided among them.

    Ctrl-C, SIGTERM and SIGHUP interrupt the running tasks and wait for them to write what they
    need to be resumed; a second one kills them.

    Args:
        tasks: in the order they start.
        at_once: how many run at the same time, at most.
        started: called as each task starts.
        ended: called as each task ends, with its exit status: negative, the signal that killed it.
        watched: called several times a second with the running tasks.
    """
    waiting = list(tasks)
    running: dict[Task, subprocess.Popen] = {}
    environment = _environment(max(1, min(at_once, len(waiting))))
    with _interruptible():
        try:
            while waiting or running:
                while waiting and len(running) < at_once:
                    task = waiting.pop(0)
                    running[task] = _start(task, environment)
                    started(task)
                time.sleep(POLL_SECONDS)
                for task, process in list(running.items()):
                    if process.poll() is not None:
                        del running[task]
                        ended(task, process.returncode)
                watched(list(running))
        finally:
            _stop(list(running.values()))


def _environment(at_once: int) -> dict[str, str]:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    # More threads than cores slow each other down many times over.
    divided = {"OMP_NUM_THREADS": str(max(1, (cores or 1) // at_once))}
    return divided | os.environ | {"PYTHONUNBUFFERED": "1"}  # logs are read while they grow


def _start(task: Task, environment: dict[str, str]) -> subprocess.Popen:
    with task.log.open("wb") as log:
        return subprocess.Popen(
            task.command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            env=environment,
            # The terminal's Ctrl-C must not reach it as well: a second interrupt would cut short
            # what it still has to write.
            start_new_session=True,
        )


def _stop(processes: list[subprocess.Popen]) -> None:
    """Interrupt processes, wait for them, and kill those that are left."""
    if sys.platform != "win32":  # where Ctrl-C has already reached them
        for process in processes:
            process.send_signal(signal.SIGINT)
    last = time.monotonic() + STOP_SECONDS
    try:
        for process in processes:
            process.wait(max(0.0, last - time.monotonic()))
    except (subprocess.TimeoutExpired, KeyboardInterrupt):
        for process in processes:
            if process.poll() is None:
                if sys.platform == "win32":
                    process.kill()
                else:
                    os.killpg(process.pid, signal.SIGKILL)  # with its own children
                process.wait()


@contextlib.contextmanager
def _interruptible() -> Iterator[None]:
    """Treat SIGTERM, and SIGHUP of a closed terminal, as Ctrl-C, so that no child outlives us."""
    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread may set signal handlers
        return

    def interrupt(number: int, frame: object) -> None:
        raise KeyboardInterrupt

    taken = {}
    for name in ("SIGTERM", "SIGHUP"):
        number = getattr(signal, name, None)  # Windows has no SIGHUP
        if number is not None and signal.getsignal(number) is not signal.SIG_IGN:
            taken[number] = signal.signal(number, interrupt)
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        # So it is in a shell's background. Children would inherit that, and could not be
        # interrupted; a function that does nothing is not inherited.
        taken[signal.SIGINT] = signal.signal(signal.SIGINT, lambda number, frame: None)
    try:
        yield
    finally:
        for number, before in taken.items():
            signal.signal(number, before)
