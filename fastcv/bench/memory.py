"""The memory that images cost: two processes train the same net, one without images."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import torch

from fastcv import catalogue
from fastcv.bench.parts import BareTraining, FastTraining
from fastcv.bench.rounds import Clock
from fastcv.bench.synthetic import Synthetic
from fastcv.experiment.building import learner
from fastcv.experiment.origin import defining_file
from fastcv.recipe.flat import flat, unflat
from fastcv.recipe.values import Recipe

SECONDS = 5.0  # of training; after a few steps everything is allocated
MEGABYTE = 1e6


def peaks(
    recipe: Recipe, device: torch.device, shape: tuple[int, int, int], classes: int
) -> dict[str, float]:
    """Train in two separate processes and compare their peak memory, in megabytes.

    Both have the same imports, net, loss, optimizer and precision. "synthetic" is the bare loop on
    two random batches; "fastcv" is the recipe's Learner after it has read every image, so that a
    mapped cache is fully in memory. This is the processor's memory, not a GPU's. Images must be
    cached before, else decoding counts too. `shape` is the (C, H, W) of the net's input.

    Returns:
        "synthetic", "fastcv", and "above": their difference.
    """
    synthetic = Synthetic(
        shape=shape, classes=classes, batch_size=recipe.data.batch_size, batches=2
    )
    asked = {"file": defining_file(recipe), "device": str(device)}
    found = {}
    for kind, data in (("synthetic", synthetic), ("fastcv", recipe.data)):
        asked["recipe"] = flat(replace(recipe, data=data))
        process = subprocess.run(
            [sys.executable, "-W", "ignore", "-m", "fastcv.bench.memory"],
            input=json.dumps(asked),
            capture_output=True,
            text=True,
            check=False,
        )
        if process.returncode:
            last = process.stderr.strip().rpartition("\n")[2]
            raise ValueError(f"the process that measures memory must exit with 0, got: {last}")
        found[kind] = float(process.stdout.strip().rpartition("\n")[2])
    return found | {"above": found["fastcv"] - found["synthetic"]}


def peak() -> float:
    """Return the peak memory of this process, in megabytes."""
    status = Path("/proc/self/status")
    if status.is_file():
        # Not getrusage: on Linux a new process starts with its parent's peak.
        lines = status.read_text(encoding="ascii").splitlines()
        return next(int(line.split()[1]) for line in lines if "VmHWM" in line) * 1024 / MEGABYTE
    import resource  # here, because Windows has none

    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most * (1 if sys.platform == "darwin" else 1024) / MEGABYTE  # bytes there, KiB elsewhere


def train(recipe: Recipe, device: torch.device, seconds: float = SECONDS) -> None:
    """Train for some seconds: synthetic data in the bare loop, else through the Learner."""
    learn = learner(recipe, device=device)
    clock = Clock(device, seconds)
    if isinstance(recipe.data, Synthetic):
        BareTraining(learn, recipe.loss())(clock)
        return
    for loader in learn.dls.loaders:
        for _ in loader:
            pass
    FastTraining(learn)(clock)


def _main() -> None:
    asked = json.loads(sys.stdin.read())
    if asked["file"]:
        catalogue.load_file(Path(asked["file"]))
    train(unflat(asked["recipe"], trust=True), torch.device(asked["device"]))
    print(peak())


if __name__ == "__main__":
    _main()
