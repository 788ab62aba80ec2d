"""The trials of a sweep, given to the runner one by one: new ones, and those that were stopped.

A trial belongs to the process that holds the lock of its folder. A process that is killed loses
its locks, so that a running trial whose lock is free has been left, and is taken up again.
"""

import time
import warnings
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from fastcv.experiment import directory
from fastcv.experiment.building import smoked
from fastcv.experiment.comparison import is_finite
from fastcv.experiment.series.jobs import Job
from fastcv.experiment.sweep.space import Choice, Part, Space
from fastcv.experiment.sweep.storage import optuna
from fastcv.experiment.train import planned_epochs
from fastcv.experiment.words import in_words
from fastcv.files import LOCK, is_locked
from fastcv.recipe.metrics import should_fall

HOPELESS = 3  # failures before anything else has ended
TRIES = 3  # processes that may be killed at the same epoch of a trial
WAIT_SECONDS = 120.0  # for another process to take its trial
PRUNED_FROM = 5  # trials that the median needs
EARLIEST = 0.2  # of a trial's epochs, before which none is pruned


class Trials:
    """The queue of a sweep.

    Args:
        study: Optuna's.
        space: what is searched.
        folder: of the sweep.
        home: what names `folder`, where several machines have their own.
        monitor: a column of metrics.csv.
        final: the key of a run's summary that is the trial's value.
        grid: whether all trials are planned.
        most: how many trials there are to be; None: no limit.
        deadline: of `time.monotonic()`, after which no trial begins.
        seed: of the first trial's draws.
        smoke: whether the trials are smoke runs.
        ended: called when a trial has ended.
    """

    def __init__(
        self,
        study: Any,
        space: Space,
        folder: Path,
        *,
        home: str,
        monitor: str,
        final: str,
        grid: bool,
        most: int | None,
        deadline: float | None,
        seed: int,
        smoke: bool,
        ended: Callable[[], None] = lambda: None,
    ):
        self.study, self.space, self.folder, self.home = study, space, folder, home
        self.monitor, self.final, self.grid, self.most = monitor, final, grid, most
        self.deadline, self.seed, self.smoke, self.ended = deadline, seed, smoke, ended
        self.jobs: dict[int, Job] = {}
        self.failures = 0
        self._locks: dict[int, FileLock] = {}
        self._taking = FileLock(folder / ".sweep.lock")  # one process at a time takes a trial

    def take(self) -> int | None:
        """Return the number of a trial to run: one that was left, or else a new one."""
        if self.deadline is not None and time.monotonic() >= self.deadline:
            return None
        with self._taken_alone():
            for number in self._left():
                if (job := self._again(number)) is not None:
                    self.jobs[number] = job
                    return number
            while (trial := self._new()) is not None:
                try:
                    self.jobs[trial.number] = self._job(trial)
                except ValueError as error:  # two values that fit alone do not fit together
                    self._fail(trial.number, str(error))
                    continue
                return trial.number
        return None

    def _taken_alone(self) -> Any:
        try:
            return self._taking.acquire(timeout=WAIT_SECONDS)
        except Timeout:
            raise ValueError(
                f"another process must let go of {str(self._taking.lock_file)!r}, and has not for "
                f"{WAIT_SECONDS:.0f} s: stop it"
            ) from None
        except (OSError, NotImplementedError) as error:
            raise ValueError(
                f"a sweep must lie on a file system with locks, {str(self.folder)!r} does not "
                f"({error}): choose another --out"
            ) from error

    def _left(self) -> list[int]:
        """List the running trials of this folder that this process does not run."""
        return [
            trial.number
            for trial in self._all()
            if trial.state.name == "RUNNING"
            and trial.number not in self._locks
            and trial.user_attrs.get("home", self.home) == self.home
        ]

    def _all(self) -> list[Any]:
        return self.study.get_trials(deepcopy=False)

    def _lock(self, number: int) -> bool:
        """Make a trial this process's, unless it is another's."""
        folder = self.trial_folder(number)
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder / LOCK)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            return False
        self._locks[number] = lock
        return True

    def _release(self, number: int) -> None:
        lock = self._locks.pop(number, None)
        if lock is not None:
            lock.release()

    def trial_folder(self, number: int) -> Path:
        """Return the folder of all runs of a trial: one, unless a checkpoint was damaged."""
        return self.folder / "trials" / f"{number:04d}"

    def _again(self, number: int) -> Job | None:
        """Return the job of a trial whose process is gone; None if there is nothing to run."""
        if not self._lock(number):
            return None
        run = self.run_of(number)
        if self._frozen(number).state.name != "RUNNING" or (
            run is not None and is_locked(run.path)
        ):
            self._release(number)  # it has ended since, or its orphan is still writing
            return None
        trial = self._trial(number)
        if run is not None and run.summary:  # it was killed before it could tell
            self.jobs[number] = self._job(trial)
            try:
                self.done(number, run)
            except ValueError as error:
                self._fail(number, str(error))
            return None
        # Epochs that it had when it was begun each time.
        begun = [*trial.user_attrs.get("begun", []), len(run.metrics) if run else 0]
        if begun[-TRIES - 1 :] == [begun[-1]] * (TRIES + 1):
            self._fail(number, f"its process was killed {TRIES} times in the same epoch")
            return None
        trial.set_user_attr("begun", begun)
        resumable = run is not None and (run.path / directory.CHECKPOINT).is_file()
        return replace(self._job(trial), stopped=run if resumable else None)

    def _new(self) -> Any:
        """Return a new trial with its values, or None."""
        trials = self._all()
        waiting = sum(trial.state.name == "WAITING" for trial in trials)
        if self.most is not None and len(trials) - waiting >= self.most:
            return None
        if self.grid and not waiting:
            return None
        trial = self.study.ask()
        trial.set_user_attr("home", self.home)
        trial.set_user_attr("begun", [0])
        self._lock(trial.number)
        return trial

    def _job(self, trial: Any) -> Job:
        # The draws of a trial depend on its number and the trials before it, on no process.
        self.study.sampler = sampler(self.seed + trial.number)
        texts = {part.key: part.text(_drawn(trial, part)) for part in self.space.parts}
        trial.set_user_attr("settings", texts)
        recipe = self.space.recipe(texts)
        return Job(
            reference=self.space.reference_of(texts),
            name=recipe.name,
            recipe=recipe,
            settings=self.space.settings_of(texts),
            smoke=self.smoke,
            title=f"trial {trial.number}",
            about=f" with {listed(texts)}",
            options={"out": str(self.trial_folder(trial.number)), "sweep": self.study.study_name},
        )

    def _frozen(self, number: int) -> Any:
        return next(each for each in self._all() if each.number == number)

    def _trial(self, number: int) -> Any:
        """Return a trial, which another process may have begun, to go on with it."""
        return optuna().trial.Trial(self.study, self._frozen(number)._trial_id)

    def run_of(self, number: int) -> directory.Run | None:
        """Return the newest run of a trial, if it has one."""
        found = sorted(self.trial_folder(number).glob("*/*/recipe.json"))
        return directory.Run(found[-1].parent, trust=True) if found else None

    def place(self, number: int) -> str:
        """Return which of how many trials it is."""
        return f"[{number + 1}/{self.most}]" if self.most else f"[{number + 1}]"

    def after_epoch(self, number: int, run: directory.Run) -> str:
        """Report the epochs, and return why the trial is pruned, if it is."""
        trial, reported = self._trial(number), self._frozen(number).intermediate_values
        recipe = self.jobs[number].recipe
        planned = planned_epochs(smoked(recipe) if self.smoke else recipe)
        for row in run.metrics:
            epoch, value = row["epoch"], row.get(self.monitor)
            if epoch in reported or not is_finite(value):
                continue
            trial.report(value, epoch)
            if EARLIEST * planned <= epoch < planned and trial.should_prune():
                side = "above" if should_fall(self.monitor) else "below"
                return f"{self.monitor} {value:.4g} after epoch {epoch} is {side} the median"
        return ""

    def done(self, number: int, run: directory.Run) -> str:
        """Tell the trial's value, and return it in words."""
        summary = run.summary
        value = summary.get(self.final)
        if not is_finite(value):
            raise ValueError(f"{self.final} must be a finite number in the end, got {value}")
        self._note(number, run)
        self.study.tell(number, value)
        self._end(number)
        return f"{in_words(self.final, value)} in {summary['seconds']:.1f} s"

    def failed(self, number: int, sentence: str) -> None:
        """Record why the trial failed."""
        self._fail(number, sentence)

    def pruned(self, number: int, run: directory.Run, why: str) -> None:
        """Record that the trial was pruned."""
        self._note(number, run)
        self._trial(number).set_user_attr("reason", why)
        self.study.tell(number, state=optuna().trial.TrialState.PRUNED)
        self._end(number)

    def stopped(self, number: int) -> None:
        """Leave a trial that a signal stopped to whoever takes it up."""
        trial = self._trial(number)
        trial.set_user_attr("begun", trial.user_attrs.get("begun", [])[:-1])  # nobody killed it
        self._release(number)

    def _note(self, number: int, run: directory.Run) -> None:
        """Keep what the table of trials shows."""
        trial, rows = self._trial(number), run.metrics
        trial.set_user_attr("run", str(run.path.relative_to(self.folder)))
        trial.set_user_attr("epochs", len(rows))
        trial.set_user_attr("seconds", sum(row["seconds"] for row in rows))
        if images := run.summary.get("images"):
            trial.set_user_attr("images", images[1])

    def _fail(self, number: int, reason: str) -> None:
        self._trial(number).set_user_attr("reason", reason)
        if run := self.run_of(number):
            self._note(number, run)
        self.study.tell(number, state=optuna().trial.TrialState.FAIL)
        self._end(number)
        self.failures += 1
        ended = {trial.state.name for trial in self._all()} & {"COMPLETE", "PRUNED"}
        if self.failures >= HOPELESS and not ended:
            raise ValueError(
                f"the first {self.failures} trials of a sweep must not all fail, the last did "
                f"because: {reason}"
            )

    def _end(self, number: int) -> None:
        self._release(number)
        self.ended()


def listed(texts: Mapping[str, str]) -> str:
    """Write the values of a trial on one line."""
    return ", ".join(f"{key}={text}" for key, text in texts.items())


def _drawn(trial: Any, part: Part) -> Any:
    """Draw the value of a part, or return what the trial has already."""
    if isinstance(part, Choice):
        return trial.suggest_categorical(part.key, part.options)
    if part.whole:
        return trial.suggest_int(part.key, int(part.low), int(part.high), log=part.log)
    return trial.suggest_float(part.key, part.low, part.high, log=part.log)


def sampler(seed: int) -> Any:
    """Return a tree-structured Parzen estimator that takes running trials for bad ones.

    So processes that draw at the same time do not draw the same.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna().exceptions.ExperimentalWarning)
        return optuna().samplers.TPESampler(seed=seed % 2**32, constant_liar=True)


def pruner(kind: str) -> Any:
    """Return the pruner of that name: "median" or "none"."""
    if kind == "none":
        return optuna().pruners.NopPruner()
    return optuna().pruners.MedianPruner(n_startup_trials=PRUNED_FROM)
