"""wandb's service process: started quietly, limited in time, and ended.

wandb waits without limit for its service, in every call and again when Python exits. A silent
server must not stop a training, so `within` limits each call, and `Service.kill` ends a service
that hangs. Only the process itself is private to wandb, and only `_child` reaches for it; all else
here is what `wandb.setup` and `wandb.teardown` offer.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from pathlib import Path
from subprocess import Popen
from threading import Thread
from typing import TYPE_CHECKING, Any, Literal, get_args

from fastcv import files

if TYPE_CHECKING:
    import wandb

Mode = Literal["auto", "online", "offline", "off"]

MODES = get_args(Mode)
PROJECT = "fastcv"  # where neither WANDB_PROJECT nor W&B's settings name one
# seconds
INIT_TIMEOUT = 20.0  # for the server's first answer
FINISH_TIMEOUT = 180.0  # for the last uploads
TEARDOWN_TIMEOUT = 5.0  # for the service to stop
PUBLISH_TIMEOUT = 120.0  # for all requests of `publish`
GRACE = 60.0  # beyond these limits, and for any other call, until wandb counts as hung

# wandb may rename settings that start with x_: `settings` drops those it no longer knows.
QUIET = {
    "silent": True,
    "console": "off",
    "finish_timeout_raises": True,
    "disable_code": True,
    "disable_git": True,
    "disable_job_creation": True,
    "label_disable": True,
    "save_code": False,
    "x_disable_meta": True,
    "x_save_requirements": False,
}


class Service:
    """wandb's service process, and this process's session with it."""

    def __init__(self) -> None:
        self.ours = False  # to end: no other session in this process has started it
        self._session: Any = None
        self._process: Popen[bytes] | None = None

    def session(self) -> wandb.Settings:
        """Start a session and return its settings; in a service that is not ours, as they are."""
        import wandb

        if self._session is None:
            self.ours = "WANDB_SERVICE" not in os.environ
        self._session = wandb.setup(settings() if self.ours else None)
        self._process = _child(self._session) if self.ours else None
        return self._session.settings

    def end(self, run: wandb.Run | None = None) -> None:
        """Stop the service, unless another run in this process uses it."""
        wandb = sys.modules.get("wandb")
        if wandb is None or not self.ours:  # None: the import failed
            return
        if self._session is not None:
            if run is not None:
                self._session.remove_active_run(run)  # after a crash it still counts as active
            if self._session.most_recent_active_run is not None:
                return
        try:
            within(TEARDOWN_TIMEOUT, wandb.teardown, give_up=self.kill)
        except (Exception, SystemExit):
            self.kill()
            raise

    def kill(self) -> None:
        """Kill a service that hangs or has crashed; wandb would wait for it when Python exits."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None


def _child(session: Any) -> Popen[bytes] | None:
    """Find the process that a session has started: wandb has no public name for it."""
    for name in ("_connection", "_proc", "_process"):
        session = getattr(session, name, None)
    return session


def switched_off() -> bool:
    """Whether the environment switches W&B off; asked before wandb is imported."""
    disabled = os.environ.get("WANDB_DISABLED", "").lower() in ("true", "1", "yes", "on")
    return disabled or os.environ.get("WANDB_MODE") == "disabled"


def session_mode(session: wandb.Settings) -> Mode:
    """Decide what "auto" means, from the environment, W&B's settings files and stored keys."""
    if session.mode == "disabled":
        return "off"
    if session.mode in ("offline", "dryrun") or login(session) is None:
        return "offline"
    return "online"


def login(session: wandb.Settings) -> dict[str, str] | None:
    """Return the settings to log in with, from the places that wandb searches; None: no key."""
    from wandb.sdk.lib import wbauth

    if session.identity_token_file:
        return {}
    key = session.api_key or wbauth.read_netrc_auth(host=session.base_url)
    return {"api_key": key} if key else None


def settings(**more: Any) -> wandb.Settings:
    """Return wandb's settings: quiet, limited in time, and `more`; unknown ones are dropped."""
    import wandb

    bounds = {"init_timeout": INIT_TIMEOUT, "finish_timeout": FINISH_TIMEOUT}
    values = QUIET | bounds | more
    known = wandb.Settings.model_fields
    return wandb.Settings(**{k: v for k, v in values.items() if k in known and v is not None})


@contextlib.contextmanager
def environment(directory: Path) -> Iterator[None]:
    """Keep W&B's caches in the run directory and switch its error reports off.

    Variables that the user has set stay. wandb reads these from the environment only, at the start
    and whenever it stages a file.
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


class Task:
    """An action that runs in a thread of its own, a daemon, from now on."""

    def __init__(self, action: Callable[[], Any]):
        self._outcome: Future[Any] = Future()
        self._thread = Thread(target=self._work, args=(action,), name="fastcv-wandb", daemon=True)
        self._thread.start()

    def _work(self, action: Callable[[], Any]) -> None:
        try:
            self._outcome.set_result(action())
        except BaseException as error:  # raised again in the thread that waits
            self._outcome.set_exception(error)

    def wait(self, seconds: float, give_up: Callable[[], None]) -> Any:
        """Return what the action returns, or raise what it raises.

        Raises:
            TimeoutError: it did not end in time, and `give_up` was called. Its thread usually ends
                when the process that it waits for is killed.
        """
        self._thread.join(seconds)
        if not self._outcome.done():
            give_up()
            raise TimeoutError(f"no answer within {seconds:g} seconds")
        return self._outcome.result()


def within(seconds: float, action: Callable[[], Any], give_up: Callable[[], None]) -> Any:
    """Run an action with a time limit, and return what it returns.

    Raises:
        TimeoutError: it did not end in time, and `give_up` was called.
    """
    return Task(action).wait(seconds, give_up)


def reason(error: BaseException) -> str:
    """Shorten an error to one line: wandb's have several, which repeat each other."""
    if files.is_no_room(error):
        folder = Path(error.filename2 or error.filename or "its folder").parent
        return f"there is no room in {str(folder)!r}: {error.strerror}"
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
