"""The running of a sweep: what is searched, where it is kept, its trials, and what it found."""

import re
import time
import uuid
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from filelock import FileLock

from fastcv.experiment.building import SMOKE_NOTE, smoked
from fastcv.experiment.series.running import run_queue, shared
from fastcv.experiment.sweep import storage as storages
from fastcv.experiment.sweep.space import Space
from fastcv.experiment.sweep.storage import connected, optuna
from fastcv.experiment.sweep.summary import Sweep, importances, trials_of
from fastcv.experiment.sweep.trials import Trials, pruner
from fastcv.files import write_text
from fastcv.learning.callbacks.history import History
from fastcv.learning.callbacks.monitor import check_monitor
from fastcv.learning.metrics import columns
from fastcv.recipe.bounds import check_number, check_whole, shown
from fastcv.recipe.metrics import should_fall
from fastcv.recipe.values import Recipe

FOLDER = "sweeps"  # in the folder of all runs
TRIALS = 20
PRUNE = ("median", "none")
_NAME = re.compile(r"\w[\w .,+()-]{0,99}")


def sweep(
    reference: str,
    search: Sequence[str],
    *,
    settings: Sequence[str] = (),
    seed: int | None = None,
    trials: int | None = None,
    minutes: float | None = None,
    grid: bool = False,
    monitor: str | None = None,
    prune: str | None = None,
    on_test: bool = False,
    name: str | None = None,
    storage: str | None = None,
    smoke: bool = False,
    out: str | Path = "runs",
    device: str | None = None,
    devices: Sequence[str] = (),
    at_once: int | None = None,
    write: Callable[[str], None] = print,
    **how: Any,
) -> Sweep:
    """Search the settings of a recipe, and write what is best to OUT/sweeps/NAME/sweep.json.

    The same call goes on with a sweep that was stopped, and works on one with others at the same
    time. Every trial is a run in OUT/sweeps/NAME/trials/.

    Args:
        reference: "NAME", "NAME/VARIANT", or the path of a recipe file, with "/VARIANT" or without.
        search: "KEY=LOW..HIGH", "KEY=LOW..HIGH:log" or "KEY=A,B,C" for each setting; "variant" is
            a key too.
        settings: "key=value" as for `override`, the same for all trials.
        seed: of every trial, and of what is drawn; None takes the recipe's own.
        trials: how many there are to be, of all processes together; None: all of a grid, or else
            20, or without an end where `minutes` is given.
        minutes: after which no other trial begins.
        grid: try every combination.
        monitor: the column of metrics.csv that is compared after each epoch, and in the end with
            the final weights. None: the metric of the recipe if it has one, else valid_accuracy.
        prune: "median" ends a trial after an epoch in which it is worse than the median of the
            others, "none" ends none. None: "median", and for a grid "none".
        on_test: choose on the test images of a recipe that validates on them.
        name: of the sweep; None: the recipe's.
        storage: "postgresql://..."; None: a journal file in the sweep's folder.
        smoke: make each trial a smoke run.
        out: the folder of all runs.
        device: as for `run_queue`, as are the next two.
        devices: one for each trial that runs at the same time.
        at_once: how many trials run at the same time.
        write: called with each line to print.
        how: as for `run_queue`.

    Returns:
        The sweep, as sweep.json has it.

    Raises:
        ValueError: a mistake that a user can mend, or the first trials all failed.
        KeyboardInterrupt: a signal stopped the sweep.
    """
    _check(trials, minutes, prune)
    storages.check_url(storage)
    seeded = [] if seed is None else [f"seed={seed}"]
    space = Space.of(reference, [*settings, *seeded], search)
    recipe = space.recipe({part.key: part.ends[0] for part in space.parts})
    monitor = monitor or _metric(recipe)
    optuna()  # a missing extra shows before anything is read
    shared(device, devices, at_once)  # and so does a device that does not exist
    final = _final(smoked(recipe) if smoke else recipe, monitor, on_test)
    combinations = space.combinations
    if not grid and combinations is not None and trials is not None and combinations <= trials:
        write(f"{combinations} combinations are no more than --trials: trying each once")
        grid = True
    planned = space.grid() if grid else []
    if trials is None and not grid and minutes is None:
        trials = TRIALS
    most = min(trials or len(planned), len(planned)) if grid else trials

    base = recipe.name.partition("/")[0] if "variant" in _keys(space) else recipe.name
    name = name or base.replace("/", "-") + ("-smoke" if smoke else "")
    folder = _made(Path(out), name)
    about = {
        "recipe": base,
        "search": [str(part) for part in space.parts],
        # Machines may have the data in different places.
        "settings": [each for each in space.settings if not each.startswith("data.path=")],
        "monitor": final,
        "grid": grid,
        "smoke": smoke,
    }
    with connected(storage, folder) as opened:
        study, home = _study(opened, folder, name, about, planned)
        study.pruner = pruner(prune or ("none" if grid else "median"))
        found = partial(_found, study, space, about, name, monitor)
        queue = Trials(
            study,
            space,
            folder,
            home=home,
            monitor=monitor.replace("test_", "valid_"),
            final=final,
            grid=grid,
            most=most,
            deadline=None if minutes is None else time.monotonic() + 60 * minutes,
            seed=recipe.seed,
            smoke=smoke,
            ended=lambda: found(measured=False).write(folder),
        )
        queue.ended()  # so that `fastcv report` takes its trials for no other runs
        write(f"sweep {name}: {', '.join(about['search'])}; {monitor}; {folder}")
        devicing = {"device": device, "devices": devices, "at_once": at_once}
        try:
            run_queue(queue, out=folder, write=write, **devicing, **how)
        except KeyboardInterrupt:
            write("stopped; the same command goes on")
            _conclude(found(measured=False), folder, write)
            raise
        result = found(measured=True)
    _conclude(result, folder, write)
    return result


def _check(trials: int | None, minutes: float | None, prune: str | None) -> None:
    if trials is not None:
        check_whole("--trials", trials, least=1)
    if minutes is not None:
        check_number("--minutes", minutes, above=0)
    if prune is not None and prune not in PRUNE:
        raise ValueError(f"--prune must be {' or '.join(PRUNE)}, got {shown(prune)}")


def _keys(space: Space) -> list[str]:
    return [part.key for part in space.parts]


def _metric(recipe: Recipe) -> str:
    """Return the metric that a recipe is judged by: its own first one, or accuracy."""
    own = columns(recipe.metrics, History())
    return f"valid_{own[0].name}" if own else "valid_accuracy"


def _final(recipe: Recipe, monitor: str, on_test: bool) -> str:
    """Return the key of a run's summary that has `monitor` of the final weights.

    Raises:
        ValueError: nothing will measure it, or it would be measured on test images.
    """
    check_monitor(monitor)
    own = [f"valid_{each.name}" for each in columns(recipe.metrics, History())]
    known = ["train_loss", "train_accuracy", "valid_loss", "valid_accuracy", *own]
    if monitor not in known:
        raise ValueError(f"--monitor must be one of {', '.join(known)}, got {monitor!r}")
    if monitor.startswith("train"):
        return monitor
    loaders = recipe.data(device="cpu")  # the trials find it decoded
    if getattr(loaders, "valid_is_test", False):
        if not on_test:
            raise ValueError(
                f"a sweep must choose on validation images, {recipe.name} validates on its test "
                "images: hold some out with --set data.holdout=0.1, or add --on-test to choose as "
                "such a report did"
            )
        return monitor.replace("valid_", "test_", 1)
    if not len(loaders.valid):
        raise ValueError(
            f"a sweep must have images to validate on, {recipe.name} has none: hold some out with "
            "--set data.holdout=0.1"
        )
    return monitor


def _made(out: Path, name: str) -> Path:
    """Make the folder of a sweep.

    Raises:
        ValueError: the name cannot name a folder, or `out` is no folder or not writable.
    """
    if not _NAME.fullmatch(name):
        raise ValueError(
            f"a sweep's name must be letters, digits, spaces and _.,+()-, got {shown(name)}"
        )
    folder = out / FOLDER / name
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ValueError(
            f"the folder of runs must be writable, {str(out)!r} is not: {error.strerror}"
        ) from error
    return folder


def _study(
    storage: Any,
    folder: Path,
    name: str,
    about: dict[str, Any],
    planned: Sequence[dict[str, str]],
) -> tuple[Any, str]:
    """Create Optuna's study or open it, and return it with the name of the folder.

    Raises:
        ValueError: a sweep of this name searches something else.
    """
    with FileLock(folder / ".sweep.lock"):
        home = folder / ".home"
        if not home.is_file():
            write_text(home, uuid.uuid4().hex)
        falls = should_fall(about["monitor"])
        study = optuna().create_study(
            storage=storage,
            study_name=f"sweep-{name}",
            direction="minimize" if falls else "maximize",
            load_if_exists=True,
        )
        before = study.user_attrs.get("about")
        if before is None:
            study.set_user_attr("about", about)
        elif before != about:
            key = next(key for key in about if before.get(key) != about[key])
            raise ValueError(
                f"the sweep {name!r} has another {key}, {shown(before.get(key))} instead of "
                f"{shown(about[key])}: give this one another name with --name"
            )
        there = [each.system_attrs.get("fixed_params") for each in study.get_trials()]
        for params in planned:
            if params not in there:
                study.enqueue_trial(params)
        return study, home.read_text(encoding="utf-8")


def _found(
    study: Any, space: Space, about: dict[str, Any], name: str, monitor: str, *, measured: bool
) -> Sweep:
    """Return what the sweep found until now; `measured` adds the importances, which take time."""
    return Sweep(
        name=name,
        recipe=space.reference,
        settings=space.settings,
        search=tuple(about["search"]),
        monitor=monitor,
        final=about["monitor"],
        grid=about["grid"],
        smoke=about["smoke"],
        trials=trials_of(study),
        importances=importances(study, _keys(space), 0) if measured else {},
    )


def _conclude(found: Sweep, folder: Path, write: Callable[[str], None]) -> None:
    """Print the best trials, and write sweep.json."""
    file = found.write(folder)
    write(f"{found.size}: {found.counts}" if found.trials else "no trial has begun")
    if found.best is not None:
        write(found.table())
        if found.importances:
            shares = (f"{key} {share:.0%}" for key, share in found.importances.items())
            write(f"importance: {', '.join(shares)}")
        write(f"best: {found.result}")
        write(SMOKE_NOTE if found.smoke else found.caution)
        write(f"run it again with: {found.command}")
    write(str(file))
