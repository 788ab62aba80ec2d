"""The running of a series: one job after another in this process, or several in their own."""

import gc
import json
import os
import shutil
import sys
import time
import traceback
from collections.abc import Callable, MutableMapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

import torch

from fastcv import tracking
from fastcv.experiment import directory
from fastcv.experiment.building import find_device
from fastcv.experiment.series import record
from fastcv.experiment.series.jobs import Job, resumable
from fastcv.experiment.series.processes import Task, run_tasks, threads_of_each
from fastcv.experiment.series.tables import in_words
from fastcv.experiment.train import Pruned, train
from fastcv.learning.callbacks.checkpoint import EVERY_MINUTES

LIVE_SECONDS = 1.0  # between two changes of the live line
OPTIONS = ("out", "wandb", "device", "threads", "checkpoint_every")  # of `fastcv recipe`


class Queue(Protocol):
    """Where the runner takes its jobs from, and what it tells of each."""

    jobs: MutableMapping[int, Job]  # those taken, by number

    def take(self) -> int | None:
        """Return the number of the next job; None if there is none, until another has ended."""

    def place(self, number: int) -> str:
        """Return which of how many jobs it is: "[2/5]"."""

    def after_epoch(self, number: int, run: directory.Run) -> str:
        """Return why the job should not go on; empty if it should. `run.metrics` has the epochs."""

    def done(self, number: int, run: directory.Run) -> str:
        """Note the finished run, and return its result in words.

        Raises:
            ValueError: the run has no result, and the job has failed.
        """

    def failed(self, number: int, sentence: str) -> None:
        """Note why the job failed."""

    def pruned(self, number: int, run: directory.Run, why: str) -> None:
        """Note that the job was ended after an epoch, as `after_epoch` asked."""

    def stopped(self, number: int) -> None:
        """Note that a signal stopped the job."""


def run(
    jobs: Sequence[Job],
    *,
    out: str | Path = "runs",
    write: Callable[[str], None] = print,
    **how: Any,
) -> list[Job]:
    """Run the waiting jobs of a series. A failed job is reported; the rest continue.

    Args:
        jobs: as `plan` returned them, in the order they run.
        out: the folder of all runs.
        write: called with each line to print.
        how: as for `run_queue`.

    Returns:
        The jobs, each with its run or its failure.

    Raises:
        ValueError: as `run_queue`.
        Stopped: by a signal; carries the jobs as they were.
    """
    series = _Series(jobs)
    for job in jobs:
        if job.failure:
            write(f"{job.label}: failed: {job.failure}")
    try:
        run_queue(series, out=out, waiting=len(series.waiting), write=write, **how)
    except KeyboardInterrupt as error:
        raise Stopped(series.all, error) from error
    return series.all


class Stopped(KeyboardInterrupt):
    """The series was stopped, for a `reason`; `jobs` are the jobs as they were."""

    def __init__(self, jobs: list[Job], reason: KeyboardInterrupt):
        self.jobs, self.reason = jobs, reason


class _Series:
    """The queue of a list of jobs; it prunes none."""

    def __init__(self, jobs: Sequence[Job]):
        self.jobs = dict(enumerate(jobs))
        self.waiting = [number for number, job in self.jobs.items() if job.waits]
        self._left = iter(self.waiting)

    @property
    def all(self) -> list[Job]:
        return list(self.jobs.values())

    def take(self) -> int | None:
        return next(self._left, None)

    def place(self, number: int) -> str:
        return f"[{self.waiting.index(number) + 1}/{len(self.waiting)}]"

    def after_epoch(self, number: int, run: directory.Run) -> str:
        return ""

    def done(self, number: int, run: directory.Run) -> str:
        self.jobs[number] = replace(self.jobs[number], run=run)
        return in_words(self.jobs[number])

    def failed(self, number: int, sentence: str) -> None:
        self.jobs[number] = replace(self.jobs[number], failure=sentence)

    def pruned(self, number: int, run: directory.Run, why: str) -> None:
        self.failed(number, why)

    def stopped(self, number: int) -> None:
        pass


def run_queue(
    queue: Queue,
    *,
    out: str | Path = "runs",
    wandb: str = "auto",
    device: str | None = None,
    devices: Sequence[str] = (),
    at_once: int | None = None,
    waiting: int | None = None,
    threads: int | None = None,
    checkpoint_every: float = EVERY_MINUTES,
    write: Callable[[str], None] = print,
) -> None:
    """Run jobs until a queue has no more. A failed job is reported; the rest continue.

    One at a time, jobs run in this process. Several at a time, each runs in its own, and its output
    goes to OUT/logs/YYYYmmdd-HHMMSS/NAME-seedN[-foldK].log.

    Args:
        queue: gives the jobs, and is told of each.
        out: the folder of all runs.
        wandb: as in `train`.
        device: as in `learner`; all processes share it.
        devices: one for each job that runs at the same time, in turn; instead of `device`.
        at_once: how many jobs run at the same time; None: one on each of `devices`.
        waiting: how many jobs there are, where that is known.
        threads: of the processor, for each job; None divides the cores among jobs that run at the
            same time.
        checkpoint_every: as in `train`.
        write: called with each line to print.

    Raises:
        ValueError: `at_once` is less than 1, a device does not exist, or there is no such `wandb`.
        KeyboardInterrupt: a signal stopped the running jobs.
    """
    devices, at_once = shared(device, devices, at_once)
    if wandb not in tracking.MODES:  # else every job would fail with this
        raise ValueError(f"wandb must be one of {', '.join(tracking.MODES)}, got {wandb!r}")
    options = {"out": str(out), "wandb": wandb, "threads": threads}
    options["checkpoint_every"] = checkpoint_every
    lines = _Lines(queue, write)
    if at_once == 1:
        _one_by_one(queue, lines, options | {"device": devices[0]})
    elif waiting != 0:
        at_once = at_once if waiting is None else min(at_once, waiting)
        _Processes(queue, lines, options, devices[:at_once]).run()


def shared(
    device: str | None, devices: Sequence[str], at_once: int | None
) -> tuple[list[str | None], int]:
    """Return a device for each of the jobs that run at the same time, and how many these are.

    Raises:
        ValueError: a device does not exist, or `at_once` is less than 1.
    """
    if device is not None and devices:
        raise ValueError("--devices names the device of each job: leave --device out")
    at_once = max(1, len(devices)) if at_once is None else at_once
    if at_once < 1:
        raise ValueError(f"--jobs must be 1 or more, got {at_once}")
    there = list(devices) or [device]
    for each in there:
        find_device(each)
    return [there[number % len(there)] for number in range(at_once)], at_once


class _Lines:
    """The lines printed about the jobs of a queue; on a terminal, one that changes below them."""

    def __init__(self, queue: Queue, write: Callable[[str], None]):
        self._queue, self._write = queue, write
        self.live = sys.stdout.isatty()

    def write(self, line: str) -> None:
        self.show("")
        self._write(line)

    def say(self, number: int, what: str) -> None:
        self.write(f"{self._queue.place(number)} {self._queue.jobs[number].label}: {what}")

    def show(self, text: str) -> None:
        """On a terminal, show a line that the next one replaces."""
        if self.live:
            width = shutil.get_terminal_size().columns
            sys.stdout.write(f"\r\x1b[2K{text[: width - 1]}")
            sys.stdout.flush()

    def done(self, number: int, run: directory.Run) -> None:
        try:
            result = self._queue.done(number, run)
        except ValueError as error:
            self.failed(number, record.sentence(error))
        else:
            self.say(number, f"done: {result}")

    def failed(self, number: int, sentence: str) -> None:
        self.say(number, f"failed: {sentence}")
        self._queue.failed(number, sentence)

    def pruned(self, number: int, run: directory.Run, why: str) -> None:
        (run.path / directory.CHECKPOINT).unlink(missing_ok=True)
        self._queue.pruned(number, run, why)
        self.say(number, f"pruned: {why}")


def _one_by_one(queue: Queue, lines: _Lines, options: dict[str, Any]) -> None:
    compiled = ""  # the experiment that torch has compiled a net for
    while (number := queue.take()) is not None:
        job = queue.jobs[number]
        # The net of another seed is not compiled again, which would take a minute.
        if compiled not in ("", job.name):
            _forget_compiled()
        compiled = job.name
        lines.say(number, f"running{job.about}")

        def after_epoch(run: directory.Run, number: int = number) -> None:
            if why := queue.after_epoch(number, run):
                raise Pruned(run, why)

        try:
            finished = train(
                job.recipe,
                smoke=job.smoke,
                resume=resumable(job.stopped, lines.write),
                write=lines.write,
                on_epoch=after_epoch,
                **options | job.options,
            )
        except Pruned as pruned:
            lines.pruned(number, pruned.run, str(pruned))
        except KeyboardInterrupt:
            queue.stopped(number)
            raise
        except Exception as error:
            # No mistake, GPU out of memory or fault in one recipe's own code is a reason not to
            # run the rest; each is named here and shows in the exit code.
            if os.environ.get("FASTCV_TRACEBACK"):
                lines.write(traceback.format_exc().rstrip())
            lines.failed(number, record.sentence(error))
            _forget_compiled()
        else:
            lines.done(number, finished)
        _forget()


def _forget() -> None:
    """Free the memory of a training for the next one."""
    gc.collect()  # a Learner and its callbacks hold each other
    if torch.cuda.is_initialized():
        torch.cuda.empty_cache()


def _forget_compiled() -> None:
    """Forget compiled nets: a function is compiled for a limited number of them in a process."""
    if "torch._dynamo" in sys.modules:
        torch.compiler.reset()


class _Processes:
    """The jobs that run in processes of their own, each on a device that it gives back."""

    def __init__(
        self, queue: Queue, lines: _Lines, options: dict[str, Any], devices: Sequence[str | None]
    ):
        self.queue, self.lines, self.options = queue, lines, options
        self.free = list(devices)
        out = Path(options["out"])
        self.folder = directory.make_stamped(out / "logs", "", out)
        self.numbers: dict[Task, int] = {}
        self.devices: dict[Task, str | None] = {}
        self.epochs: dict[Task, int] = {}  # that the queue was told of
        self.pruned: dict[Task, tuple[directory.Run, str]] = {}
        self.drawn = 0.0

    def run(self) -> None:
        """Run all jobs of the queue."""
        at_once = len(self.free)
        count = self.options["threads"] or threads_of_each(at_once)
        each = f"{count} thread{'s' if count > 1 else ''}"
        self.lines.write(
            f"each run computes with {each}, and its numbers are those of {each}: alone, it would "
            f"need --threads {count} to give the same"
        )
        calls = {"started": self.started, "ended": self.ended, "watched": self.watched}
        try:
            run_tasks(self.take, at_once, **calls)
        finally:
            for task, number in self.numbers.items():
                if task in self.devices:  # a signal stopped it
                    way_on = record.way_on(record.read(_record(task.log)))
                    self.lines.say(number, f"stopped; {way_on}")
                    self.queue.stopped(number)

    def take(self) -> Task | None:
        number = self.queue.take()
        if number is None:
            return None
        device = self.free.pop(0)
        task = _task(self.queue.jobs[number], self.options | {"device": device}, self.folder)
        self.numbers[task], self.devices[task], self.epochs[task] = number, device, 0
        return task

    def started(self, task: Task) -> None:
        device = self.devices[task]
        on = f" on {device}" if device else ""
        number = self.numbers[task]
        self.lines.say(number, f"running{self.queue.jobs[number].about}{on}, log {task.log}")

    def ended(self, task: Task, status: int) -> None:
        self.free.append(self.devices.pop(task))
        number, found = self.numbers[task], record.read(_record(task.log))
        if "finished" in found:
            run = directory.Run(found["finished"], trust=True)
            self.queue.after_epoch(number, run)
            self.lines.done(number, run)
        elif task in self.pruned:
            self.lines.pruned(number, *self.pruned[task])
        else:
            self.lines.failed(number, f"{record.failure(found, status)} (log {task.log})")

    def watched(self, running: list[Task]) -> list[Task]:
        if self.lines.live and time.monotonic() - self.drawn > LIVE_SECONDS:
            self.drawn = time.monotonic()
            self.lines.show(" | ".join(map(self.progress, running)))
        return [task for task in running if task not in self.pruned and self.to_prune(task)]

    def progress(self, task: Task) -> str:
        found = record.read(_record(task.log))
        return f"{self.queue.jobs[self.numbers[task]].label}: {record.progress(found)}"

    def to_prune(self, task: Task) -> bool:
        """Tell the queue of a new epoch, and whether it wants to prune the job."""
        found = record.read(_record(task.log))
        if found.get("epoch", 0) <= self.epochs[task]:
            return False
        self.epochs[task] = found["epoch"]
        run = directory.Run(found["run"], trust=True)
        if why := self.queue.after_epoch(self.numbers[task], run):
            self.pruned[task] = run, why
        return bool(why)


def _task(job: Job, options: dict[str, Any], folder: Path) -> Task:
    """The process that trains a job, with its log, and its record beside it."""
    fold = "" if job.fold is None else f"-fold{job.fold[0]}"
    name = "-".join(filter(None, (job.title, job.name))).replace("/", "-").replace(" ", "-")
    log = folder / f"{name}-seed{job.recipe.seed}{fold}.log"
    options = options | dict(job.options)
    command = ["fastcv", "recipe", job.reference, "--seed", str(job.recipe.seed)]
    for name, value in options.items():
        if name in OPTIONS and value and (name, value) != ("checkpoint_every", EVERY_MINUTES):
            command += [f"--{name.replace('_', '-')}", str(value)]
    settings = [*job.settings, *job.fold_settings]
    command += [f"--set={setting}" for setting in settings] + (["--smoke"] if job.smoke else [])
    work = {
        "command": command,
        "record": str(_record(log)),
        "reference": job.reference,
        "settings": [*settings, f"seed={job.recipe.seed}"],
        "options": options | {"smoke": job.smoke},
        "resume": job.stopped and str(job.stopped.path),
        "parent": os.getpid(),
    }
    # -P: a file in the working directory, such as one's own recipe, hides no module.
    program = (sys.executable, "-P", "-m", "fastcv.experiment.series.child")
    return Task(command=(*program, json.dumps(work)), log=log)


def _record(log: Path) -> Path:
    return log.with_suffix(".json")
