"""wandb's own process: begun quietly, given a time to answer, and ended."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from subprocess import Popen
from threading import Thread
from typing import TYPE_CHECKING, Any, Literal, get_args

if TYPE_CHECKING:
    import wandb

Mode = Literal["auto", "online", "offline", "off"]

MODES = get_args(Mode)
PROJECT = "fastcv"  # where neither WANDB_PROJECT nor W&B's settings name one
INIT_TIMEOUT = 20.0  # seconds until a server that does not answer is given up at the start
FINISH_TIMEOUT = 180.0  # seconds for what is still to be uploaded at the end
TEARDOWN_TIMEOUT = 5.0  # seconds for wandb's service to stop
PUBLISH_TIMEOUT = 120.0  # seconds for all that `publish` asks of the server
GRACE = 60.0  # seconds beyond these, or for anything else, until wandb itself counts as hung

# Names starting with x_ are wandb's to change: `settings` drops those that it no longer has.
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


class Service:
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
        session = wandb.setup(settings())
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
            within(TEARDOWN_TIMEOUT, setup.teardown, give_up=self.kill)
        except (Exception, SystemExit):
            self.kill()
            raise

    def kill(self) -> None:
        """End a service that hangs or has crashed; wandb would wait for it when Python exits."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None


def switched_off() -> bool:
    """Whether the environment says that nothing is to be tracked, before wandb is imported."""
    disabled = os.environ.get("WANDB_DISABLED", "").lower() in ("true", "1", "yes", "on")
    return disabled or os.environ.get("WANDB_MODE") == "disabled"


def session_mode(session: wandb.Settings) -> Mode:
    """Read what "auto" means from the environment, W&B's settings files and stored keys."""
    if session.mode == "disabled":
        return "off"
    if session.mode in ("offline", "dryrun") or login(session) is None:
        return "offline"
    return "online"


def login(session: wandb.Settings) -> dict[str, str] | None:
    """Find the settings to log in with, where wandb would look before it asks the user."""
    from wandb.sdk.lib import wbauth

    if session.identity_token_file:
        return {}
    key = session.api_key or wbauth.read_netrc_auth(host=session.base_url)
    return {"api_key": key} if key else None


def settings(**more: Any) -> wandb.Settings:
    """Give wandb's settings: quiet, bounded in time, and `more`; those that it has no more go."""
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
def environment(directory: Path) -> Iterator[None]:
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


def within(seconds: float, action: Callable[[], None], give_up: Callable[[], None]) -> None:
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


def reason(error: BaseException) -> str:
    """Say an error in one line: wandb's run over several and repeat themselves."""
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
