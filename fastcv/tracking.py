"""Weights & Biases: what a run tells it, and the one place that imports it.

`start` gives a `Tracker`, which takes plain numbers, images and files and never gives anything
back but its id. Whatever W&B does (not installed, no key, no network, a server that refuses or
does not answer, a full disk, a crashed service), training goes on: the first failure is said
once on stderr and the tracker is silent from then on. wandb is imported by `start`, not with
this module.

What is sent: the flat recipe, metrics by epoch and by step, figures, a table of predictions, the
model files, and the load of processor, memory and GPU. What is switched off, because nobody who
types `--wandb online` expects it: the source code and its git state, the list of installed
packages, the command line, program path and hardware description, the console's text, and
W&B's own error reports. All files lie in the run directory under `wandb/`.
"""

from __future__ import annotations

import contextlib
import math
import os
import re
import shlex
import sys
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from subprocess import Popen
from threading import Thread
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    import wandb

Mode = Literal["auto", "online", "offline", "off"]

MODES = ("auto", "online", "offline", "off")
PROJECT = "fastcv"  # where neither WANDB_PROJECT nor W&B's settings name one
INIT_TIMEOUT = 20.0  # seconds until a server that does not answer is given up at the start
FINISH_TIMEOUT = 180.0  # seconds for what is still to be uploaded at the end
TEARDOWN_TIMEOUT = 5.0  # seconds for wandb's service to stop
PUBLISH_TIMEOUT = 120.0  # seconds for all that `publish` asks of the server
GRACE = 60.0  # seconds beyond these, or for anything else, until wandb itself counts as hung

# Names starting with x_ are wandb's to change: `_settings` drops those that it no longer has.
QUIET = {
    "silent": True,
    "console": "off",
    "disable_code": True,
    "disable_git": True,
    "disable_job_creation": True,
    "label_disable": True,
    "save_code": False,
    "x_disable_meta": True,
    "x_save_requirements": False,
}

# Epoch metrics by their column in metrics.csv; a slash makes a group of charts in W&B.
EPOCH_NAMES = {
    "train_loss": "train/loss",
    "train_accuracy": "train/accuracy",
    "valid_loss": "valid/loss",
    "valid_accuracy": "valid/accuracy",
}

PREDICTION_COLUMNS = ("image", "true", "predicted", "correct", "confidence", "loss")


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
    if mode == "off" or (mode == "auto" and _switched_off()):
        return tracker
    tracker._attempt(partial(tracker._open, mode, config, resume_id), INIT_TIMEOUT + GRACE)
    return tracker


class NoAccount(Exception):
    """Nobody was asked, because W&B is switched off or has no API key; says which."""


def publish(save: Callable[[str, str], str]) -> str:
    """Let `save(entity, project)` store something on W&B's server, and return what it returns.

    Entity and project are those that runs go to. Nothing is left behind: no file, no process.

    Raises:
        NoAccount: W&B is switched off, kept offline, or no API key is configured.
        ValueError: the server cannot be reached, refuses, or does not answer.
    """
    if _switched_off():
        raise NoAccount("W&B is switched off")
    import wandb

    service = _Service()
    service.claim()
    returned: list[str] = []

    def ask() -> None:
        entity = session.entity or wandb.Api().default_entity
        if not entity:
            raise ValueError("WANDB_ENTITY must say whose it is, the API key does not")
        returned.append(save(entity, session.project or PROJECT))

    with tempfile.TemporaryDirectory() as folder, _environment(Path(folder)):
        try:
            try:
                session = service.session()
            except Exception as error:  # whatever it is, it came before anybody was asked
                said = " ".join(str(error).split())
                raise ValueError(f"W&B's settings must let it start, it says: {said}") from error
            if _login(session) is None:
                raise NoAccount("no API key is configured (`wandb login`)")
            if _session_mode(session) != "online":
                raise NoAccount(f"W&B is kept {session.mode}")
            try:
                _within(PUBLISH_TIMEOUT, ask, give_up=service.kill)
            except (Exception, SystemExit) as error:  # wandb raises what it likes
                raise ValueError(
                    f"W&B's server must take what is published, {session.base_url} did not: "
                    f"{_reason(error)}"
                ) from error
        finally:
            with contextlib.suppress(Exception, SystemExit):
                service.end()
    return returned[0]


class Tracker:
    """One run in W&B, or nothing at all; every method is safe to call at any time."""

    def __init__(self, directory: Path, name: str, smoke: bool):
        self._directory = directory
        self._name = name
        self._smoke = smoke
        self._run: wandb.Run | None = None  # None: off, failed, or finished
        self._id: str | None = None
        self._files: Path | None = None
        self._service = _Service()
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
                values = {f"step/{k}": _plain(v) for k, v in step.items() if k != "step"}
                self._log({"step": at, **values}, at)
        # The epoch joins the row of its last step, so both axes stand in one history.
        at = self._step
        if at is None or not steps:
            at = max((at or 0) + 1, int(row["epoch"]))
        self._log({EPOCH_NAMES.get(k, k): _plain(v) for k, v in row.items()}, at)

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
        self._run.summary.update(_side_by_side(summary, reported))
        for title, path in figures.items():
            self._log({f"figures/{title}": wandb.Image(str(path))}, self._step)
        if predictions:
            self._log({"predictions": _table(predictions)}, self._step)
        if model:
            # As it lies: no copy in W&B's cache, and offline none in its staging folder.
            artifact = wandb.Artifact(_slug(self._name, self._smoke), type="model")
            for path in model:
                artifact.add_file(str(path), policy="immutable", skip_cache=True)
            self._run.log_artifact(artifact)

    def _init(self, mode: Mode, config: dict[str, Any], resume_id: str | None) -> wandb.Run | None:
        import wandb

        # First, because wandb would go elsewhere (and its service log to the console) without it.
        (self._directory / "wandb").mkdir(parents=True, exist_ok=True)
        session = self._service.session()
        if mode == "auto":
            mode = _session_mode(session)
        if mode == "off":
            return None
        start_run = partial(
            wandb.init,
            project=session.project or PROJECT,
            name=self._title(config),
            config={k: _plain(v) for k, v in config.items()},
            group=self._name.partition("/")[0][:128] or None,
            job_type="smoke" if self._smoke else "train",
            tags=self._tags(config),
            dir=str(self._directory),
            reinit="create_new",  # the user's own wandb.run is none of our business
            id=resume_id,
            resume="allow" if resume_id else None,
        )
        if mode == "online":
            login = _login(session)
            if login is None:  # wandb would ask for a key
                self._say("no API key is configured (`wandb login`); this run is logged offline")
            else:
                try:
                    return start_run(mode="online", settings=_settings(**login))
                except Exception as error:  # whatever it is, offline is better than nothing
                    why = f"{session.base_url}: {_reason(error)}"
                    self._say(f"{why}; this run is logged offline")
                    with contextlib.suppress(Exception, SystemExit):
                        self._service.end()  # it may still be waiting for the server
                    self._service.session()
        return start_run(mode="offline", settings=_settings())

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
            self._attempt(partial(self._end, run, exit_code), FINISH_TIMEOUT + GRACE, then="")
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
            with _environment(self._directory):
                _within(seconds or GRACE, action, give_up=self._service.kill)
        # wandb raises what it likes, and SystemExit when its service has crashed.
        except (Exception, SystemExit) as error:
            self._unsent = self._files is not None
            saved = f"; `{self.sync_hint}` uploads what there is" if self.sync_hint else ""
            self._say(_reason(error) + then + saved)
            if self._run is not None:
                self._close(exit_code)

    def _say(self, message: str) -> None:
        if not self._said:
            self._said = True
            print(f"W&B: {message}", file=sys.stderr, flush=True)


class _Service:
    """wandb's own process, and its session in this one."""

    def __init__(self) -> None:
        self.ours = False  # else it is not ours to end
        self._process: Popen[bytes] | None = None

    def claim(self) -> None:
        """Take it for ours, unless somebody else's session in this process is there already."""
        self.ours = "WANDB_SERVICE" not in os.environ

    def session(self) -> wandb.Settings:
        """Begin a session, quietly; somebody else's stays as it is, and alive when we end."""
        import wandb

        if not self.ours:
            return wandb.setup().settings
        session = wandb.setup(_settings())
        self._process = _child(session)
        return session.settings

    def end(self, run: wandb.Run | None = None) -> None:
        """Stop wandb's process and thread, unless another run in this process uses them."""
        setup = sys.modules.get("wandb.sdk.wandb_setup")
        if setup is None or not self.ours:  # None: the import failed
            return
        session = setup.singleton()
        if run is not None:
            session.remove_active_run(run)  # after a crash of the service it still counts
        if session.most_recent_active_run is not None:
            return
        try:
            _within(TEARDOWN_TIMEOUT, setup.teardown, give_up=self.kill)
        except (Exception, SystemExit):
            self.kill()
            raise

    def kill(self) -> None:
        """End a service that hangs or has crashed; wandb would wait for it when Python exits."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None


def _switched_off() -> bool:
    disabled = os.environ.get("WANDB_DISABLED", "").lower() in ("true", "1", "yes", "on")
    return disabled or os.environ.get("WANDB_MODE") == "disabled"


def _session_mode(session: wandb.Settings) -> Mode:
    """Read what "auto" means from the environment, W&B's settings files and stored keys."""
    if session.mode == "disabled":
        return "off"
    if session.mode in ("offline", "dryrun") or _login(session) is None:
        return "offline"
    return "online"


def _login(session: wandb.Settings) -> dict[str, str] | None:
    """Find the settings to log in with, where wandb would look before it asks the user."""
    from wandb.sdk.lib import wbauth

    if session.identity_token_file:
        return {}
    key = session.api_key or wbauth.read_netrc_auth(host=session.base_url)
    return {"api_key": key} if key else None


def _settings(**more: Any) -> wandb.Settings:
    import wandb

    bounds = {
        "init_timeout": INIT_TIMEOUT,
        "finish_timeout": FINISH_TIMEOUT,
        "finish_timeout_raises": True,
    }
    values = QUIET | bounds | more
    known = wandb.Settings.model_fields
    return wandb.Settings(**{k: v for k, v in values.items() if k in known and v is not None})


@contextlib.contextmanager
def _environment(directory: Path) -> Iterator[None]:
    """Keep W&B's caches in the run directory and its error reports unsent, unless told otherwise.

    These are read from the environment only, at the start and whenever a file is staged.
    """
    wanted = {
        "WANDB_DATA_DIR": str(directory / "wandb"),
        "WANDB_CACHE_DIR": str(directory / "wandb" / "cache"),
        "WANDB_ERROR_REPORTING": "false",
    }
    ours = {k: v for k, v in wanted.items() if k not in os.environ}
    os.environ.update(ours)
    try:
        yield
    finally:
        for key in ours:
            os.environ.pop(key, None)


def _within(seconds: float, action: Callable[[], None], give_up: Callable[[], None]) -> None:
    """Run an action that must end in so many seconds: wandb waits for its service without limit.

    Raises:
        TimeoutError: it did not end. Its thread is a daemon, and most often ends as well when
            `give_up` has killed what it waits for.
    """
    outcome: list[BaseException | None] = []

    def work() -> None:
        try:
            action()
        except BaseException as error:  # raised again below, in the thread that waits
            outcome.append(error)
        else:
            outcome.append(None)

    thread = Thread(target=work, name="fastcv-wandb", daemon=True)
    thread.start()
    thread.join(seconds)
    if not outcome:
        give_up()
        raise TimeoutError(f"no answer within {seconds:g} seconds")
    if outcome[0] is not None:
        raise outcome[0]


def _child(session: Any) -> Popen[bytes] | None:
    """Find the process that a session of wandb's has started; it has no public name."""
    for name in ("_connection", "_proc", "_process"):
        session = getattr(session, name, None)
    return session


def _reason(error: BaseException) -> str:
    """Say an error in one line: wandb's run over several and repeat themselves."""
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__


def _plain(value: Any) -> Any:
    """Turn a value of a metric or a recipe into one that JSON has."""
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, dict):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    if getattr(value, "shape", None) == ():  # a number of numpy's or torch's
        return value.item()
    return str(value)


def _side_by_side(summary: dict[str, Any], reported: dict[str, Any]) -> dict[str, Any]:
    rows = {k: _plain(v) for k, v in summary.items() if v is not None}
    for key, value in reported.items():
        said, found = _plain(value), rows.get(key)
        if said is None:
            continue
        rows[f"reported/{key}"] = said
        if found is not None:
            rows[f"measured/{key}"] = found
            if _is_number(said) and _is_number(found):
                rows[f"difference/{key}"] = found - said
    return rows


def _is_number(value: Any) -> bool:
    is_bool = isinstance(value, bool)
    return isinstance(value, int | float) and not is_bool and math.isfinite(value)


def _table(predictions: list[dict[str, Any]]) -> wandb.Table:
    import wandb

    table = wandb.Table(columns=list(PREDICTION_COLUMNS))
    for row in predictions:
        table.add_data(
            wandb.Image(row["image"]),
            str(row["true"]),
            str(row["predicted"]),
            row["true"] == row["predicted"],
            float(row["confidence"]),
            float(row["loss"]),
        )
    return table


def _slug(name: str, smoke: bool) -> str:
    """Name the artifact within W&B's alphabet; a smoke run's never becomes a recipe's latest."""
    return (re.sub(r"[^\w.-]+", "-", name, flags=re.ASCII) + ("-smoke" if smoke else ""))[-128:]
