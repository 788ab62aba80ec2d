"""One job of a series in its own process: trains it, and records how it goes (see `record`).

`python -m fastcv.experiment.series.child JOB` takes the job as JSON, as `running` writes it.
"""

import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fastcv import catalogue
from fastcv.experiment.building import smoked
from fastcv.experiment.directory import Run
from fastcv.experiment.series.jobs import resumable
from fastcv.experiment.series.record import MISTAKES, sentence
from fastcv.experiment.train import planned_epochs, train
from fastcv.files import write_json
from fastcv.interruption import end_with_parent, handled
from fastcv.recipe import override


def work(job: Mapping[str, Any]) -> int:
    """Train a job, and return the exit status."""
    record = Path(job["record"])
    sys.argv = job["command"]  # the run writes it down as the command to give again
    trained: Run | None = None  # once it has begun
    try:
        recipe = override(catalogue.get_recipe(job["reference"]), *job["settings"])
        epochs = planned_epochs(smoked(recipe) if job["options"]["smoke"] else recipe)

        def started(run: Run) -> None:
            nonlocal trained
            trained = run

        def after_epoch(run: Run) -> None:
            started(run)
            epoch = len(run.metrics)
            write_json(record, {"epoch": epoch, "epochs": epochs, "run": str(run.path)})

        stopped = job.get("resume") and Run(job["resume"], trust=True)
        run = train(
            recipe,
            resume=resumable(stopped),
            on_start=started,
            on_epoch=after_epoch,
            **job["options"],
        )
    except KeyboardInterrupt as error:
        command = trained and trained.resume_command
        path = str(trained.path) if command else None
        write_json(record, {"stopped": path, "resume": command})
        return getattr(error, "code", 130)  # as shells have it for Ctrl-C
    except Exception as error:
        write_json(record, {"failed": sentence(error)})
        if isinstance(error, MISTAKES) and not os.environ.get("FASTCV_TRACEBACK"):
            sys.stderr.write(f"fastcv: {sentence(error)}\n")
            return 2
        raise  # its traceback is for the log
    write_json(record, {"finished": str(run.path)})
    return 0


def main(job: Mapping[str, Any]) -> int:
    """Train a job until it is done, a signal stops it, or the series is gone."""
    end_with_parent(job["parent"])
    with handled():
        return work(job)


if __name__ == "__main__":
    sys.exit(main(json.loads(sys.argv[1])))
