"""Write everything that a training needs to resume into one file, again and again."""

import pickle
import random
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from fastai.callback.core import Callback
from fastai.callback.tracker import TrackerCallback
from fastai.learner import Learner
from fastai.torch_core import to_device
from fastcore.foundation import L

from fastcv import files, ranks
from fastcv.interruption import Checkpointed, is_asked
from fastcv.learning.lr_finder import Rates
from fastcv.learning.weights import first_misfit, torch_file, unpickling

# What a checkpoint holds, and as what. An older one may lack "fit", the number of the fit, "rates",
# "saved", "smooth", and what describes an epoch that was stopped within: "batch" and the rest of
# `WITHIN`.
KEPT: dict[str, type | tuple[type, ...]] = {
    "stage": int, "epochs": int, "model": Mapping, "optimizer": Mapping, "rows": list,
    "steps": (Mapping, list), "found": list, "callbacks": list, "random": Mapping,
}  # fmt: skip
WITHIN: dict[str, type | tuple[type, ...]] = {
    "batch": int, "begun": Mapping, "epoch": Mapping, "counts": Mapping
}  # fmt: skip
TRACKED = ("best", "wait")  # what fastai's trackers remember from epoch to epoch
COUNTED = ("pct_train", "train_iter")  # of fastai's Learner, in the running epoch
EVERY_MINUTES = 10.0
AGREE_EVERY = 8  # batches, of several ranks: asking the others takes a tenth of a millisecond


class Checkpoint(Callback):
    """Write `path` after every epoch and within long ones, and resume the fit that was stopped.

    Weights, optimizer, random states, the order of the images, the rows so far and the states of
    other callbacks are restored: a resumed training equals one that was never stopped. A callback
    takes part if it has `state()`, which returns plain data and tensors, and `restore(state)`, or
    if it is one of fastai's trackers.

    Within an epoch, a checkpoint is written between two batches, while no gradient is pending. The
    epoch is then begun again with the random states that it began with; the batches that were
    trained on are passed over.

    On a GPU a thread writes a copy, while the training goes on; `wait` waits for it. What writing
    raises, the next checkpoint or `wait` raises.

    Of several ranks, the first one writes. All of them agree every `AGREE_EVERY` batches whether it
    is time, and stop together.

    Args:
        path: the file, replaced as a whole; of several ranks only the first one needs it.
        resume: what `read` returned. The fit that it was written in takes it up, and then drops it;
            earlier fits of the same stage are skipped.
        every: minutes after which one is written within an epoch.

    Raises:
        ValueError: when a fit begins, `resume` is not that of this training.
        Checkpointed: a signal asked for a checkpoint, and it was written.
    """

    order, run_valid = 100, False
    _stage: int | None = None  # the stage whose fits are counted
    _fit = 0  # the running fit's number in its stage
    _within: dict[str, Any] | None = None  # what a resumed epoch has yet to restore
    _writing: Future[None] | None = None  # the checkpoint that a thread writes

    def __init__(
        self,
        path: Path | None,
        resume: dict[str, Any] | None = None,
        *,
        every: float = EVERY_MINUTES,
    ):
        self.path, self.resume, self.every = path, resume, every
        self._written = time.monotonic()

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
        with _belonging():
            self._restore(found)

    def _restore(self, found: dict[str, Any]) -> None:
        learn = self.learn
        if misfit := first_misfit(found["model"], learn.model.state_dict()):
            raise ValueError(f"{type(learn.model).__name__} has other weights: {misfit}")
        learn.model.load_state_dict(found["model"])
        learn.opt.load_state_dict(_for_optimizer(found["optimizer"], learn.dls.device))
        _check_state(learn.opt)
        learn.history.rows[:] = found["rows"]
        learn.history.steps.restore(found["steps"])
        learn.history.saved.update(found.get("saved", {}))
        if "smooth" in found:
            learn.recorder.smooth_loss.restore(found["smooth"])
        remembering, states = _remembering(learn), found["callbacks"]
        if len(remembering) != len(states):
            raise ValueError(f"it holds {len(states)} states of callbacks, not {len(remembering)}")
        for callback, state in zip(remembering, states, strict=True):
            _restore(callback, state)
        restore_random_state(learn, found["random"])
        learn.first_epoch = found["epochs"]
        if found.get("batch"):
            self._within = found

    def before_train(self) -> None:
        """Remember the random states that the order of the images comes from, or restore them."""
        learn, found = self.learn, self._within
        if learn.borrowed or not learn.fitting:
            return
        if found is None:
            self._begun = random_state(learn)
            return
        self._within, self._begun = None, found["begun"]
        with _belonging():
            learn.history.restore_epoch(found["epoch"])
            for name in COUNTED:
                setattr(learn, name, found["counts"][name])
            restore_random_state(learn, found["begun"])

        def go_on() -> None:
            with _belonging():
                restore_random_state(learn, found["random"])

        learn.begin_at(found["batch"], go_on)

    def after_batch(self) -> None:
        """Write the state between two batches, when it is time or a signal asks for it."""
        learn = self.learn
        due = time.monotonic() - self._written >= 60 * self.every
        asked, alone = is_asked(), ranks.count() == 1
        if (alone and not (due or asked)) or learn.borrowed or not learn.fitting:
            return
        if learn.iter + 1 >= learn.n_iter or (not alone and (learn.iter + 1) % AGREE_EVERY):
            return
        pending = _pending(learn)
        if not alone:
            due, asked, pending = ranks.any_of(due and ranks.is_first(), asked, pending)
        if (due or asked) and not pending:
            self._write(learn.epoch, self._running(), asked)

    def after_epoch(self) -> None:
        """Write the state that the next epoch starts from."""
        if not self.learn.borrowed and self.learn.fitting:
            self._write(self.learn.epoch + 1, {}, *ranks.any_of(is_asked()))

    def _running(self) -> dict[str, Any]:
        """Return what describes the running epoch."""
        learn = self.learn
        return {
            "batch": learn.iter + 1,  # passed over when it is begun again
            "begun": self._begun,
            "epoch": _plain(learn.history.running_epoch()),
            "counts": {name: getattr(learn, name) for name in COUNTED},
        }

    def _write(self, epochs: int, running: dict[str, Any], asked: bool) -> None:
        if ranks.is_first():
            self._write_file(self._state(epochs, running), asked)
        self._written = time.monotonic()
        ranks.wait()  # the disk of the first one may be slow
        if asked:
            raise Checkpointed

    def _state(self, epochs: int, running: dict[str, Any]) -> dict[str, Any]:
        learn = self.learn
        return {
            "stage": learn.history.stage,
            "fit": self._fit,
            "epochs": epochs,  # finished in this fit
            "model": learn.model.state_dict(),
            "optimizer": _plain(learn.opt.state_dict()),
            "rows": _plain(learn.history.rows),
            "steps": learn.history.steps.state(),
            "found": _plain([(stage, tuple(rates)) for stage, rates in learn.history.found]),
            "rates": _plain(learn.history.rates),
            "saved": _plain(learn.history.saved),
            "smooth": learn.recorder.smooth_loss.state(),
            "callbacks": [_plain(_state(callback)) for callback in _remembering(learn)],
            "random": random_state(learn),
            **running,
        }

    def _write_file(self, state: dict[str, Any], asked: bool) -> None:
        self.wait()
        if self._beside and not asked:
            writer = ThreadPoolExecutor(1, "fastcv-checkpoint")
            self._writing = writer.submit(self._save, _copied(state))
            writer.shutdown(wait=False)  # its thread ends with the file
        else:
            self._save(state)

    def _save(self, state: dict[str, Any]) -> None:
        with files.atomic(self.path, _size(state)) as file:
            torch.save(state, file)

    def wait(self) -> None:
        """Wait until the last checkpoint is written.

        Raises:
            NoRoom: the disk was full.
        """
        writing, self._writing = self._writing, None
        if writing is not None:
            writing.result()

    @property
    def _beside(self) -> bool:
        """Whether a thread writes while the training goes on: on a GPU, which would wait."""
        return torch.device(self.learn.dls.device).type == "cuda"

    def __getstate__(self) -> dict[str, Any]:
        return vars(self) | {"_writing": None}  # a Learner is exported without it


def _pending(learn: Learner) -> bool:
    """Whether a gradient waits for its step, as while gradients are accumulated."""
    stepper = learn.stepper
    if stepper is not None and stepper.graph is not None and stepper.graph.replay is not None:
        return False  # its gradients lie in the graph, and each step takes its own
    grads = [each.grad for each in learn.model.parameters() if each.grad is not None]
    return any(bool(grad.any()) for grad in grads)


@contextmanager
def _belonging() -> Iterator[None]:
    """Say in a sentence that a checkpoint belongs to another training.

    Raises:
        ValueError: what is restored does not fit.
    """
    try:
        yield
    except Exception as error:  # of any kind: anything may stand in the file of another training
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise ValueError(
            f"a checkpoint must be that of the run's own recipe, this one does not fit: {reason}: "
            "start a new run"
        ) from error


def _check_state(optimizer: Any) -> None:
    """Raise a ValueError unless an optimizer's state has the shapes of its parameters."""
    for parameter, state in getattr(getattr(optimizer, "opt", None), "state", {}).items():
        for name, value in state.items():
            if torch.is_tensor(value) and value.ndim and value.shape != parameter.shape:
                got, needed = tuple(value.shape), tuple(parameter.shape)
                raise ValueError(f"the optimizer's {name} has shape {got} instead of {needed}")


def _size(value: Any) -> int:
    """Return about how many bytes a state takes in a file."""
    if torch.is_tensor(value):
        return value.nbytes + 200
    if isinstance(value, Mapping):
        return sum(_size(each) + 20 for each in value.values())
    return sum(map(_size, value)) if isinstance(value, list | tuple) else 10


def _copied(value: Any) -> Any:
    """Copy a state's tensors to the CPU, where the training does not change them."""
    if torch.is_tensor(value):
        return value.detach().to("cpu", copy=True)
    if isinstance(value, Mapping):
        return {key: _copied(each) for key, each in value.items()}
    return type(value)(map(_copied, value)) if isinstance(value, list | tuple) else value


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
        ValueError: the file does not exist, cannot be read, is damaged, or holds something else.
    """
    if not path.is_file():
        raise ValueError(f"a run to resume must hold a checkpoint, {str(path)!r} does not exist")
    try:
        found = torch_file(path)
    except pickle.UnpicklingError as error:
        raise ValueError(
            f"a checkpoint must hold plain data only, {str(path)!r} holds {unpickling(error)}: "
            "start a new run"
        ) from error
    except Exception as error:  # whatever torch's reader meets in a damaged or hostile file
        reason = str(error) if isinstance(error, ValueError) else type(error).__name__
        raise ValueError(
            f"a checkpoint must be whole, {str(path)!r} cannot be read ({reason}): start a new run"
        ) from error
    wanted = KEPT | (WITHIN if isinstance(found, Mapping) and found.get("batch") else {})
    for name, kind in wanted.items():
        there = isinstance(found, Mapping) and isinstance(found.get(name), kind)
        if not there or isinstance(found[name], bool):
            raise ValueError(
                f"a checkpoint must hold {', '.join(wanted)}, {str(path)!r} has no such {name!r}: "
                "start a new run"
            )
    tensors = all(
        isinstance(name, str) and isinstance(each, torch.Tensor)
        for name, each in found["model"].items()
    )
    if not tensors or min(found["stage"], found["epochs"]) < 0:
        raise ValueError(
            f"a checkpoint must hold tensors by name and counts of 0 or more, {str(path)!r} does "
            "not: start a new run"
        )
    return found


def prepare(learn: Learner, found: dict[str, Any], stages: int) -> None:
    """Restore what a stopped run knew before its last stage began.

    Args:
        learn: the Learner that will train.
        found: what `read` returned.
        stages: number of stages of its recipe.

    Raises:
        ValueError: the checkpoint is that of another recipe.
    """
    with _belonging():
        if found["stage"] >= stages:
            raise ValueError(f"it was written in stage {found['stage'] + 1} of {stages}")
        learn.history.found[:] = [(stage, Rates(*rates)) for stage, rates in found["found"]]
        before = (tuple(pair) for pair in found.get("rates", ()))
        learn.history.rates[:] = [(stage, rate) for stage, rate in before if stage < found["stage"]]
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
    if ranks.count() > 1 and gpus and state["cuda"]:  # the first rank's, on its first GPU
        torch.cuda.set_rng_state(state["cuda"][0], learn.dls.device)
    for loader, generator in zip(learn.dls.loaders, state["loaders"], strict=True):
        loader.rng.setstate(generator)
