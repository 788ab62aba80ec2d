"""One run in W&B, from its first epoch to its model."""

from __future__ import annotations

import contextlib
import shlex
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fastcv.tracking import service
from fastcv.tracking.service import (
    PROJECT,
    Mode,
    Service,
    environment,
    login,
    reason,
    session_mode,
    settings,
    switched_off,
    within,
)
from fastcv.tracking.values import plain, side_by_side, slug, table

if TYPE_CHECKING:
    import wandb

# Epoch metrics by their column in metrics.csv; a slash makes a group of charts in W&B.
EPOCH_NAMES = {
    "train_loss": "train/loss",
    "train_accuracy": "train/accuracy",
    "valid_loss": "valid/loss",
    "valid_accuracy": "valid/accuracy",
}


def start(
    mode: Mode = "auto",
    *,
    directory: Path,
    name: str,
    config: dict[str, Any],
    smoke: bool = False,
    resume_id: str | None = None,
) -> Tracker:
    """Begin to track a run; never raises, never asks, gives up on a silent server.

    Args:
        mode: "auto" is what WANDB_MODE or W&B's settings say, else online where an API key is
            configured, else offline. "online" becomes offline where there is no key or the
            server cannot be reached. "off" does not even import wandb.
        directory: run directory; W&B's files go to `directory / "wandb"`.
        name: recipe, or recipe/variant.
        config: flat recipe; values that JSON lacks are written as text.
        smoke: the run is a smoke run, and is marked as one everywhere.
        resume_id: `Tracker.id` of the run that is resumed.
    """
    tracker = Tracker(Path(directory).absolute(), name, smoke)
    if mode == "off" or (mode == "auto" and switched_off()):
        return tracker
    tracker._attempt(
        partial(tracker._open, mode, config, resume_id), service.INIT_TIMEOUT + service.GRACE
    )
    return tracker


class Tracker:
    """One run in W&B, or nothing at all; every method is safe to call at any time."""

    def __init__(self, directory: Path, name: str, smoke: bool):
        self._directory = directory
        self._name = name
        self._smoke = smoke
        self._run: wandb.Run | None = None  # None: off, failed, or finished
        self._id: str | None = None
        self._files: Path | None = None
        self._service = Service()
        self._step: int | None = None  # last step logged; W&B drops what does not increase
        self._said = False
        self._unsent = False  # the server lacks something that the files have

    @property
    def id(self) -> str | None:
        """W&B's id of this run, to be kept for resuming; None when nothing is tracked."""
        return self._id

    @property
    def sync_hint(self) -> str | None:
        """Command that uploads what the server lacks; None when it lacks nothing."""
        if self._files is None or not self._unsent:
            return None
        # A run resumed offline has one folder per sitting; their names begin with the time.
        parts = set(self._files.parent.glob(f"offline-run-*-{self._id}")) | {self._files}
        return shlex.join(["wandb", "sync", *sorted(map(str, parts))])

    def epoch(self, row: dict[str, Any], steps: list[dict[str, Any]]) -> None:
        """Log an epoch and the steps it took.

        Args:
            row: the epoch's line of metrics.csv; None values are left out.
            steps: one dict a step, each with "step" (global, increasing) and what to plot over
                it. A step at or before the last one logged (a resumed run's overlap) is left out.
        """
        if self._run is not None:
            self._attempt(partial(self._log_epoch, row, steps))

    def finish(
        self,
        summary: dict[str, Any],
        reported: dict[str, Any],
        figures: dict[str, Path],
        predictions: list[dict[str, Any]],
        model: list[Path],
    ) -> None:
        """Log what the whole run gave, and end it.

        Args:
            summary: final values by name.
            reported: published values by the same names; each stands beside the measured one
                as reported/NAME, measured/NAME and difference/NAME (measured - reported).
            figures: image files by title.
            predictions: dicts of image (PIL), predicted, true, confidence (0-1) and loss.
            model: files of the trained model, kept as one artifact of type "model".
        """
        if self._run is not None:
            results = partial(self._log_results, summary, reported, figures, predictions, model)
            self._attempt(results, exit_code=0)
        self._close(0)

    def close(self, exit_code: int = 1) -> None:
        """End a run that did not get to `finish`; W&B shows it as failed unless 0 is given."""
        self._close(exit_code)

    def _open(self, mode: Mode, config: dict[str, Any], resume_id: str | None) -> None:
        self._service.claim()
        hooks = sys.exit, sys.excepthook
        try:
            run = self._init(mode, config, resume_id)
        except BaseException:
            self._close(1)
            raise
        finally:
            # wandb replaces both to learn the exit code, and then prints tracebacks twice.
            sys.exit, sys.excepthook = hooks
        if run is None:
            self._close(0)
            return
        self._run, self._id = run, run.id
        self._unsent = run.offline
        self._files = Path(run.dir).parent
        run.define_metric("epoch", hidden=True)
        run.define_metric("step", hidden=True)
        run.define_metric("step/*", step_metric="step")
        for pattern in ("train/*", "valid/*", "lr", "momentum", "seconds", "images_per_second"):
            run.define_metric(pattern, step_metric="epoch")

    def _log_epoch(self, row: dict[str, Any], steps: list[dict[str, Any]]) -> None:
        for step in steps:
            at = int(step["step"])
            if self._step is None or at > self._step:
                values = {f"step/{k}": plain(v) for k, v in step.items() if k != "step"}
                self._log({"step": at, **values}, at)
        # The epoch joins the row of its last step, so both axes stand in one history.
        at = self._step
        if at is None or not steps:
            at = max((at or 0) + 1, int(row["epoch"]))
        self._log({EPOCH_NAMES.get(k, k): plain(v) for k, v in row.items()}, at)

    def _log_results(
        self,
        summary: dict[str, Any],
        reported: dict[str, Any],
        figures: dict[str, Path],
        predictions: list[dict[str, Any]],
        model: list[Path],
    ) -> None:
        import wandb

        assert self._run is not None
        # In this order, because online the table and the model ask the server for more than the
        # rest does, and may be refused.
        self._run.summary.update(side_by_side(summary, reported))
        for title, path in figures.items():
            self._log({f"figures/{title}": wandb.Image(str(path))}, self._step)
        if predictions:
            self._log({"predictions": table(predictions)}, self._step)
        if model:
            # As it lies: no copy in W&B's cache, and offline none in its staging folder.
            artifact = wandb.Artifact(slug(self._name, self._smoke), type="model")
            for path in model:
                artifact.add_file(str(path), policy="immutable", skip_cache=True)
            self._run.log_artifact(artifact)

    def _init(self, mode: Mode, config: dict[str, Any], resume_id: str | None) -> wandb.Run | None:
        import wandb

        # First, because wandb would go elsewhere (and its service log to the console) without it.
        (self._directory / "wandb").mkdir(parents=True, exist_ok=True)
        session = self._service.session()
        if mode == "auto":
            mode = session_mode(session)
        if mode == "off":
            return None
        start_run = partial(
            wandb.init,
            project=session.project or PROJECT,
            name=self._title(config),
            config={k: plain(v) for k, v in config.items()},
            group=self._name.partition("/")[0][:128] or None,
            job_type="smoke" if self._smoke else "train",
            tags=self._tags(config),
            dir=str(self._directory),
            reinit="create_new",  # the user's own wandb.run is none of our business
            id=resume_id,
            resume="allow" if resume_id else None,
        )
        if mode == "online":
            key = login(session)
            if key is None:  # wandb would ask for a key
                self._say("no API key is configured (`wandb login`); this run is logged offline")
            else:
                try:
                    return start_run(mode="online", settings=settings(**key))
                except Exception as error:  # whatever it is, offline is better than nothing
                    why = f"{session.base_url}: {reason(error)}"
                    self._say(f"{why}; this run is logged offline")
                    with contextlib.suppress(Exception, SystemExit):
                        self._service.end()  # it may still be waiting for the server
                    self._service.session()
        return start_run(mode="offline", settings=settings())

    def _title(self, config: dict[str, Any]) -> str:
        seed = f" seed {config['seed']}" if "seed" in config else ""
        return f"{self._name}{seed}{' (smoke)' if self._smoke else ''}"[:128]

    def _tags(self, config: dict[str, Any]) -> list[str]:
        recipe, _, variant = self._name.partition("/")
        seed = f"seed{config['seed']}" if "seed" in config else ""
        tags = recipe, variant, seed, "smoke" if self._smoke else ""
        return list(dict.fromkeys(tag[:64] for tag in tags if tag))  # W&B: 1 to 64 characters

    def _log(self, values: dict[str, Any], step: int | None) -> None:
        assert self._run is not None
        self._run.log({k: v for k, v in values.items() if v is not None}, step=step)
        self._step = step

    def _close(self, exit_code: int) -> None:
        run, self._run = self._run, None
        if run is not None:
            self._attempt(
                partial(self._end, run, exit_code), service.FINISH_TIMEOUT + service.GRACE, then=""
            )
        if self._service.ours:
            self._attempt(partial(self._service.end, run), then="")
            self._service.ours = False

    def _end(self, run: wandb.Run, exit_code: int) -> None:
        run.finish(exit_code=exit_code)
        self._check_written()

    def _check_written(self) -> None:
        """Notice what wandb does not raise: its log file is missing or empty (a full disk)."""
        assert self._files is not None
        if not any(log.stat().st_size for log in self._files.glob("*.wandb")):
            raise OSError(f"nothing could be written to {self._files}")

    def _attempt(
        self,
        action: Callable[[], None],
        seconds: float | None = None,
        *,
        then: str = "; training goes on without it",
        exit_code: int = 1,
    ) -> None:
        """Turn any failure of W&B, or its silence, into one message and end the tracking."""
        try:
            with environment(self._directory):
                within(seconds or service.GRACE, action, give_up=self._service.kill)
        # wandb raises what it likes, and SystemExit when its service has crashed.
        except (Exception, SystemExit) as error:
            self._unsent = self._files is not None
            saved = f"; `{self.sync_hint}` uploads what there is" if self.sync_hint else ""
            self._say(reason(error) + then + saved)
            if self._run is not None:
                self._close(exit_code)

    def _say(self, message: str) -> None:
        if not self._said:
            self._said = True
            print(f"W&B: {message}", file=sys.stderr, flush=True)
