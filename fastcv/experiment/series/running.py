"""The running of a series: one job after another in this process, or some at a time in others."""

import gc
import os
import re
import shutil
import signal
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import torch

from fastcv import tracking
from fastcv.experiment import directory
from fastcv.experiment.series.jobs import Job, newest, recorded
from fastcv.experiment.series.processes import Task, run_tasks
from fastcv.experiment.series.tables import in_words
from fastcv.experiment.train import train

TAIL = 16_384  # bytes of a log that are read
# What `train` says of a stopped run, an epoch's line, and how Python and fastcv name an error.
_GO_ON = re.compile(r"go on with: (fastcv resume .+)")
_EPOCH = re.compile(r"^epoch +(\d+(?:/\d+)?)", re.MULTILINE)
_ERROR = re.compile(r"^(?:fastcv: (?P<said>.+)|[A-Za-z_][\w.]*(?:Error|Exception|Interrupt)\b.*)$")


def run(
    jobs: Sequence[Job],
    *,
    out: str | Path = "runs",
    settings: Sequence[str] = (),
    wandb: str = "auto",
    device: str | None = None,
    at_once: int = 1,
    write: Callable[[str], None] = print,
) -> list[Job]:
    """Run what waits of a series; a job that fails is said, and the others go on.

    One at a time they run in this process, else in processes of their own, of which each writes
    what it says to `OUT/logs/YYYYmmdd-HHMMSS/NAME-seedN.log`.

    Args:
        jobs: what `plan` gave, in the order they run.
        out: the folder of all runs.
        settings: those given to `plan`; a process of its own is given them again.
        wandb: as in `train`.
        device: as in `learner`; processes share it.
        at_once: how many run at the same time.
        write: takes each line that is said.

    Returns:
        the jobs, each with its run or its failure.

    Raises:
        ValueError: `at_once` or `wandb` is none that there is.
        Stopped: by Ctrl-C, with the jobs as they are then.
    """
    if at_once < 1:
        raise ValueError(f"--jobs must be 1 or more, got {at_once}")
    if wandb not in tracking.MODES:  # else each job would say so
        raise ValueError(f"wandb must be one of {', '.join(tracking.MODES)}, got {wandb!r}")
    state = _State(jobs, write)
    options = {"out": Path(out), "wandb": wandb, "device": device}
    try:
        if at_once == 1:
            _one_by_one(state, **options)
        else:
            _in_processes(state, at_once, list(settings), **options)
    except KeyboardInterrupt as error:
        raise Stopped(state.jobs) from error
    return state.jobs


class Stopped(KeyboardInterrupt):
    """The series was stopped; `jobs` are as they were then."""

    def __init__(self, jobs: list[Job]):
        self.jobs = jobs


class _State:
    """The jobs of a series while it runs, and what is said of them."""

    def __init__(self, jobs: Sequence[Job], write: Callable[[str], None]):
        self.jobs = list(jobs)
        self.waiting = [index for index, job in enumerate(jobs) if job.waits]
        self.live = sys.stdout.isatty()
        self._write = write
        for job in jobs:
            if job.failure:
                self.say(f"{job.label}: failed: {job.failure}")

    def say(self, line: str) -> None:
        self.show("")
        self._write(line)

    def show(self, text: str) -> None:
        """On a terminal, show a last line that the next one is written over."""
        if self.live:
            width = shutil.get_terminal_size().columns
            sys.stdout.write(f"\r\x1b[2K{text[: width - 1]}")
            sys.stdout.flush()

    def heading(self, index: int) -> str:
        number = self.waiting.index(index) + 1
        return f"[{number}/{len(self.waiting)}] {self.jobs[index].label}"

    def done(self, index: int, run: directory.Run) -> None:
        self.jobs[index] = replace(self.jobs[index], run=run)
        self.say(f"{self.heading(index)}: done: {in_words(self.jobs[index])}")

    def failed(self, index: int, sentence: str) -> None:
        self.jobs[index] = replace(self.jobs[index], failure=sentence)
        self.say(f"{self.heading(index)}: failed: {sentence}")


def _one_by_one(state: _State, out: Path, wandb: str, device: str | None) -> None:
    for index in state.waiting:
        job = state.jobs[index]
        state.say(f"{state.heading(index)}: running")
        try:
            finished = train(
                job.recipe, out=out, wandb=wandb, device=device, smoke=job.smoke, write=state.say
            )
        except Exception as error:
            # Any at all: a user's mistake, a loss that is not finite, a GPU without memory left,
            # a fault in one recipe's own code. None of them is a reason not to run the others,
            # and each is named here and in the exit code.
            if os.environ.get("FASTCV_TRACEBACK"):
                state.say(traceback.format_exc().rstrip())
            state.failed(index, _sentence(error))
        else:
            state.done(index, finished)
        _forget()


def _sentence(error: Exception) -> str:
    said = " ".join(str(error).split())
    if isinstance(error, ValueError | FloatingPointError):
        return said
    return f"{type(error).__name__}: {said}" if said else type(error).__name__


def _forget() -> None:
    """Give the memory of a training to the next one."""
    gc.collect()  # a Learner and its callbacks hold each other
    if torch.cuda.is_initialized():
        torch.cuda.empty_cache()
    if "torch._dynamo" in sys.modules:
        # It compiles each function for so many nets and no more, counted over the whole process.
        torch.compiler.reset()


def _in_processes(
    state: _State, at_once: int, settings: list[str], out: Path, wandb: str, device: str | None
) -> None:
    if not state.waiting:
        return
    folder = _log_folder(out)
    tasks: dict[Task, int] = {}
    for index in state.waiting:
        job = state.jobs[index]
        given = ["--seed", str(job.recipe.seed), "--out", str(out), "--wandb", wandb]
        given += [f"--set={setting}" for setting in settings]
        given += ["--device", device] if device else []
        given += ["--smoke"] if job.smoke else []
        # -P: what lies in the working directory, as one's own recipe, hides no module.
        program = [sys.executable, "-P", "-m", "fastcv.cli", "recipe", job.reference]
        log = folder / f"{job.name.replace('/', '-')}-seed{job.recipe.seed}.log"
        tasks[Task(command=(*program, *given), log=log)] = index
    begun: list[Task] = []
    old = directory.finished(out, smoke=state.jobs[0].smoke)
    drawn = 0.0

    def started(task: Task) -> None:
        begun.append(task)
        state.say(f"{state.heading(tasks[task])}: running, log {task.log}")

    def ended(task: Task, status: int) -> None:
        index = tasks[task]
        job, log = state.jobs[index], _tail(task.log)
        if status:
            state.failed(index, f"{_reason(log, status)} (log {task.log})")
            return
        there = recorded(out, smoke=job.smoke)
        found = newest(job.recipe, {run: there[run] for run in there if run not in old})
        if found is None:
            state.failed(index, f"it ended well and left no finished run (log {task.log})")
            return
        state.done(index, found)

    def watched(running: list[Task]) -> None:
        nonlocal drawn
        if state.live and time.monotonic() - drawn > 1:  # seconds
            drawn = time.monotonic()
            state.show(" | ".join(_at(state.jobs[tasks[task]], task) for task in running))

    try:
        run_tasks(list(tasks), at_once, started=started, ended=ended, watched=watched)
    except KeyboardInterrupt:
        for task in begun:
            index = tasks[task]
            if state.jobs[index].waits:
                resume = _GO_ON.search(_tail(task.log))
                rest = f"go on with: {resume[1]}" if resume else "nothing was kept"
                state.say(f"{state.heading(index)}: stopped; {rest}")
        raise


def _log_folder(out: Path) -> Path:
    stamp = time.strftime("%Y%m%d-%H%M%S")
    for attempt in range(1, 1000):
        folder = out / "logs" / (stamp if attempt == 1 else f"{stamp}-{attempt}")
        try:
            folder.mkdir(parents=True)
        except FileExistsError:  # another series of this second
            if (out / "logs").is_dir():
                continue
            raise ValueError(f"runs must go into a folder, {str(out)!r} is none") from None
        except OSError as error:
            raise ValueError(
                f"the folder of runs must be writable, {str(out)!r} is not: {error.strerror}"
            ) from error
        return folder
    raise ValueError(f"a folder for logs must be free in {str(out / 'logs')!r}: remove some")


def _tail(log: Path) -> str:
    with log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - TAIL))
        return file.read().decode("utf-8", errors="replace")


def _at(job: Job, task: Task) -> str:
    epochs = _EPOCH.findall(_tail(task.log))
    return f"{job.label}: {f'epoch {epochs[-1]}' if epochs else 'starting'}"


def _reason(log: str, status: int) -> str:
    """Why a process failed, by the last that it said of an error."""
    if status < 0:
        hint = ": is there memory enough for --jobs?" if -status == signal.SIGKILL else ""
        return f"{signal.Signals(-status).name} ended its process{hint}"
    lines = [line.rstrip() for line in log.splitlines() if line.strip()]
    for line in reversed(lines):
        if error := _ERROR.match(line):
            return error["said"] or line
    last = f", its last line: {lines[-1]}" if lines else ""
    return f"its process ended with status {status}{last}"
