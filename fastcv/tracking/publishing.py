"""Store something on W&B's server, apart from any run."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Callable
from pathlib import Path

from fastcv.tracking import service


class NoAccount(Exception):
    """W&B is switched off or has no API key, and no server was asked; the message says which."""


def publish(save: Callable[[str, str], str]) -> str:
    """Call `save(entity, project)` with W&B set up, and return what it returns.

    Entity and project are those of runs. No file and no process is left behind.

    Raises:
        NoAccount: W&B is switched off or offline, or no API key is configured.
        ValueError: the server cannot be reached, refuses, or does not answer in time.
    """
    if service.switched_off():
        raise NoAccount("W&B is switched off")
    import wandb

    process = service.Service()

    def ask() -> str:
        entity = session.entity or wandb.Api().default_entity
        if not entity:
            raise ValueError("WANDB_ENTITY must name an entity, the API key has no default one")
        return save(entity, session.project or service.PROJECT)

    with tempfile.TemporaryDirectory() as folder, service.environment(Path(folder)):
        try:
            try:
                session = process.session()
            except Exception as error:  # of any kind; no server was asked yet
                message = " ".join(str(error).split())
                raise ValueError(f"W&B's settings must let it start, got: {message}") from error
            if service.login(session) is None:
                raise NoAccount("no API key is configured (`wandb login`)")
            if service.session_mode(session) != "online":
                raise NoAccount(f"W&B is kept {session.mode}")
            try:
                return service.within(service.PUBLISH_TIMEOUT, ask, give_up=process.kill)
            except (Exception, SystemExit) as error:  # wandb's errors have no common class
                raise ValueError(
                    f"W&B's server must accept the upload, {session.base_url} did not: "
                    f"{service.reason(error)}"
                ) from error
        finally:
            with contextlib.suppress(Exception, SystemExit):
                process.end()
