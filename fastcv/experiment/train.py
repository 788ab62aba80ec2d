"""From a recipe to a Learner, and from a Learner to a run directory."""

import shlex
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from fastai.callback.progress import ProgressCallback
from fastai.torch_core import default_device, set_seed
from fastcore.basics import noop

from fastcv import catalogue, files, tracking
from fastcv.experiment import directory
from fastcv.experiment.results import Results
from fastcv.learning.callbacks import checkpoint
from fastcv.learning.callbacks.alternation import Alternation
from fastcv.learning.callbacks.checkpoint import Checkpoint
from fastcv.learning.callbacks.fresh import fresh
from fastcv.learning.callbacks.history import Accuracy, History
from fastcv.learning.callbacks.mixing import Mixing
from fastcv.learning.callbacks.precision import Precision, resolve
from fastcv.learning.callbacks.progress import Progress
from fastcv.learning.cpu import keep_freed_memory
from fastcv.learning.cuda_graph.stepper import Stepper
from fastcv.learning.learner import Learner
from fastcv.learning.metrics import columns
from fastcv.recipe.addresses import is_address, is_public
from fastcv.recipe.checks import compare
from fastcv.recipe.diff import describe, diff
from fastcv.recipe.flat import flat
from fastcv.recipe.values import Recipe

SMOKE_NOTE = "SMOKE RUN: toy images, random weights, one epoch a stage; its numbers mean nothing"
FINAL = (
    ("train", "train_accuracy"),
    ("validation", "valid_accuracy"),
    ("test", "test_accuracy"),
    ("test through views", "tta_accuracy"),
)  # what a run ends with, in its words and in those of its summary


def learner(recipe: Recipe, *, device: str | torch.device | None = None) -> Learner:
    """Build the recipe's Learner: seeded, on its device, in its precision, not yet trained.

    It is a fastai Learner (`show_batch`, `lr_find`, `fit_one_cycle`, `get_preds`, `predict`, ...)
    whose `history` also gathers training accuracy and images per second.

    Args:
        recipe: what to build.
        device: "cpu", "cuda", "cuda:1", "mps"; None takes the best there is.
    """
    device = _device(device)
    stepper = Stepper(recipe.step, device)
    set_seed(recipe.seed)
    loaders = recipe.data(device=device)
    kind = resolve(recipe.precision, device)
    precision = Precision(kind, channels_last=recipe.step.channels_last)
    history = History()
    callbacks = [history, Progress(), precision, Alternation()]
    if mixing := getattr(loaders, "mixing", ()):
        callbacks.append(Mixing(mixing, len(loaders.vocab)))
    learn = recipe.model(
        loaders,
        loss_func=recipe.loss(),
        opt_func=recipe.optimizer,
        metrics=[Accuracy(history), *columns(recipe.metrics, history)],
        cbs=callbacks + fresh(recipe.callbacks),
    )
    learn.remove_cb(ProgressCallback)  # Progress shows more, and reads nothing from the device
    learn.logger = noop  # nor does the Recorder print its row
    learn.model.to(device)
    learn.stepper = stepper
    if device.type == "cpu":
        keep_freed_memory()
    return learn


def _device(name: str | torch.device | None) -> torch.device:
    if name is None:
        return default_device()
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ValueError(f"device must be cpu, cuda, cuda:N or mps, got {str(name)!r}") from error
    there = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if not there.get(device.type, device.type == "cpu"):
        raise ValueError(
            f"device {str(device)!r} needs a GPU and a build of torch for it, and there is none: "
            f"use 'cpu'"
        )
    return device


def smoked(recipe: Recipe) -> Recipe:
    """Make of a recipe one that runs in seconds: toy images, random weights, one epoch a stage."""
    return replace(
        recipe,
        data=_smoked_slot(recipe.data),
        model=_smoked_slot(recipe.model),
        schedule=tuple(_smoked_slot(stage) for stage in recipe.schedule),
    )


def _smoked_slot(slot: Callable) -> Callable:
    return slot.smoke() if hasattr(slot, "smoke") else slot


def train(
    recipe: Recipe,
    *,
    out: str | Path = "runs",
    wandb: str = "auto",
    device: str | None = None,
    smoke: bool = False,
    resume: str | Path | None = None,
    write: Callable[[str], None] = print,
) -> directory.Run:
    """Run the whole experiment and write its run directory.

    Args:
        recipe: the experiment. `smoke` and `resume` leave it as it is.
        out: the folder that holds all runs.
        wandb: "online", "offline", "off", or "auto": online where an API key is configured.
        device: as in `learner`.
        smoke: run it on toy images with random weights, in seconds.
        resume: the directory of a stopped run of this recipe, to go on behind its last epoch.
        write: takes each line of what is said beside the epochs.

    Returns:
        The run; `run.path` holds what it wrote, `run.summary` its numbers.

    Raises:
        ValueError: something a user can mend, in one sentence.
        FloatingPointError: the loss was not finite; says in which epoch and batch.
    """
    if wandb not in tracking.MODES:
        raise ValueError(f"wandb must be one of {', '.join(tracking.MODES)}, got {wandb!r}")
    if not recipe.schedule:
        raise ValueError("a recipe must have at least one stage to be trained, got schedule=()")
    if resume is not None and directory.Run(Path(resume)).summary:
        raise ValueError(f"a run to resume must have been stopped, {str(resume)!r} is finished")
    values = flat(recipe)  # before the data is read: a recipe that cannot be written is refused
    ran = smoked(recipe) if smoke else recipe
    found = checkpoint.read(Path(resume) / "last.ckpt") if resume is not None else None
    if smoke:
        write(SMOKE_NOTE)
    learn = learner(ran, device=device)
    kind = learn.precision.precision
    place = str(learn.dls.device)

    if resume is None:
        settings = {
            "device": device,
            "wandb": wandb,
            "file": defining_file(recipe),
            "cwd": str(Path.cwd()),
        }
        run = directory.create(recipe.name, values, Path(out), smoke=smoke, settings=settings)
        tracked = None
    else:
        run = directory.Run(Path(resume))
        tracked = run.environment.get("wandb_id")
        checkpoint.prepare(learn, found)
    tracker = None
    learn.path = run.path  # where callbacks write
    with files.lock(run.path):
        try:
            parameters = sum(p.numel() for p in learn.model.parameters())
            _introduce(ran, learn, run, parameters, write)
            if getattr(learn.dls, "skipped", 0):
                write(f"unreadable images left out: {learn.dls.skipped}")
            tracker = tracking.start(
                wandb,
                directory=run.path,
                name=recipe.name,
                config=values,
                smoke=smoke,
                resume_id=tracked,
            )
            here = directory.environment(place, kind) | {"wandb_id": tracker.id}
            if resume is not None:  # what began the run stays in the first place
                before = run.environment
                here = before | {"resumed": [*before.get("resumed", []), here]}
            files.write_json(run.path / "environment.json", here)
            learn.history.on_epoch = _writer(run, learn.history, tracker)
            learn.epoch_lines.total_epochs = sum(
                getattr(stage, "epochs", 0) for stage in ran.schedule
            )
            with learn.added_cbs(Checkpoint(run.path / "last.ckpt", found)):
                for number, stage in enumerate(ran.schedule):
                    if found is not None and number < found["stage"]:
                        continue
                    learn.history.stage = number
                    stage(learn)
            results = Results(recipe=ran, learn=learn, run=run, smoke=smoke)
            summary = results.write(parameters)
            tracker.finish(
                summary, summary["reported"], results.figures, results.table(), results.model
            )
        except BaseException as error:
            if tracker is not None:
                tracker.close()
            _stopped(run, learn, values, error)
            raise
    _conclude(recipe, run, summary, tracker, smoke, write)
    return run


def resume(
    run: str | Path,
    *,
    device: str | None = None,
    trust: bool = False,
    write: Callable[[str], None] = print,
) -> directory.Run:
    """Go on with a stopped run behind its last checkpoint.

    Args:
        run: its directory.
        device: as in `learner`; None takes the device that it began on.
        trust: whether to run the recipe file and import the modules that the run names.
        write: as in `train`.

    Returns:
        The run, finished.

    Raises:
        ValueError: it is finished, cannot be read, or must be trusted to be read.
    """
    stopped = directory.Run(Path(run), trust=trust)
    started = stopped.started
    return train(
        stopped.recipe,
        wandb=started["settings"]["wandb"],
        device=started["settings"]["device"] if device is None else device,
        smoke=started["smoke"],
        resume=run,
        write=write,
    )


def defining_file(recipe: Recipe) -> str | None:
    """The file of one's own that made the recipe, needed to build it again; None for fastcv's."""
    # The recipe may have been given another name than its file's.
    needed = catalogue.own_modules(flat(recipe))
    for name in (*needed, catalogue.module_name(recipe.name.partition("/")[0])):
        if module := sys.modules.get(name):
            return str(Path(module.__file__).resolve())
    return None


def _stopped(
    run: directory.Run, learn: Learner, values: Mapping[str, Any], error: BaseException
) -> None:
    """Say how to go on with a run that stopped; remove one that kept nothing and shows nothing."""
    if (run.path / "last.ckpt").exists():
        own = any(is_address(each) and not is_public(each) for each in values.values())
        command = shlex.join(["fastcv", "resume", str(run.path), *(["--trust"] if own else [])])
        learn.epoch_lines.line(f"stopped; go on with: {command}")
        with suppress(OSError):  # a full disk may be why it stopped: the checkpoint has them
            files.write_csv(run.path / "steps.csv", learn.history.steps)
    elif isinstance(error, ValueError | KeyboardInterrupt):
        learn.epoch_lines.line("stopped before the first epoch was done: nothing was kept")
        run.remove()


def _introduce(
    recipe: Recipe,
    learn: Learner,
    run: directory.Run,
    parameters: int,
    write: Callable[[str], None],
) -> None:
    counts = [len(loader.dataset) for loader in learn.dls.loaders]
    names = ("train", "valid", "test")
    if getattr(learn.dls, "valid_is_test", False):
        names = ("train", "test, which is also the validation set")
    named = zip(counts, names, strict=False)
    images = ", ".join(f"{count:,} {name}" for count, name in named if count)
    write(f"{recipe.name}: {images}; {parameters:,} parameters; seed {recipe.seed}")
    write(f"on {learn.dls.device} in {learn.precision.precision}, writing to {run.path}")


def _writer(
    run: directory.Run, history: History, tracker: tracking.Tracker
) -> Callable[[dict, list[dict]], None]:
    def write_epoch(row: dict, steps: list[dict]) -> None:
        files.write_csv(run.path / "metrics.csv", history.rows)
        tracker.epoch(row, steps)

    return write_epoch


def changed(recipe: Recipe) -> dict[str, tuple[object, object]]:
    """List what decides the result and is otherwise than in the recipe's file, by key.

    It is empty where the recipe comes from no file.
    """
    name, _, variant = recipe.name.partition("/")
    own = sys.modules.get(catalogue.module_name(name))
    try:
        if own is None:
            filed = catalogue.get_recipe(recipe.name)
        else:
            filed = own.variants[variant] if variant else own.recipe
    except (ValueError, AttributeError, KeyError):  # made in a script, under a name of its own
        return {}
    return diff(flat(filed), flat(recipe))


def _conclude(
    recipe: Recipe,
    run: directory.Run,
    summary: Mapping[str, Any],
    tracker: tracking.Tracker,
    smoke: bool,
    write: Callable[[str], None],
) -> None:
    if smoke:
        write(SMOKE_NOTE)
    else:
        accuracies = ((said, summary.get(metric)) for said, metric in FINAL)
        told = [f"{said} {value:.2%}" for said, value in accuracies if value is not None]
        if told:
            write(f"accuracy: {', '.join(told)}")
        if checks := compare(recipe.reported, summary):
            write(str(checks))
            if altered := changed(recipe):
                said = ", ".join(describe(key, *pair) for key, pair in altered.items())
                write(f"another experiment than the reported one: {said}")
    write(f"{run.path}")
    if tracker.sync_hint:
        write(f"to upload it to Weights & Biases: {tracker.sync_hint}")
