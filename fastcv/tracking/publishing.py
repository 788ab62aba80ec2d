"""Storing something on W&B's server, apart from any run."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Callable
from pathlib import Path

from fastcv.tracking import service
from fastcv.tracking.service import (
    PROJECT,
    Service,
    environment,
    login,
    reason,
    session_mode,
    switched_off,
    within,
)


class NoAccount(Exception):
    """Nobody was asked, because W&B is switched off or has no API key; says which."""


def publish(save: Callable[[str, str], str]) -> str:
    """Let `save(entity, project)` store something on W&B's server, and return what it returns.

    Entity and project are those that runs go to. Nothing is left behind: no file, no process.

    Raises:
        NoAccount: W&B is switched off, kept offline, or no API key is configured.
        ValueError: the server cannot be reached, refuses, or does not answer.
    """
    if switched_off():
        raise NoAccount("W&B is switched off")
    import wandb

    process = Service()
    process.claim()
    returned: list[str] = []

    def ask() -> None:
        entity = session.entity or wandb.Api().default_entity
        if not entity:
            raise ValueError("WANDB_ENTITY must say whose it is, the API key does not")
        returned.append(save(entity, session.project or PROJECT))

    with tempfile.TemporaryDirectory() as folder, environment(Path(folder)):
        try:
            try:
                session = process.session()
            except Exception as error:  # whatever it is, it came before anybody was asked
                said = " ".join(str(error).split())
                raise ValueError(f"W&B's settings must let it start, it says: {said}") from error
            if login(session) is None:
                raise NoAccount("no API key is configured (`wandb login`)")
            if session_mode(session) != "online":
                raise NoAccount(f"W&B is kept {session.mode}")
            try:
                within(service.PUBLISH_TIMEOUT, ask, give_up=process.kill)
            except (Exception, SystemExit) as error:  # wandb raises what it likes
                raise ValueError(
                    f"W&B's server must take what is published, {session.base_url} did not: "
                    f"{reason(error)}"
                ) from error
        finally:
            with contextlib.suppress(Exception, SystemExit):
                process.end()
    return returned[0]
