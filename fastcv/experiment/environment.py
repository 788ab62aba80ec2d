"""The machine, the versions and the command of a run."""

import os
import platform
import re
import shlex
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from fastcv import catalogue, ranks
from fastcv.learning import cuda

PACKAGES = ("fastcv", "fastai", "torch", "torchvision", "timm", "wandb", "numpy", "pillow")


def environment(device: str, precision: str) -> dict[str, Any]:
    """Describe this machine, these versions and this command."""
    return {
        "command": _without_password(shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]])),
        "device": device,
        "device_name": device_name(device),
        "precision": precision,
        "cpu_cores": os.cpu_count(),
        "ranks": ranks.count(),
        "threads": torch.get_num_threads(),
        "platform": platform.platform(),
        "python": platform.python_version(),
        "packages": {name: _version(name) for name in PACKAGES},
        "cuda": torch.version.cuda,
        "cuda_settings": cuda.settings() if device.startswith("cuda") else None,
        "git_revision": _git_revision(),
    }


def device_name(device: str) -> str:
    """Return the model of the processor or the GPU, in its maker's words."""
    if device.startswith("cuda"):
        return torch.cuda.get_device_name(device)
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            line = next(line for line in file if "model name" in line)
        return line.partition(":")[2].strip()
    except (OSError, StopIteration):  # not Linux on x86
        return platform.processor() or platform.machine()


def _without_password(command: str) -> str:
    """Leave the password out of an address, as of a data base."""
    return re.sub(r"(://[^\s:/@]*):[^\s/@]+@", r"\1:***@", command)


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _git_revision() -> str | None:
    """Return the revision of fastcv's own checkout; None when it is installed otherwise.

    None too where Python finds the recipes in another checkout, as an editable install may let it.
    """
    checkout = Path(__file__).resolve().parents[2]
    own = catalogue.folder().resolve().parent == checkout
    if not own or not (checkout / ".git").exists():
        return None
    # Without tags it is the commit alone.
    describe = ("describe", "--always", "--exclude=*", "--abbrev=40", "--dirty=-changed")
    command = ["git", "-C", str(checkout), *describe]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=10)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
