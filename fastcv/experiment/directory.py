"""The run directory: what a run writes, and how it is read again.

    runs/NAME[-VARIANT]/YYYYmmdd-HHMMSS-seedN/
        recipe.json        the flat recipe: `fastcv.recipe.unflat` builds it again
        environment.json   versions, device, git revision, command
        metrics.csv        a row an epoch
        steps.csv          a row a step
        summary.json       final metrics, reported, within tolerance, epochs, seconds, images/s
        model.safetensors  the weights, and classes.json the names of the classes
        last.ckpt          what `fastcv resume` goes on from
        figures/*.png
        wandb/             where W&B wrote

Every file is written to a temporary name and renamed, so that what is there is whole.
"""

import json
import os
import platform
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from importlib import metadata
from pathlib import Path
from typing import Any

from fastcv import catalogue
from fastcv.files import read_csv, write_json
from fastcv.recipe import Recipe, unflat
from fastcv.recipe.addresses import TRUST
from fastcv.recipe.aliases import NAMES, current_changes, current_flat, current_metrics
from fastcv.recipe.values import check_name

PACKAGES = ("fastcv", "fastai", "torch", "torchvision", "wandb", "numpy", "pillow")


@dataclass(frozen=True)
class Run:
    """A run directory.

    A run directory is data: reading one runs no code but what fastcv exports.

    Args:
        path: the directory.
        trust: whether to run the recipe file and import the modules that the run names, too.
        made: the folders above it that were made for it.
    """

    path: Path
    trust: bool = field(default=False, compare=False)
    made: tuple[Path, ...] = field(default=(), compare=False, repr=False)

    def __post_init__(self):
        object.__setattr__(self, "path", Path(self.path))

    @cached_property
    def recipe(self) -> Recipe:
        """The `Recipe` that was run, built again from recipe.json.

        Raises:
            ValueError: there is no such file, or it names what is not there any more, or what only
                a trusted run may name.
        """
        started = self.started
        settings, values = started["settings"], started["flat"]
        file = Path(settings["file"]) if settings.get("file") else None
        if catalogue.own_modules(values):
            self._load_own(file)
        return unflat(_with_paths_from(settings.get("cwd"), values), trust=self.trust)

    def _load_own(self, file: Path | None) -> None:
        """Run the file that defines parts of the recipe, if the run is trusted."""
        if file is None or not file.is_file():
            raise ValueError(
                f"a run whose recipe defines what it is made of must find its file, {str(file)!r} "
                f"does not exist: put it back"
            )
        if not self.trust:
            raise ValueError(
                f"the recipe of {str(self.path)!r} is made by {str(file)!r}, and reading a run "
                f"must not run code: {TRUST}"
            )
        catalogue.load_file(file)

    @property
    def started(self) -> dict[str, Any]:
        """How it was started: name, smoke, settings, changes, flat recipe, by today's names."""
        started = self._json("recipe.json")
        values = current_flat(started["flat"])
        return started | {
            "name": NAMES.get(started["name"], started["name"]),
            "changed": current_changes(started.get("changed", {})),
            "flat": values,
        }

    @property
    def summary(self) -> dict[str, Any]:
        """The final numbers; empty while the run goes on, or when it was stopped."""
        if not (self.path / "summary.json").is_file():
            return {}
        return current_metrics(self._json("summary.json"))

    @property
    def environment(self) -> dict[str, Any]:
        """Where and with what it ran."""
        return self._json("environment.json")

    @property
    def metrics(self) -> list[dict[str, Any]]:
        """A row an epoch."""
        return [current_metrics(row) for row in read_csv(self.path / "metrics.csv")]

    @property
    def steps(self) -> list[dict[str, Any]]:
        """A row a step."""
        return read_csv(self.path / "steps.csv")

    def remove(self) -> None:
        """Remove the directory, and those above it that were made for it and hold nothing else."""
        shutil.rmtree(self.path)
        for folder in self.made:
            try:
                folder.rmdir()
            except OSError:  # it holds other runs
                break

    def _json(self, name: str) -> Any:
        file = self.path / name
        if not file.is_file():
            raise ValueError(f"a run directory must hold {name}, {str(self.path)!r} does not")
        try:
            return json.loads(file.read_text(encoding="utf-8"))
        except ValueError as error:
            raise ValueError(f"{str(file)!r} must be JSON: {error}") from error


def _with_paths_from(folder: str | None, flat: dict[str, Any]) -> dict[str, Any]:
    """A flat recipe whose relative data folders mean what they meant where the run began."""
    if folder is None or Path(folder) == Path.cwd():
        return flat
    found = dict(flat)
    for key in ("data.path", "data.source.path"):
        path = flat.get(key)
        # What expanduser would make absolute says "~" first, and is left to it.
        if isinstance(path, str) and not path.startswith("~"):
            found[key] = str(Path(folder) / path)
    return found


def finished(out: Path, *, smoke: bool = False) -> list[Run]:
    """Find the finished runs in the folder of all runs, the one that ended first comes first.

    Args:
        out: the folder; that there is none yet is no error.
        smoke: find smoke runs, and only those.
    """
    found = []
    for file in out.glob("*/*/summary.json"):
        run = Run(file.parent)
        try:
            if run.started["smoke"] == smoke:
                found.append((file.stat().st_mtime, run.path.name, run))
        except (OSError, ValueError, KeyError):  # what cannot be read is no run of ours
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
    """Make the directory of a new run and write down what is going to run.

    Args:
        name: of the recipe, with its variant.
        flat: the recipe as `fastcv.recipe.flat` gives it.
        out: the folder of all runs.
        smoke: whether it is a smoke run; its folder says so.
        settings: how it was started (device, wandb, file, cwd), for resuming.
        changed: settings that differ from the recipe's file, as {key: (the file's, this run's)}.
    """
    check_name(name)
    folder = out / (name.replace("/", "-") + ("-smoke" if smoke else ""))
    made = tuple(each for each in (folder, out) if not os.path.exists(each))
    stamp = f"{time.strftime('%Y%m%d-%H%M%S')}-seed{flat['seed']}"
    for attempt in range(1, 1000):
        path = folder / (stamp if attempt == 1 else f"{stamp}-{attempt}")
        try:
            folder.mkdir(parents=True, exist_ok=True)
            path.mkdir()
            break
        except FileExistsError:  # another run of this second
            if not folder.is_dir():
                raise ValueError(f"runs must go into a folder, {str(out)!r} is none") from None
        except OSError as error:
            raise ValueError(
                f"the folder of runs must be writable, {str(out)!r} is not: {error.strerror}"
            ) from error
    write_json(
        path / "recipe.json",
        {
            "name": name,
            "smoke": smoke,
            "settings": settings,
            "changed": changed or {},
            "rebuild": "fastcv.Run(path).recipe",
            "flat": flat,
        },
    )
    return Run(path, trust=True, made=made)


def environment(device: str, precision: str) -> dict[str, Any]:
    """Describe this machine, these versions and this command."""
    import torch

    return {
        "command": shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]]),
        "device": device,
        "device_name": device_name(device),
        "precision": precision,
        "cpu_cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "platform": platform.platform(),
        "python": platform.python_version(),
        "packages": {name: _version(name) for name in PACKAGES},
        "cuda": torch.version.cuda,
        "git_revision": _git_revision(),
    }


def device_name(device: str) -> str:
    """The name of the processor or the GPU, as its maker gives it."""
    import torch

    if device.startswith("cuda"):
        return torch.cuda.get_device_name(device)
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            names = [line.partition(":")[2].strip() for line in file if "model name" in line]
        return names[0]
    except (OSError, IndexError):  # not Linux on x86
        return platform.processor() or platform.machine()


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _git_revision() -> str | None:
    """The revision of the code that runs; None when it is not a git checkout."""
    here = Path(__file__).resolve().parent.parent
    if not (here / ".git").exists():
        return None
    git = ["git", "-C", str(here)]
    try:
        revision = subprocess.run(
            [*git, "rev-parse", "HEAD"], capture_output=True, text=True, check=True, timeout=10
        ).stdout.strip()
        changed = subprocess.run(
            [*git, "status", "--porcelain", "--untracked-files=no"],
            capture_output=True,
            text=True,
            check=True,
            timeout=10,
        ).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None
    return f"{revision}-changed" if changed else revision
