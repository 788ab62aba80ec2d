"""The whole experiment: from a recipe to a finished run directory, and on from a stopped one."""

import dataclasses
import errno
import os
import shlex
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager, nullcontext, redirect_stdout, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from fastcv import catalogue, files, ranks, tracking
from fastcv.data.loader import threads as torch_threads
from fastcv.experiment import directory, launch
from fastcv.experiment.building import (
    SMOKE_NOTE,
    built,
    origin_of,
    refuse_other_images,
    smoked,
)
from fastcv.experiment.directory import Run
from fastcv.experiment.environment import environment
from fastcv.experiment.origin import changed, defining_file
from fastcv.experiment.results import Results
from fastcv.experiment.words import short
from fastcv.learning.callbacks import checkpoint
from fastcv.learning.callbacks.busy import Busy
from fastcv.learning.callbacks.checkpoint import EVERY_MINUTES, Checkpoint
from fastcv.learning.callbacks.progress import LossGraph
from fastcv.learning.learner import Learner
from fastcv.learning.memory import check_batch, memory_in_words
from fastcv.learning.origins import Origin
from fastcv.predict import evaluation
from fastcv.recipe.bounds import check_number, check_whole
from fastcv.recipe.checks import compare
from fastcv.recipe.diff import described
from fastcv.recipe.flat import flat
from fastcv.recipe.values import Recipe
from fastcv.terminal import Bar

MOST_THREADS = 1024
# The accuracies that a run ends with.
FINAL = ("train_accuracy", "valid_accuracy", "test_accuracy", "tta_accuracy")
WEAKEST = 3  # classes to name


def train(
    recipe: Recipe,
    *,
    out: str | Path = "runs",
    wandb: str = "auto",
    device: str | None = None,
    smoke: bool = False,
    resume: Run | str | Path | None = None,
    keep_checkpoint: bool = False,
    checkpoint_every: float = EVERY_MINUTES,
    threads: int | None = None,
    show_graph: bool = False,
    sweep: str | None = None,
    write: Callable[[str], None] = print,
    on_start: Callable[[Run], None] = lambda run: None,
    on_epoch: Callable[[Run], None] = lambda run: None,
) -> Run:
    """Run the whole experiment and write its run directory.

    Where a launcher such as torchrun has started several ranks, each of them calls this: they train
    together, and the first one writes and prints. If the launcher starts them again after one has
    failed, they go on from the checkpoint.

    Args:
        recipe: the experiment; `smoke` and `resume` do not change it.
        out: the folder of all runs.
        wandb: "online", "offline", "off", or "auto": online where an API key is configured.
        device: as in `learner`.
        smoke: run it on toy images with random weights, in seconds.
        resume: a stopped run of this recipe, or its directory, to continue after its last epoch.
        keep_checkpoint: keep last.ckpt of the finished run; its weights are a second copy, beside
            the optimizer's state.
        checkpoint_every: minutes after which a checkpoint is written within an epoch too.
        threads: of the processor that torch computes with, which decide the last bits of the
            results. None takes those that a resumed run began with, and else torch's choice.
        show_graph: in a notebook, also draw the losses of each stage while it trains.
        sweep: the sweep that this is a trial of, which groups its runs in W&B. A trial leaves test
            images alone, unless they validate.
        write: called with each line that is printed apart from the epochs.
        on_start: called with the run when its directory is there.
        on_epoch: called with the run after every epoch; `run.metrics` has the epoch's row.

    Returns:
        The run: `run.summary` has its numbers, `run.learner()` its trained model.

    Raises:
        ValueError: a mistake that a user can mend, in one sentence.
        Lost: another rank has ended.
        FloatingPointError: the loss was not finite; names the epoch and the batch.
        Checkpointed: a signal asked for a checkpoint, and it was written.
    """
    stopped = Run(resume) if isinstance(resume, str | Path) else resume
    _refuse_mistakes(recipe, wandb, stopped)
    check_number("checkpoint_every", checkpoint_every, above=0)
    with ranks.joined(device):
        if not ranks.is_first():
            write = _silent
        if stopped is None and not sweep:
            stopped, finished = _started_before(recipe, Path(out), smoke)
            if finished:
                write(f"finished already: {stopped.path}")
                return stopped
        with _threads(threads, stopped, write):
            return _train(
                recipe,
                stopped,
                out=Path(out),
                wandb=wandb,
                device=device,
                smoke=smoke,
                keep_checkpoint=keep_checkpoint,
                checkpoint_every=checkpoint_every,
                show_graph=show_graph,
                sweep=sweep,
                write=write,
                on_start=on_start,
                on_epoch=on_epoch,
            )


def _silent(line: str) -> None:
    """Print nothing, as another rank than the first."""


def _started_before(recipe: Recipe, out: Path, smoke: bool) -> tuple[Run | None, bool]:
    """Return the run of this recipe that the launcher has started before, and whether it is done.

    The first rank looks: others may not see its folder.
    """
    found = None
    if ranks.is_first():
        found = launch.started_before(recipe.name, flat(recipe), out, smoke=smoke)
    return ranks.from_first((found, bool(found and found.summary)))


@contextmanager
def _threads(
    count: int | None, stopped: Run | None, write: Callable[[str], None]
) -> Iterator[None]:
    """Let torch compute with a number of threads; a resumed run keeps what it began with."""
    began = None
    if stopped is not None and ranks.is_first():
        began = stopped.environment.get("threads")
    began = ranks.from_first(began)
    began = began if type(began) is int and began > 0 else None  # an older run may not say
    if count is not None:
        check_whole("threads", count, least=1, most=MOST_THREADS)
        if began not in (None, count):
            write(
                f"the run began with --threads {began}, and with {count} it will equal one that "
                "was never stopped only up to rounding"
            )
    chosen = count or began
    with torch_threads(min(chosen, MOST_THREADS)) if chosen else nullcontext():
        yield


def _train(
    recipe: Recipe,
    stopped: Run | None,
    *,
    out: Path,
    wandb: str,
    device: str | None,
    smoke: bool,
    keep_checkpoint: bool,
    checkpoint_every: float,
    show_graph: bool,
    sweep: str | None,
    write: Callable[[str], None],
    on_start: Callable[[Run], None],
    on_epoch: Callable[[Run], None],
) -> Run:
    values = flat(recipe)  # before the data is read, so that a mistake in it costs no time
    kept = None
    if stopped is not None and ranks.is_first():
        kept = checkpoint.read(stopped.path / directory.CHECKPOINT)
    kept = ranks.from_first(kept)
    if smoke:
        write(SMOKE_NOTE)
    ran = smoked(recipe) if smoke else recipe
    origin = origin_of(ran)
    # A run that an older fastcv began goes on as it began.
    differs = refuse_other_images(ran) if stopped is None else None
    with ranks.machine_first():
        learn = built(ran, device=device)
    if sweep:
        # What is chosen by validation images must not be seen by the test.
        learn.dls.loaders = learn.dls.loaders[:2]
    check_batch(learn)
    if stopped is not None:
        checkpoint.prepare(learn, kept, len(ran.schedule))
    if not ranks.is_first():
        return _follow(ran, learn, kept, smoke=smoke, checkpoint_every=checkpoint_every)
    if stopped is not None:
        run = stopped
        if (began := run.environment.get("ranks", 1)) != ranks.count():
            write(
                f"the run began with {_ranks(began)}, and with {_ranks(ranks.count())} it will "
                "equal one that was never stopped only up to rounding"
            )
    else:
        how = {"wandb": wandb, "device": device, "sweep": sweep}
        run = _new_run(recipe, values, out, smoke=smoke, **how)

    learn.path = run.path  # callbacks write there
    saves = Checkpoint(run.path / directory.CHECKPOINT, kept, every=checkpoint_every)
    with (
        files.lock(run.path),
        _kept_or_removed(run, learn),
        _room_in_words(run),
        ranks.lost_in_words(),
    ):
        ranks.from_first(run.path)
        on_start(run)
        files.remove_parts(run.path)
        _introduce(ran, learn, run, write)
        for line in origin.lines() if origin else ():
            write(line)
        if differs:
            write(f"as the report did: {differs}")
        tracked = tracking.wanted(wandb)
        with learn.epoch_lines.doing("starting Weights & Biases") if tracked else nullcontext():
            tracker = tracking.start(
                wandb,
                directory=run.path,
                name=recipe.name,
                config=values,
                smoke=smoke,
                group=sweep,
                resume_id=None if kept is None else run.environment.get("wandb_id"),
            )
        with closing(tracker):
            _write_environment(run, learn, tracker.id, origin, again=kept is not None)
            _report_epochs(learn, run, tracker, on_epoch)
            with learn.added_cbs([LossGraph()] if show_graph else []), memory_in_words(learn):
                _run_stages(ran, learn, saves, kept)
            results = Results(recipe=ran, learn=learn, run=run, smoke=smoke)
            results.measure()
            with ranks.alone():
                summary = results.write(_parameters(learn))
            closing_it = learn.epoch_lines.doing("closing Weights & Biases")
            with closing_it if tracker.id else nullcontext():
                tracker.finish(
                    summary, summary["reported"], run.figures, results.table(), results.model
                )
    if not keep_checkpoint:
        (run.path / directory.CHECKPOINT).unlink(missing_ok=True)
    _conclude(recipe, run, summary, results, write)
    if tracker.sync_hint:
        write(f"to upload it to Weights & Biases: {tracker.sync_hint}")
    return run


def _follow(
    ran: Recipe,
    learn: Learner,
    kept: dict[str, Any] | None,
    *,
    smoke: bool,
    checkpoint_every: float,
) -> Run:
    """Train as another rank than the first, which neither writes nor prints.

    Callbacks that write files do so into a folder that is removed.
    """
    with (
        open(os.devnull, "w", encoding="utf-8") as nowhere,
        redirect_stdout(nowhere),  # fastai's callbacks print
        TemporaryDirectory() as scratch,
    ):
        learn.epoch_lines.bar = Bar(nowhere)
        learn.path = Path(scratch)
        run = Run(ranks.from_first(None), trust=True)
        with memory_in_words(learn):
            _run_stages(ran, learn, Checkpoint(None, kept, every=checkpoint_every), kept)
        Results(recipe=ran, learn=learn, run=run, smoke=smoke).measure()
    return run


def _ranks(count: int) -> str:
    return "one process" if count == 1 else f"{count} ranks"


def resume(
    run: Run | str | Path,
    *,
    device: str | None = None,
    trust: bool = False,
    keep_checkpoint: bool = False,
    checkpoint_every: float = EVERY_MINUTES,
    threads: int | None = None,
    write: Callable[[str], None] = print,
) -> Run:
    """Continue a stopped run after its last checkpoint.

    Args:
        run: the run, or its directory.
        device: as in `learner`; None takes the device that the run began on.
        trust: as for `Run`, where `run` is a directory.
        keep_checkpoint: as in `train`.
        checkpoint_every: as in `train`.
        threads: as in `train`; with another number than the run began with, other bits result.
        write: as in `train`.

    Raises:
        ValueError: the run is finished or cannot be read, or reading it needs `trust`.
    """
    if not isinstance(run, Run):
        run = Run(run, trust=trust)
    started = run.started
    settings = started["settings"]
    return train(
        run.recipe,
        wandb=settings.get("wandb") or "auto",
        device=settings.get("device") if device is None else device,
        smoke=started["smoke"],
        resume=run,
        keep_checkpoint=keep_checkpoint,
        checkpoint_every=checkpoint_every,
        threads=threads,
        sweep=settings.get("sweep"),
        write=write,
    )


def _refuse_mistakes(recipe: Recipe, wandb: str, stopped: Run | None) -> None:
    if wandb not in tracking.MODES:
        raise ValueError(f"wandb must be one of {', '.join(tracking.MODES)}, got {wandb!r}")
    if not recipe.schedule:
        raise ValueError("a recipe must have at least one stage to be trained, got schedule=()")
    if stopped is not None:
        if stopped.summary:
            raise ValueError(
                f"a run to resume must have been stopped, {str(stopped.path)!r} is finished"
            )
        directory.refuse_links(stopped)


def _new_run(recipe: Recipe, values: dict[str, Any], out: Path, *, smoke: bool, **how: Any) -> Run:
    settings = how | {"file": defining_file(recipe), "cwd": str(Path.cwd())}
    if (started_by := launch.identity()) is not None:
        settings["launch"] = started_by
    return directory.create(
        recipe.name, values, out, smoke=smoke, settings=settings, changed=changed(recipe)
    )


class Pruned(Exception):
    """A trial of a sweep was ended after an epoch, for a reason."""

    def __init__(self, run: Run, reason: str):
        super().__init__(reason)
        self.run = run


@contextmanager
def _kept_or_removed(run: Run, learn: Learner) -> Iterator[None]:
    """When a run stops, say how to resume it; remove it if there is nothing to resume or to see."""
    try:
        yield
    except BaseException as error:
        if isinstance(error, Pruned):
            pass
        elif command := run.resume_command:
            if isinstance(error, FloatingPointError):
                # A resumed run would meet the same loss.
                learn.epoch_lines.line(f"stopped; what it measured until then is in {run.path}")
            else:
                learn.epoch_lines.line(f"stopped; resume it with: {command}")
            # A full disk may be why it stopped: the checkpoint has them.
            with suppress(OSError, ValueError):
                files.write_csv(run.path / "steps.csv", learn.history.steps)
        elif isinstance(error, ValueError | KeyboardInterrupt) and not run.summary:
            learn.epoch_lines.line("stopped before the first checkpoint: nothing was kept")
            directory.remove(run)
        raise


@contextmanager
def _room_in_words(run: Run) -> Iterator[None]:
    """Say in a sentence that the disk is full, whoever wrote to it.

    Raises:
        NoRoom: there is no room.
    """
    try:
        yield
    except OSError as error:
        if files.is_no_room(error):
            raise files.no_room(Path(error.filename or run.path / "files"), error) from error
        raise
    except RuntimeError as error:  # of torch's writer, which a callback may use
        if "PytorchStreamWriter failed" in str(error):
            full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            raise files.no_room(run.path / "files", full) from error
        raise


def _parameters(learn: Learner) -> int:
    return sum(each.numel() for each in learn.model.parameters())


def _introduce(recipe: Recipe, learn: Learner, run: Run, write: Callable[[str], None]) -> None:
    counts = [len(loader.dataset) for loader in learn.dls.loaders]
    names = ("train", "valid", "test")
    if getattr(learn.dls, "valid_is_test", False):
        names = ("train", "test, also the validation set")
    named = zip(counts, names, strict=False)
    images = ", ".join(f"{count:,} {name}" for count, name in named if count)
    most = getattr(learn.dls.train, "epoch_images", None)
    if most is not None and most < counts[0]:
        images += f"; each epoch draws {most:,} of the training images"
    how = f"seed {recipe.seed}, on {learn.dls.device} in {learn.precision.precision}"
    if ranks.count() > 1:
        how += f", {_ranks(ranks.count())}"
    write(f"{recipe.name}: {how}")
    write(f"{images}; {_parameters(learn):,} parameters")
    write(f"writing to {run.path}")
    if getattr(learn.loss_func, "weight", None) is not None:
        write("the training loss is weighted by class, the validation loss is not")
    if skipped := getattr(learn.dls, "skipped", 0):
        write(f"skipped {skipped:,} unreadable images")


def _write_environment(
    run: Run, learn: Learner, wandb_id: str | None, origin: Origin | None, *, again: bool
) -> None:
    here = environment(str(learn.dls.device), learn.precision.precision) | {"wandb_id": wandb_id}
    if origin is not None:
        here["weights"] = dataclasses.asdict(origin)
    if again:  # what the run began with stays at the top level
        before = run.environment
        earlier = before.get("resumed", [])
        here = before | {"resumed": [*(earlier if isinstance(earlier, list) else []), here]}
    files.write_json(run.path / "environment.json", here)


def _report_epochs(
    learn: Learner, run: Run, tracker: tracking.Tracker, on_epoch: Callable[[Run], None]
) -> None:
    """Let every epoch write metrics.csv, and reach W&B and `on_epoch`."""
    history = learn.history

    def after_epoch(row: dict[str, Any], steps: list[dict[str, Any]]) -> None:
        files.write_csv(run.path / "metrics.csv", history.rows)
        tracker.epoch(row, steps)
        on_epoch(run)

    history.on_epoch = after_epoch


def _run_stages(
    recipe: Recipe, learn: Learner, saves: Checkpoint, kept: Mapping[str, Any] | None
) -> None:
    """Train stage by stage; a resumed run skips the stages that it has finished."""
    learn.epoch_lines.total_epochs = planned_epochs(recipe)
    # Other ranks on the same machine would look like other programs.
    with learn.added_cbs([saves, *([Busy()] if ranks.count() == 1 else [])]):
        try:
            for number, stage in enumerate(recipe.schedule):
                if kept is None or number >= kept["stage"]:
                    learn.history.stage = number
                    stage(learn)
        finally:
            saves.wait()
    ranks.copy_from(0, learn.model.state_dict().values())
    if saves.resume is not None:
        raise ValueError(
            "a checkpoint must be that of the run's own recipe, this one was written in a fit that "
            "its stages do not have: start a new run"
        )


def planned_epochs(recipe: Recipe) -> int:
    """Return the sum of the epochs of all stages."""
    return sum(getattr(stage, "epochs", 0) for stage in recipe.schedule)


def _conclude(
    recipe: Recipe,
    run: Run,
    summary: Mapping[str, Any],
    results: Results,
    write: Callable[[str], None],
) -> None:
    """Write the final accuracies, the comparison with the report, and the directory."""
    if results.smoke:
        write(SMOKE_NOTE)
    else:
        final = [metric for metric in FINAL if summary.get(metric) is not None]
        if measured := [f"{short(metric)} {summary[metric]:.2%}" for metric in final]:
            write(f"accuracy: {', '.join(measured)}")
        if checks := compare(recipe.reported, summary):
            write(str(checks))
            if changes := changed(recipe):
                settings = ", ".join(described(changes))
                write(f"not the reported experiment; changed: {settings}")
        if recipe.reported is None:
            for line in _judged(run, results):
                write(line)
    write(str(run.path))


def _judged(run: Run, results: Results) -> list[str]:
    """Say of your own experiment how sure its accuracy is, where it is weak, and how to use it."""
    judged = evaluation.evaluate(results.predicted)
    low, high = judged.interval
    part = {"valid": "validation"}.get(results.part, results.part)
    mean = judged.average_precision
    lines = [] if mean is None else [f"mean average precision over labels: {mean:.2%}"]
    if mean is not None:
        part = f"{part}, all labels of which are right, by thresholds fitted on validation"
    lines += [f"95 % interval of {judged.accuracy:.2%}: {low:.1%} to {high:.1%} ({part} images)"]
    weakest = sorted(
        (row for row in judged.per_class if row["support"] and row["recall"] < 1),
        key=lambda row: row["recall"],
    )[:WEAKEST]
    if weakest:
        table = "per_class.csv" if mean is None else "per_label.csv"
        named = ", ".join(f"{row['class']} ({row['recall']:.0%})" for row in weakest)
        lines.append(f"weakest classes: {named}; {table} lists all")
    net = {key: value for key, value in run.started["flat"].items() if key.startswith("model")}
    trust = " --trust" if catalogue.own_modules(net) else ""
    use = shlex.join(["fastcv", "predict", str(run.path)])
    return [*lines, f"use it with: {use} PHOTO...{trust}"]
