"""Run commands in parallel, each with a log, and leave no orphans."""

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from fastcv.interruption import Checkpointed, handled, is_asked
from fastcv.learning.cpu import cores

POLL_SECONDS = 0.2
STOP_SECONDS = 60.0  # for an interrupted training to finish its files and its tracking


@dataclass(frozen=True, kw_only=True)
class Task:
    """A command, and the file for its output, which is overwritten; its folder must exist."""

    command: tuple[str, ...]
    log: Path


def run_tasks(
    take: Callable[[], Task | None],
    at_once: int,
    *,
    started: Callable[[Task], None],
    ended: Callable[[Task, int], None],
    watched: Callable[[list[Task]], Iterable[Task]] = lambda running: (),
) -> None:
    """Run every task in its own process, with the processor's threads divided among them.

    Ctrl-C, SIGTERM and SIGHUP interrupt the running tasks and wait for them to write what they
    need to be resumed; a second one kills them. If a checkpoint is asked for (SIGUSR1), the running
    tasks are asked for theirs, and no other starts.

    Args:
        take: returns the next task to start; None if there is none, until another has ended.
        at_once: how many run at the same time, at most.
        started: called as each task starts.
        ended: called as each task ends, with its exit status: negative, the signal that killed it.
        watched: called several times a second with the running tasks; returns those to interrupt.

    Raises:
        KeyboardInterrupt: a signal stopped the tasks.
        Checkpointed: a checkpoint was asked for, and the running tasks have ended.
    """
    exhausted = told = False  # told: the running tasks, to make a checkpoint
    running: dict[Task, subprocess.Popen] = {}
    environment = _environment(at_once)
    with handled(), _interruptible():
        try:
            while running or not exhausted:
                while not exhausted and len(running) < at_once:
                    if (task := take()) is None:
                        exhausted = True
                        break
                    running[task] = _start(task, environment)
                    started(task)
                if running:
                    time.sleep(POLL_SECONDS)
                for task, process in list(running.items()):
                    if process.poll() is not None:
                        del running[task]
                        ended(task, process.returncode)
                        exhausted = told
                if is_asked() and not told:
                    exhausted = told = True
                    for process in running.values():
                        process.send_signal(signal.SIGUSR1)
                for task in watched(list(running)):
                    _interrupt(running[task])
            if told:
                raise Checkpointed
        finally:
            _stop(list(running.values()))


def threads_of_each(at_once: int) -> int:
    """Return the threads that each of some processes computes with, unless it is told otherwise."""
    given = os.environ.get("OMP_NUM_THREADS", "")
    # More threads than cores slow each other down many times over.
    return int(given) if given.isdigit() and int(given) > 0 else max(1, cores() // at_once)


def _environment(at_once: int) -> dict[str, str]:
    divided = {"OMP_NUM_THREADS": str(threads_of_each(at_once))}
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


def _interrupt(process: subprocess.Popen) -> None:
    if sys.platform != "win32":  # where Ctrl-C has already reached it
        process.send_signal(signal.SIGINT)


def _stop(processes: list[subprocess.Popen]) -> None:
    """Interrupt processes, wait for them, and kill those that are left."""
    for process in processes:
        _interrupt(process)
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
    """Let children be interrupted where this process ignores SIGINT, as in a shell's background.

    They would inherit that; a function that does nothing is not inherited.
    """
    main = threading.current_thread() is threading.main_thread()
    if not main or signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
        yield
        return
    signal.signal(signal.SIGINT, lambda number, frame: None)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
