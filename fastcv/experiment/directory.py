"""The run directory: what a run writes, and how it is read back.

    runs/NAME[-VARIANT]/YYYYmmdd-HHMMSS-seedN[-foldK]/
        recipe.json        the flat recipe; `Run.recipe` builds it again
        environment.json   versions, device, git revision, command
        metrics.csv        one row per epoch
        steps.csv          one row per step
        summary.json       final metrics, reported, within tolerance, epochs, seconds, images/s
        model.safetensors  the weights; classes.json: the names of the classes
        model.json         how to use them: the net, the classes, the preprocessing
        predictions.npz    predictions of the validation and the test images; predictions.csv:
                           the last of these for people
        per_class.csv      precision, recall, F1 and support of each class
        top_losses.csv     the images with the largest losses
        split.json         the names of the images of train, valid and test; the fold, and groups
        last.ckpt          what `fastcv resume` continues from; gone when the run is finished
        figures/*.png
        wandb/             what W&B wrote

Each file appears under its name only when it is complete.
"""

import json
import os
import re
import shlex
import shutil
import time
from collections.abc import Callable, Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fastcv import catalogue
from fastcv.files import LOCK, is_locked, read_csv, write_json
from fastcv.recipe import Checks, Recipe, check, unflat
from fastcv.recipe.addresses import TRUST, is_address, is_public
from fastcv.recipe.aliases import NAMES, current_changes, current_flat, current_metrics
from fastcv.recipe.values import check_name

if TYPE_CHECKING:
    from fastcv.learning.learner import Learner

CHECKPOINT = "last.ckpt"
WEIGHTS = "model.safetensors"
_STARTED = {"name": str, "smoke": bool, "settings": dict, "flat": dict}  # of recipe.json
_SETTINGS = ("device", "wandb", "file", "cwd", "sweep", "launch")
_WRITTEN_INTO = ("figures", "wandb", LOCK)


class Run:
    """What a training left behind: its numbers, its figures, and the trained model.

        run = fastcv.Run("runs/digits/20260101-120000-seed0")
        run.summary["valid_accuracy"]   # the final numbers
        print(run.check())              # reported | measured | within tolerance
        learn = run.learner()           # a fastai Learner with the trained weights
        learn.predict("seven.png")

    The files are read when an attribute is asked for. They are data: a run builds only what fastcv
    exports, model builders of torchvision and timm, and modules of torch.nn.

    Args:
        path: the run directory.
        trust: also run the recipe file and import the modules that the run names.
    """

    _made: tuple[Path, ...] = ()  # the folders above it that `create` made

    def __init__(self, path: str | Path, *, trust: bool = False):
        self.path = Path(path)
        self.trust = trust

    def __repr__(self) -> str:
        return f"Run({str(self.path)!r}{', trust=True' if self.trust else ''})"

    def __eq__(self, other: object) -> bool:
        return self.path == other.path if isinstance(other, Run) else NotImplemented

    def __hash__(self) -> int:
        return hash(self.path)

    def learner(self, device: str | None = None) -> "Learner":
        """Build the recipe's fastai Learner and load the trained weights into it.

        The data must be on this machine: a Learner carries them.

        Args:
            device: "cpu", "cuda", "cuda:1", "mps"; None takes the best there is.

        Raises:
            ValueError: the run has no weights yet, or its recipe or its data cannot be had.
        """
        # Here, because reading a run must not wait for torch and fastai.
        from fastcv.experiment.building import trained_learner

        weights = self.path / WEIGHTS
        if not weights.is_file():
            way = f": finish it with {command}" if (command := self.resume_command) else ""
            raise ValueError(f"a run must be finished to have weights, {self} has none{way}")
        started, recipe = self.started, self.recipe
        return trained_learner(recipe, weights, smoke=started["smoke"], device=device)

    def resume(self, *, device: str | None = None, write: Callable[[str], None] = print) -> "Run":
        """Continue a stopped run after its last finished epoch, and return it, finished.

        Its numbers are those of a run that was never stopped.

        Args:
            device: as in `learner`; None takes the device that the run began on.
            write: called with each line that is printed apart from the epochs.

        Raises:
            ValueError: the run is finished, or holds no checkpoint.
        """
        # Here, because reading a run must not wait for torch and fastai.
        from fastcv.experiment.train import resume

        return resume(self, device=device, write=write)

    def check(self) -> Checks:
        """Compare the measured numbers with the reported ones; prints as a table."""
        return check(self)

    @cached_property
    def recipe(self) -> Recipe:
        """The `Recipe` that was run, built again from recipe.json.

        Raises:
            ValueError: recipe.json is missing or damaged, or names something that does not exist
                or that only a trusted run may name.
        """
        started = self.started
        settings, values = started["settings"], started["flat"]
        self.load_own()
        began = settings.get("cwd")
        if began is not None and Path(began) != Path.cwd():
            values = absolute_paths(values, began)
        return unflat(values, trust=self.trust)

    def load_own(self) -> None:
        """Run the file that defines parts of the recipe, if there is one and the run is trusted.

        A folder that only holds a trained model names no file.

        Raises:
            ValueError: the file is gone, or the run is not trusted.
        """
        if not (self.path / "recipe.json").is_file():
            return
        started = self.started
        if not catalogue.own_modules(started["flat"]):
            return
        file = started["settings"].get("file")
        if file is None or not Path(file).is_file():
            raise ValueError(
                f"a run whose recipe is defined by a file must find its file, {file!r} does not "
                f"exist: put it back"
            )
        if not self.trust:
            raise ValueError(
                f"the recipe of {str(self.path)!r} is defined by {file!r}, and reading a run must "
                f"not run code: {TRUST}"
            )
        catalogue.load_file(Path(file))

    @property
    def started(self) -> dict[str, Any]:
        """How it was started: name, smoke, settings and the flat recipe, in today's names.

        Raises:
            ValueError: recipe.json is missing or damaged.
        """
        started = self._json("recipe.json")
        for name, kind in _STARTED.items():
            if not isinstance(started.get(name), kind):
                raise self._damaged(f"an entry {name!r} of type {kind.__name__}")
        values, settings = started["flat"], started["settings"]
        seed = values.get("seed")
        if not isinstance(seed, int) or isinstance(seed, bool):
            raise self._damaged("a whole number as 'seed' in 'flat'")
        if not isinstance(values.get("name", ""), str):
            raise self._damaged("text as 'name' in 'flat'")
        if not all(isinstance(settings.get(key), str | None) for key in _SETTINGS):
            raise self._damaged(f"text or null as {', '.join(_SETTINGS)} in 'settings'")
        name = NAMES.get(started["name"], started["name"])
        check_name(name)
        changes = started.get("changed", {})
        pairs = changes.values() if isinstance(changes, dict) else [changes]
        if not all(isinstance(pair, list) and len(pair) == 2 for pair in pairs):
            raise self._damaged("a pair of values for each key of 'changed'")
        today = {"name": name, "changed": current_changes(changes), "flat": current_flat(values)}
        return started | today

    def _damaged(self, wanted: str) -> ValueError:
        return ValueError(
            f"{str(self.path / 'recipe.json')!r} must hold {wanted}: it is damaged, or no run's"
        )

    @property
    def summary(self) -> dict[str, Any]:
        """The final numbers; empty until the run is finished."""
        if not (self.path / "summary.json").is_file():
            return {}
        return current_metrics(self._json("summary.json"))

    @property
    def environment(self) -> dict[str, Any]:
        """The machine, the versions and the command it ran with."""
        return self._json("environment.json")

    @property
    def metrics(self) -> list[dict[str, Any]]:
        """One row per epoch, as in metrics.csv."""
        return [current_metrics(row) for row in read_csv(self.path / "metrics.csv")]

    @property
    def classes(self) -> list[str]:
        """Names of the classes, in the order of the logits."""
        return self._json("classes.json", list)

    @property
    def steps(self) -> list[dict[str, Any]]:
        """One row per training step, as in steps.csv."""
        return read_csv(self.path / "steps.csv")

    @property
    def figures(self) -> dict[str, Path]:
        """The files of the figures, by name: "curves", "confusion_matrix", ..."""
        return {file.stem: file for file in sorted(self.path.glob("figures/*.png"))}

    @property
    def resume_command(self) -> str | None:
        """The command that continues a stopped run; None if it is finished or has no checkpoint."""
        if self.summary or not (self.path / CHECKPOINT).is_file():
            return None
        values = self.started["flat"].values()
        own = any(is_address(value) and not is_public(value) for value in values)
        return shlex.join(["fastcv", "resume", str(self.path), *(["--trust"] if own else [])])

    def _json(self, name: str, kind: type = dict) -> Any:
        file = self.path / name
        if not file.is_file():
            raise ValueError(f"a run directory must hold {name}, {str(self.path)!r} does not")
        try:
            found = json.loads(file.read_text(encoding="utf-8"))
        except (ValueError, RecursionError) as error:
            raise ValueError(f"{str(file)!r} must be JSON: {error}") from error
        if not isinstance(found, kind):
            what = "object" if kind is dict else "array"
            raise ValueError(f"{str(file)!r} must hold a JSON {what}, got {found!r:.40}")
        return found


def absolute_paths(flat: Mapping[str, Any], folder: str | Path) -> dict[str, Any]:
    """Return a flat recipe whose relative paths of images and weights are those below a folder."""
    found = dict(flat)
    for key, value in flat.items():
        # A path that starts with "~" is absolute once it is expanded.
        if not isinstance(value, str) or value.startswith("~"):
            continue
        # Weights may also have the name of a published set.
        if is_folder_of_images(key) or (
            key == "model.weights" and (Path(folder) / value).is_file()
        ):
            found[key] = str(Path(folder) / value)
    return found


def placed(started: Mapping[str, Any]) -> dict[str, Any]:
    """Return the flat recipe of `Run.started`, its relative paths those below where it began."""
    return absolute_paths(started["flat"], started["settings"].get("cwd") or Path.cwd())


def is_folder_of_images(key: str) -> bool:
    """Whether a setting of a flat recipe is where images, or a table of them, lie."""
    return key == "data.path" or bool(re.fullmatch(r"data\.source\.(.+\.)?(path|root)", key))


def finished(out: Path, *, smoke: bool = False) -> list[Run]:
    """Find the finished runs in the folder of all runs, in the order in which they ended.

    Args:
        out: the folder of all runs; it need not exist.
        smoke: find smoke runs, and only those.
    """
    return _by_age(out, "summary.json", smoke)


def stopped(out: Path, *, smoke: bool = False) -> list[Run]:
    """Find the runs that can be resumed, and that no process trains, in the order they stopped.

    Args:
        out: as for `finished`.
        smoke: as for `finished`.
    """
    found = _by_age(out, CHECKPOINT, smoke)
    return [
        run
        for run in found
        if not (run.path / "summary.json").is_file() and not is_locked(run.path)
    ]


def _by_age(out: Path, name: str, smoke: bool) -> list[Run]:
    """Find the runs that have a file of this name, by the age of the file."""
    found = []
    for file in out.glob(f"*/*/{name}"):
        run = Run(file.parent)
        try:
            if run.started["smoke"] == smoke:
                found.append((file.stat().st_mtime, run.path.name, run))
        except (OSError, ValueError):  # a damaged directory counts as no run
            continue
    return [run for _, _, run in sorted(found, key=lambda each: each[:2])]


def create(
    name: str,
    flat: dict[str, Any],
    out: Path,
    *,
    smoke: bool,
    settings: dict[str, Any],
    changed: Mapping[str, tuple[Any, Any]] | None = None,
) -> Run:
    """Make the directory of a new run, and write down what is about to run.

    Args:
        name: the recipe's, with its variant.
        flat: the recipe, as `fastcv.flat` returns it.
        out: the folder of all runs.
        smoke: whether it is a smoke run; then its folder is named NAME-smoke.
        settings: how it is started (device, wandb, file, cwd, launch), for resuming.
        changed: settings that differ from the recipe's file, as {key: (the file's, this run's)}.

    Raises:
        ValueError: the name cannot name a folder, or `out` is no folder or not writable.
    """
    folder = run_folder(name, out, smoke=smoke)
    made = tuple(each for each in (folder, out) if not os.path.exists(each))
    fold = flat.get("data.fold")
    suffix = f"-seed{flat['seed']}" + (f"-fold{fold[0]}" if isinstance(fold, list) else "")
    run = Run(make_stamped(folder, suffix, out), trust=True)
    run._made = made
    started = {
        "name": name,
        "smoke": smoke,
        "settings": settings,
        "changed": changed or {},
        "rebuild": "fastcv.Run(path).recipe",
        "flat": flat,
    }
    try:
        write_json(run.path / "recipe.json", started)
    except BaseException:
        remove(run)
        raise
    return run


def run_folder(name: str, out: Path, *, smoke: bool) -> Path:
    """Return the folder of all runs of a recipe.

    Raises:
        ValueError: the name cannot name a folder.
    """
    check_name(name)
    return out / (name.replace("/", "-") + ("-smoke" if smoke else ""))


def make_stamped(folder: Path, suffix: str, out: Path) -> Path:
    """Make and return a new directory in `folder`, named after the time it is made.

    Args:
        folder: made as well, if it does not exist.
        suffix: follows the time, YYYYmmdd-HHMMSS.
        out: the folder of all runs, for errors.

    Raises:
        ValueError: `out` is no folder or not writable.
    """
    stamp = time.strftime("%Y%m%d-%H%M%S") + suffix
    for attempt in range(1, 1000):
        path = folder / (stamp if attempt == 1 else f"{stamp}-{attempt}")
        try:
            folder.mkdir(parents=True, exist_ok=True)
            path.mkdir()
        except FileExistsError:  # made in the same second
            if not folder.is_dir():
                break
        except OSError as error:
            raise ValueError(
                f"the folder of runs must be writable, {str(out)!r} is not: {error.strerror}"
            ) from error
        else:
            return path
    raise ValueError(f"runs must go into a folder, {str(out)!r} is not one")


def remove(run: Run) -> None:
    """Remove a new run's directory, and the folders made for it that hold nothing else."""
    shutil.rmtree(run.path, ignore_errors=True)
    for folder in run._made:
        try:
            folder.rmdir()
        except OSError:  # it holds other runs
            break


def refuse_links(run: Run) -> None:
    """Refuse to continue a run whose files would be written somewhere else.

    Raises:
        ValueError: names the link.
    """
    for name in _WRITTEN_INTO:
        if (run.path / name).is_symlink():
            raise ValueError(
                f"a run to resume must keep its files in its own directory, "
                f"{str(run.path / name)!r} is a link: remove it"
            )
