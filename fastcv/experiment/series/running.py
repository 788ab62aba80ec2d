"""The running of a series: one job after another in this process, or several in their own."""

import gc
import json
import os
import shutil
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from fastcv import tracking
from fastcv.experiment import directory
from fastcv.experiment.series import record
from fastcv.experiment.series.jobs import Job
from fastcv.experiment.series.processes import Task, run_tasks, threads_of_each
from fastcv.experiment.series.tables import in_words
from fastcv.experiment.train import train
from fastcv.learning.callbacks.checkpoint import EVERY_MINUTES

LIVE_SECONDS = 1.0  # between two changes of the live line


def run(
    jobs: Sequence[Job],
    *,
    out: str | Path = "runs",
    settings: Sequence[str] = (),
    wandb: str = "auto",
    device: str | None = None,
    at_once: int = 1,
    threads: int | None = None,
    checkpoint_every: float = EVERY_MINUTES,
    write: Callable[[str], None] = print,
) -> list[Job]:
    """Run the waiting jobs of a series. A failed job is reported; the rest continue.

    One at a time, jobs run in this process. Several at a time, each runs in its own, and its output
    goes to OUT/logs/YYYYmmdd-HHMMSS/NAME-seedN[-foldK].log.

    Args:
        jobs: as `plan` returned them, in the order they run.
        out: the folder of all runs.
        settings: as for `plan`.
        wandb: as in `train`.
        device: as in `learner`; all processes share it.
        at_once: how many jobs run at the same time.
        threads: of the processor, for each job; None divides the cores among jobs that run at the
            same time.
        checkpoint_every: as in `train`.
        write: called with each line to print.

    Returns:
        The jobs, each with its run or its failure.

    Raises:
        ValueError: `at_once` is less than 1, or there is no such `wandb`.
        Stopped: by a signal; carries the jobs as they were.
    """
    if at_once < 1:
        raise ValueError(f"--jobs must be 1 or more, got {at_once}")
    if wandb not in tracking.MODES:  # else every job would fail with this
        raise ValueError(f"wandb must be one of {', '.join(tracking.MODES)}, got {wandb!r}")
    state = _State(jobs, write)
    options = {"out": str(out), "wandb": wandb, "device": device, "threads": threads}
    options["checkpoint_every"] = checkpoint_every
    try:
        if at_once == 1:
            _one_by_one(state, options)
        else:
            _in_processes(state, options, list(settings), at_once)
    except KeyboardInterrupt as error:
        raise Stopped(state.jobs, error) from error
    return state.jobs


class Stopped(KeyboardInterrupt):
    """The series was stopped, for a `reason`; `jobs` are the jobs as they were."""

    def __init__(self, jobs: list[Job], reason: KeyboardInterrupt):
        self.jobs, self.reason = jobs, reason


class _State:
    """The jobs of a running series, and the lines printed about them."""

    def __init__(self, jobs: Sequence[Job], write: Callable[[str], None]):
        self.jobs = list(jobs)
        self.waiting = [index for index, job in enumerate(jobs) if job.waits]
        self.live = sys.stdout.isatty()
        self._write = write
        for job in jobs:
            if job.failure:
                self.write(f"{job.label}: failed: {job.failure}")

    def write(self, line: str) -> None:
        self.show("")
        self._write(line)

    def show(self, text: str) -> None:
        """On a terminal, show a line that the next one replaces."""
        if self.live:
            width = shutil.get_terminal_size().columns
            sys.stdout.write(f"\r\x1b[2K{text[: width - 1]}")
            sys.stdout.flush()

    def heading(self, index: int) -> str:
        number = self.waiting.index(index) + 1
        return f"[{number}/{len(self.waiting)}] {self.jobs[index].label}"

    def done(self, index: int, run: directory.Run) -> None:
        self.jobs[index] = replace(self.jobs[index], run=run)
        self.write(f"{self.heading(index)}: done: {in_words(self.jobs[index])}")

    def failed(self, index: int, sentence: str) -> None:
        self.jobs[index] = replace(self.jobs[index], failure=sentence)
        self.write(f"{self.heading(index)}: failed: {sentence}")


def _one_by_one(state: _State, options: dict[str, Any]) -> None:
    compiled = ""  # the experiment that torch has compiled a net for
    for index in state.waiting:
        job = state.jobs[index]
        # The net of another seed is not compiled again, which would take a minute.
        if compiled not in ("", job.name):
            _forget_compiled()
        compiled = job.name
        state.write(f"{state.heading(index)}: running")
        try:
            finished = train(job.recipe, smoke=job.smoke, write=state.write, **options)
        except Exception as error:
            # No mistake, GPU out of memory or fault in one recipe's own code is a reason not to
            # run the rest; each is named here and shows in the exit code.
            if os.environ.get("FASTCV_TRACEBACK"):
                state.write(traceback.format_exc().rstrip())
            state.failed(index, record.sentence(error))
            _forget_compiled()
        else:
            state.done(index, finished)
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


def _in_processes(
    state: _State, options: dict[str, Any], settings: list[str], at_once: int
) -> None:
    if not state.waiting:
        return
    out = Path(options["out"])
    folder = directory.make_stamped(out / "logs", "", out)
    tasks = {_task(state.jobs[index], options, settings, folder): index for index in state.waiting}
    begun: list[Task] = []
    drawn = 0.0
    count = options["threads"] or threads_of_each(max(1, min(at_once, len(tasks))))
    each = f"{count} thread{'s' if count > 1 else ''}"
    state.write(
        f"each run computes with {each}, and its numbers are those of {each}: alone, it would need "
        f"--threads {count} to give the same"
    )

    def started(task: Task) -> None:
        begun.append(task)
        state.write(f"{state.heading(tasks[task])}: running, log {task.log}")

    def ended(task: Task, status: int) -> None:
        found = record.read(_record(task.log))
        if "finished" in found:
            state.done(tasks[task], directory.Run(found["finished"], trust=True))
        else:
            state.failed(tasks[task], f"{record.failure(found, status)} (log {task.log})")

    def progress(task: Task) -> str:
        found = record.read(_record(task.log))
        return f"{state.jobs[tasks[task]].label}: {record.progress(found)}"

    def watched(running: list[Task]) -> None:
        nonlocal drawn
        if state.live and time.monotonic() - drawn > LIVE_SECONDS:
            drawn = time.monotonic()
            state.show(" | ".join(map(progress, running)))

    try:
        run_tasks(list(tasks), at_once, started=started, ended=ended, watched=watched)
    except KeyboardInterrupt:
        for task in begun:
            if state.jobs[tasks[task]].waits:
                way_on = record.way_on(record.read(_record(task.log)))
                state.write(f"{state.heading(tasks[task])}: stopped; {way_on}")
        raise


def _task(job: Job, options: dict[str, Any], settings: list[str], folder: Path) -> Task:
    """The process that trains a job, with its log, and its record beside it."""
    fold = "" if job.fold is None else f"-fold{job.fold[0]}"
    log = folder / f"{job.name.replace('/', '-')}-seed{job.recipe.seed}{fold}.log"
    command = ["fastcv", "recipe", job.reference, "--seed", str(job.recipe.seed)]
    for name, value in options.items():
        if value and (name, value) != ("checkpoint_every", EVERY_MINUTES):
            command += [f"--{name.replace('_', '-')}", str(value)]
    settings = [*settings, *job.fold_settings]
    command += [f"--set={setting}" for setting in settings] + (["--smoke"] if job.smoke else [])
    work = {
        "command": command,
        "record": str(_record(log)),
        "reference": job.reference,
        "settings": [*settings, f"seed={job.recipe.seed}"],
        "options": options | {"smoke": job.smoke},
        "parent": os.getpid(),
    }
    # -P: a file in the working directory, such as one's own recipe, hides no module.
    program = (sys.executable, "-P", "-m", "fastcv.experiment.series.child")
    return Task(command=(*program, json.dumps(work)), log=log)


def _record(log: Path) -> Path:
    return log.with_suffix(".json")
