"""One run in W&B, from its first epoch to its model files."""

from __future__ import annotations

import contextlib
import shlex
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fastcv.tracking import service
from fastcv.tracking.service import Mode, reason
from fastcv.tracking.values import plain, series, side_by_side, slug, table

if TYPE_CHECKING:
    import wandb


CONTINUES = "; training continues without it"


def start(
    mode: Mode = "auto",
    *,
    directory: Path,
    name: str,
    config: dict[str, Any],
    smoke: bool = False,
    group: str | None = None,
    resume_id: str | None = None,
    must_exist: bool = False,
) -> Tracker:
    """Start to track a run. It never raises, never prompts, and gives up on a silent server.

    Args:
        mode: "auto" follows WANDB_MODE or W&B's settings, and is otherwise online if an API key is
            configured, else offline. "online" falls back to offline without a key, or if the server
            cannot be reached. "off" does not import wandb.
        directory: run directory; W&B's files go to `directory / "wandb"`.
        name: recipe, or recipe/variant.
        config: flat recipe; values that JSON lacks are written as text.
        smoke: mark the run as a smoke run.
        group: the runs to show it with; None: those of its recipe.
        resume_id: `Tracker.id` of the run to resume.
        must_exist: whether it must be on the server, if that is asked; else it is made again.
    """
    tracker = Tracker(Path(directory).absolute(), name, smoke, group)
    if wanted(mode):
        tracker._attempt(
            partial(tracker._open, mode, config, resume_id, must_exist),
            service.INIT_TIMEOUT,
            then="" if must_exist else CONTINUES,
        )
    return tracker


def wanted(mode: Mode) -> bool:
    """Return whether `start` will import wandb, which takes seconds."""
    return mode != "off" and not (mode == "auto" and service.switched_off())


def add_figures(
    figures: dict[str, Path], *, to: str, after: int, mode: Mode = "auto", **run: Any
) -> str | None:
    """Add figures to a run that has ended, and end it again. It never raises, as `start`.

    Args:
        figures: image files by title.
        to: `Tracker.id` of the run. Online, W&B's server must know it.
        after: the last training step that it logged.
        mode: as of `start`.
        run: directory, name, config and smoke, as of `start`.

    Returns:
        The command that uploads what the server lacks; None if it lacks nothing.
    """
    tracker = start(mode, resume_id=to, must_exist=True, **run)
    tracker._add(figures, after)
    tracker.close(0)
    return tracker.sync_hint


class Tracker:
    """One run in W&B, or none; every method is safe to call at any time."""

    def __init__(self, directory: Path, name: str, smoke: bool, group: str | None = None):
        self._directory = directory
        self._name = name
        self._smoke = smoke
        self._group = group or name.partition("/")[0]
        self.id: str | None = None  # W&B's, to resume the run by; None if nothing is tracked
        self._run: wandb.Run | None = None  # None: off, failed, or finished
        self._files: Path | None = None
        self._service = service.Service()
        self._step: int | None = None  # last step logged; W&B drops what does not increase
        self._warned = False
        self._logging: service.Task | None = None  # of the last epoch
        self._unsent = False  # whether the files hold something that the server lacks

    @property
    def sync_hint(self) -> str | None:
        """Command that uploads what the server lacks; None if it lacks nothing."""
        if self._files is None or not self._unsent:
            return None
        # A run resumed offline has a folder for each start; their names begin with the time.
        parts = set(self._files.parent.glob(f"offline-run-*-{self.id}")) | {self._files}
        return shlex.join(["wandb", "sync", *sorted(map(str, parts))])

    def epoch(self, row: dict[str, Any], steps: list[dict[str, Any]]) -> None:
        """Log an epoch and its steps, while the training goes on.

        A failure is reported when the next epoch is logged, or the run ends.

        Args:
            row: the epoch's row of metrics.csv; None values are left out.
            steps: a dict for each step: "step" (global, increasing) and the values to plot over it.
                Steps that were logged before, as a resumed run repeats them, are left out.
        """
        self._settle()
        if self._run is not None:
            self._logging = service.Task(partial(self._log_epoch, row, steps))

    def _settle(self) -> None:
        """Wait until the last epoch is logged: only one thread speaks to W&B."""
        task, self._logging = self._logging, None
        if task is not None:
            self._attempt(task)

    def finish(
        self,
        summary: dict[str, Any],
        reported: dict[str, Any],
        figures: dict[str, Path],
        predictions: list[dict[str, Any]],
        model: list[Path],
    ) -> None:
        """Log the results of the whole run, and end it.

        Args:
            summary: final values by name.
            reported: published values by the same names; logged beside the measured ones as
                reported/NAME, measured/NAME and difference/NAME (measured - reported).
            figures: image files by title.
            predictions: dicts of image (PIL), predicted, true, confidence (0-1) and loss.
            model: files of the trained model, stored as one artifact of type "model".
        """

        def log() -> None:
            import wandb

            assert self._run is not None
            # Table and model come last: online they need more permissions, and may be refused.
            self._run.summary.update(side_by_side(summary, reported))
            for title, path in figures.items():
                self._log({f"figures/{title}": wandb.Image(str(path))}, self._step)
            if predictions:
                self._log({"predictions": table(predictions)}, self._step)
            if model:
                # From the run directory: no copy in W&B's cache, nor offline in its staging folder.
                artifact = wandb.Artifact(slug(self._name, self._smoke), type="model")
                for path in model:
                    artifact.add_file(str(path), policy="immutable", skip_cache=True)
                self._run.log_artifact(artifact)

        self._settle()
        if self._run is not None:
            self._attempt(log, exit_code=0)
        self.close(0)

    def _add(self, figures: dict[str, Path], after: int) -> None:
        """Log figures of a run that had ended after the step `after`."""

        def log() -> None:
            import wandb

            assert self._run is not None
            images = {title: wandb.Image(str(path)) for title, path in figures.items()}
            # A row of its own, after all others: W&B drops a step that is behind, and a run's only
            # row if it is not committed.
            self._run.log(images, step=max(after + 1, self._run.step), commit=True)

        if self._run is not None:
            self._attempt(log, then="", exit_code=0)

    def close(self, exit_code: int = 1) -> None:
        """End a run that did not reach `finish`; W&B shows it as failed unless the code is 0."""
        self._settle()
        run, self._run = self._run, None
        if run is not None:
            self._attempt(partial(self._end, run, exit_code), service.FINISH_TIMEOUT, then="")
        if self._service.ours:
            self._attempt(partial(self._service.end, run), then="")
            self._service.ours = False

    def _open(
        self, mode: Mode, config: dict[str, Any], resume_id: str | None, must_exist: bool
    ) -> None:
        hooks = sys.exit, sys.excepthook
        try:
            run = self._init(mode, config, resume_id, must_exist)
        except BaseException:
            self.close(1)
            raise
        finally:
            # wandb replaces both to learn the exit code, and would print tracebacks twice.
            sys.exit, sys.excepthook = hooks
        if run is None:
            self.close(0)
            return
        self._run, self.id = run, run.id
        self._unsent = run.offline
        self._files = Path(run.dir).parent
        for axis in ("epoch", "step"):
            run.define_metric(axis, hidden=True)
        run.define_metric("step/*", step_metric="step")
        for pattern in ("train/*", "valid/*", "lr", "momentum", "seconds", "images_per_second"):
            run.define_metric(pattern, step_metric="epoch")

    def _log_epoch(self, row: dict[str, Any], steps: list[dict[str, Any]]) -> None:
        for step in steps:
            at = int(step["step"])
            if self._step is None or at > self._step:
                values = {f"step/{k}": plain(v) for k, v in step.items() if k != "step"}
                self._log({"step": at, **values}, at)
        # The epoch goes to the row of its last step, so that one history has both axes.
        at = self._step
        if at is None or not steps:
            at = max((at or 0) + 1, int(row["epoch"]))
        self._log({series(k): plain(v) for k, v in row.items()}, at)

    def _init(
        self, mode: Mode, config: dict[str, Any], resume_id: str | None, must_exist: bool
    ) -> wandb.Run | None:
        import wandb

        # Without this folder wandb would write elsewhere, and its service to the console.
        (self._directory / "wandb").mkdir(parents=True, exist_ok=True)
        session = self._service.session()
        if mode == "auto":
            mode = service.session_mode(session)
        if mode == "off":
            return None
        start_run = partial(
            wandb.init,
            project=session.project or service.PROJECT,
            name=self._title(config),
            config={k: plain(v) for k, v in config.items()},
            group=self._group[:128] or None,
            job_type="smoke" if self._smoke else "train",
            tags=self._tags(config),
            dir=str(self._directory),
            reinit="create_new",  # leaves the user's own wandb.run alone
            id=resume_id,
        )
        resume = "allow" if resume_id else None
        if mode == "online":
            key = service.login(session)
            if key is None:  # wandb would ask for a key
                self._warn("no API key is configured (`wandb login`); this run is logged offline")
            else:
                try:
                    online = "must" if must_exist else resume
                    settings = service.settings(**key)
                    return start_run(mode="online", resume=online, settings=settings)
                except Exception as error:  # of any kind: offline is better than nothing
                    why = f"{session.base_url}: {reason(error)}"
                    self._warn(f"{why}; this run is logged offline")
                    with contextlib.suppress(Exception, SystemExit):
                        self._service.end()  # it may still be waiting for the server
                    self._service.session()
        return start_run(mode="offline", resume=resume, settings=service.settings())

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

    def _end(self, run: wandb.Run, exit_code: int) -> None:
        run.finish(exit_code=exit_code)
        assert self._files is not None
        # On a full disk its log file is missing or empty, and wandb does not raise.
        if not any(log.stat().st_size for log in self._files.glob("*.wandb")):
            raise OSError(f"nothing could be written to {self._files}")

    def _attempt(
        self,
        action: Callable[[], None] | service.Task,
        seconds: float = 0.0,
        *,
        then: str = CONTINUES,
        exit_code: int = 1,
    ) -> None:
        """Run an action; if W&B fails or is silent for `seconds` and GRACE, say so, and end."""
        try:
            with service.environment(self._directory):
                task = action if isinstance(action, service.Task) else service.Task(action)
                task.wait(seconds + service.GRACE, self._service.kill)
        # wandb's errors have no common class; SystemExit means that its service has crashed.
        except (Exception, SystemExit) as error:
            self._unsent = self._files is not None
            saved = f"; upload the rest with: {self.sync_hint}" if self.sync_hint else ""
            self._warn(reason(error) + then + saved)
            if self._run is not None:
                self.close(exit_code)

    def _warn(self, message: str) -> None:
        if not self._warned:
            self._warned = True
            print(f"W&B: {message}", file=sys.stderr, flush=True)
