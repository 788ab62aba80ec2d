"""Everything a training needs to go on where it stopped, in one file, written after every epoch."""

import os
import random
from pathlib import Path
from typing import Any

import numpy as np
import torch
from fastai.callback.core import Callback
from fastai.learner import Learner

from fastcv.learning.lr_finder import Rates


class Checkpoint(Callback):
    """Write `path` after every epoch; start the fit it was written in behind its last epoch.

    Weights, optimizer, random states, the order of the images, the rows so far and what the other
    callbacks remember all come back: a resumed training gives the numbers of one never stopped.

    Args:
        path: the file, replaced as a whole.
        resume: what `read` gave; used by the fit of its stage, then dropped.
    """

    order, run_valid = 100, False

    def __init__(self, path: Path, resume: dict[str, Any] | None = None):
        self.path, self.resume = path, resume

    def before_fit(self) -> None:
        """Restore the stopped stage, when this is it."""
        learn, found = self.learn, self.resume
        if found is None or found["stage"] != learn.history.stage:
            return
        self.resume, learn.history.resuming = None, False
        learn.model.load_state_dict(found["model"])
        learn.opt.load_state_dict(found["optimizer"])
        learn.history.rows[:], learn.history.steps[:] = found["rows"], found["steps"]
        for callback, state in zip(_remembering(learn), found["callbacks"], strict=True):
            callback.restore(state)
        restore_random_state(learn, found["random"])
        learn.first_epoch = found["epochs"]

    def after_epoch(self) -> None:
        """Write the state the next epoch starts from."""
        learn = self.learn
        if learn.borrowed:
            return
        state = {
            "stage": learn.history.stage,
            "epochs": learn.epoch + 1,  # of this stage, done
            "model": learn.model.state_dict(),
            "optimizer": learn.opt.state_dict(),
            "rows": learn.history.rows,
            "steps": learn.history.steps,
            "found": [(stage, tuple(rates)) for stage, rates in learn.history.found],
            "callbacks": [callback.state() for callback in _remembering(learn)],
            "random": random_state(learn),
        }
        part = self.path.with_name(f".{self.path.name}.part")
        torch.save(state, part)
        os.replace(part, self.path)


def read(path: Path) -> dict[str, Any]:
    """Read a checkpoint, onto the CPU, without unpickling objects.

    Raises:
        ValueError: there is none.
    """
    if not path.is_file():
        raise ValueError(f"a run to resume must hold a checkpoint, {str(path)!r} does not exist")
    return torch.load(path, map_location="cpu", weights_only=True)


def prepare(learn: Learner, found: dict[str, Any]) -> None:
    """Tell a new Learner what its stopped run knew before the stage it stopped in."""
    learn.history.found[:] = [(stage, Rates(*rates)) for stage, rates in found["found"]]
    learn.history.resuming = True


def _remembering(learn: Learner) -> list[Any]:
    return [callback for callback in learn.cbs.sorted("order") if hasattr(callback, "restore")]


def random_state(learn: Learner) -> dict[str, Any]:
    """Take down every random generator a training draws from, as plain data and tensors."""
    kind, keys, *rest = np.random.get_state()
    return {
        "python": random.getstate(),
        "numpy": (kind, keys.tolist(), *rest),
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
        "loaders": [loader.rng.getstate() for loader in learn.dls.loaders],
    }


def restore_random_state(learn: Learner, state: dict[str, Any]) -> None:
    """Set every random generator to what `random_state` took down."""
    random.setstate(state["python"])
    kind, keys, *rest = state["numpy"]
    np.random.set_state((kind, np.array(keys, dtype=np.uint32), *rest))
    torch.set_rng_state(state["torch"])
    if state["cuda"]:
        torch.cuda.set_rng_state_all(state["cuda"])
    for loader, generator in zip(learn.dls.loaders, state["loaders"], strict=True):
        loader.rng.setstate(generator)
