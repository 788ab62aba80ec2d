"""Find the run that a launcher has started before, and now starts again with the same command."""

import json
import os
import socket
from pathlib import Path
from typing import Any

from fastcv.experiment.directory import Run, run_folder
from fastcv.recipe.aliases import current_flat


def identity() -> str | None:
    """Name what has started this process, the same when it does so again; None: it will not.

    Slurm starts a job again that it has preempted or that was requeued, whatever torchrun does in
    it. The process of a torchrun without `--rdzv-id` names it.
    """
    if (job := os.environ.get("SLURM_JOB_ID")) is not None:
        return f"slurm {job}"
    if (name := os.environ.get("TORCHELASTIC_RUN_ID")) is None:
        return None
    return f"torchrun {name if name != 'none' else f'{socket.gethostname()} {os.getppid()}'}"


def is_again() -> bool:
    """Whether the launcher has started this command before."""
    counts = ("TORCHELASTIC_RESTART_COUNT", "SLURM_RESTART_COUNT")
    return any(os.environ.get(name, "0") not in ("", "0") for name in counts)


def started_before(name: str, flat: dict[str, Any], out: Path, *, smoke: bool) -> Run | None:
    """Return the latest run of the same launcher and recipe that can be resumed, or is finished.

    Args:
        name: the recipe's, with its variant.
        flat: the recipe, as `fastcv.flat` returns it.
        out: the folder of all runs.
        smoke: whether it is a smoke run.
    """
    own = identity()
    if own is None or not is_again():
        return None
    values = current_flat(json.loads(json.dumps(flat)))
    for path in sorted(run_folder(name, out, smoke=smoke).glob("*/recipe.json"), reverse=True):
        run = Run(path.parent, trust=True)  # this command has written it
        try:
            started = run.started
            same = started["settings"].get("launch") == own and started["flat"] == values
            if same and (run.summary or run.resume_command):
                return run
        except (OSError, ValueError):  # a damaged directory counts as no run
            continue
    return None
