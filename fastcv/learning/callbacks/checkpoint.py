"""Write everything that a training needs to resume into one file after every epoch."""

import pickle
import random
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from fastai.callback.core import Callback
from fastai.callback.tracker import TrackerCallback
from fastai.learner import Learner
from fastai.torch_core import to_device
from fastcore.foundation import L

from fastcv import files
from fastcv.learning.lr_finder import Rates

# What a checkpoint holds; an older one may lack "fit", the number of the fit, and "saved".
KEPT = ["stage", "epochs", "model", "optimizer", "rows", "steps", "found", "callbacks", "random"]
TRACKED = ("best", "wait")  # what fastai's trackers remember from epoch to epoch


class Checkpoint(Callback):
    """Write `path` after every epoch, and resume the fit that was stopped after its last epoch.

    Weights, optimizer, random states, the order of the images, the rows so far and the states of
    other callbacks are restored: a resumed training equals one that was never stopped. A callback
    takes part if it has `state()`, which returns plain data and tensors, and `restore(state)`, or
    if it is one of fastai's trackers.

    Args:
        path: the file, replaced as a whole.
        resume: what `read` returned. The fit that it was written in takes it up, and then drops it;
            earlier fits of the same stage are skipped.
    """

    order, run_valid = 100, False
    _stage: int | None = None  # the stage whose fits are counted
    _fit = 0  # the running fit's number in its stage

    def __init__(self, path: Path, resume: dict[str, Any] | None = None):
        self.path, self.resume = path, resume
        self._steps: list[dict[str, Any]] = []  # the history's, as plain data

    def before_fit(self) -> None:
        """Restore the stopped fit, if this is the one."""
        learn, found = self.learn, self.resume
        if learn.borrowed or not learn.fitting:
            return
        stage = learn.history.stage
        self._fit = self._fit + 1 if stage == self._stage else 0
        self._stage = stage
        if found is None or found["stage"] != stage:
            return
        if self._fit < found.get("fit", 0):
            learn.first_epoch = learn.n_epoch
            return
        self.resume, learn.history.resuming = None, False
        learn.model.load_state_dict(found["model"])
        learn.opt.load_state_dict(_for_optimizer(found["optimizer"], learn.dls.device))
        learn.history.rows[:], learn.history.steps[:] = found["rows"], found["steps"]
        learn.history.saved.update(found.get("saved", {}))
        for callback, state in zip(_remembering(learn), found["callbacks"], strict=True):
            _restore(callback, state)
        restore_random_state(learn, found["random"])
        learn.first_epoch = found["epochs"]

    def after_epoch(self) -> None:
        """Write the state that the next epoch starts from."""
        learn = self.learn
        if learn.borrowed or not learn.fitting:
            return
        self._steps += _plain(learn.history.steps[len(self._steps) :])
        state = {
            "stage": learn.history.stage,
            "fit": self._fit,
            "epochs": learn.epoch + 1,  # finished in this fit
            "model": learn.model.state_dict(),
            "optimizer": _plain(learn.opt.state_dict()),
            "rows": _plain(learn.history.rows),
            "steps": self._steps,
            "found": _plain([(stage, tuple(rates)) for stage, rates in learn.history.found]),
            "saved": _plain(learn.history.saved),
            "callbacks": [_plain(_state(callback)) for callback in _remembering(learn)],
            "random": random_state(learn),
        }
        with files.atomic(self.path) as file:
            torch.save(state, file)


def _plain(value: Any) -> Any:
    """Convert a state to plain data: `read` accepts no objects of numpy or fastcore."""
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, Mapping):
        return {_plain(key): _plain(each) for key, each in value.items()}
    if isinstance(value, list | L):
        return [_plain(each) for each in value]
    return tuple(_plain(each) for each in value) if isinstance(value, tuple) else value


def _for_optimizer(state: dict[str, Any], device: torch.device) -> dict[str, Any]:
    """Convert a plain state back: fastai's own optimizer neither copies nor moves it."""
    if "hypers" not in state:
        return state
    return state | {"hypers": L(state["hypers"]), "state": to_device(state["state"], device)}


def read(path: Path) -> dict[str, Any]:
    """Read a checkpoint onto the CPU, without unpickling objects.

    Raises:
        ValueError: the file does not exist or cannot be read.
    """
    if not path.is_file():
        raise ValueError(f"a run to resume must hold a checkpoint, {str(path)!r} does not exist")
    try:
        found = torch.load(path, map_location="cpu", weights_only=True)
    except (RuntimeError, OSError, EOFError, KeyError, ValueError, pickle.UnpicklingError) as error:
        raise ValueError(
            f"a checkpoint must be whole and hold plain data only, {str(path)!r} cannot be read "
            f"({type(error).__name__}): start a new run"
        ) from error
    if not isinstance(found, dict) or not set(KEPT) <= set(found):
        raise ValueError(
            f"a checkpoint must hold {', '.join(KEPT)}, {str(path)!r} does not: start a new run"
        )
    return found


def prepare(learn: Learner, found: dict[str, Any]) -> None:
    """Restore what a stopped run knew before its last stage began."""
    learn.history.found[:] = [(stage, Rates(*rates)) for stage, rates in found["found"]]
    learn.history.resuming = True


def _remembering(learn: Learner) -> list[Callback]:
    return [
        callback
        for callback in learn.cbs.sorted("order")
        if hasattr(type(callback), "restore") or isinstance(callback, TrackerCallback)
    ]


def _state(callback: Callback) -> dict[str, Any]:
    if hasattr(type(callback), "restore"):
        return callback.state()
    return {name: value for name, value in vars(callback).items() if name in TRACKED}


def _restore(callback: Callback, state: dict[str, Any]) -> None:
    if hasattr(type(callback), "restore"):
        callback.restore(state)
    else:
        vars(callback).update(state)


def random_state(learn: Learner) -> dict[str, Any]:
    """Return the states of all random generators of a training, as plain data and tensors."""
    kind, keys, *rest = np.random.get_state()
    return {
        "python": random.getstate(),
        "numpy": (kind, keys.tolist(), *rest),
        "torch": torch.get_rng_state(),
        # Without computations on a GPU there are no draws on it either.
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else [],
        "loaders": [loader.rng.getstate() for loader in learn.dls.loaders],
    }


def restore_random_state(learn: Learner, state: dict[str, Any]) -> None:
    """Set all random generators to what `random_state` returned."""
    random.setstate(state["python"])
    kind, keys, *rest = state["numpy"]
    np.random.set_state((kind, np.array(keys, dtype=np.uint32), *rest))
    torch.set_rng_state(state["torch"])
    gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    for index, generator in enumerate(state["cuda"][:gpus]):  # this machine may have fewer
        torch.cuda.set_rng_state(generator, index)
    for loader, generator in zip(learn.dls.loaders, state["loaders"], strict=True):
        loader.rng.setstate(generator)
