"""What becomes of a job in its own process: a small JSON file that the process replaces as it goes.

    {"epoch": 3, "epochs": 10, "run": "runs/digits/..."}              while it trains
    {"finished": "runs/digits/..."}                                   or one of these at its end
    {"failed": "the loss must stay finite, got nan in epoch 1, ..."}
    {"stopped": "runs/digits/...", "resume": "fastcv resume runs/digits/..."}

Both values of a stopped job are null if nothing was kept. A process that was killed leaves what it
wrote last, or nothing.
"""

import json
import signal
from collections.abc import Mapping
from pathlib import Path
from typing import Any

MISTAKES = (ValueError, FloatingPointError)  # what a user can mend; their sentence is enough


def read(record: Path) -> dict[str, Any]:
    """Return the last that a process wrote; empty before it wrote anything."""
    return json.loads(record.read_text(encoding="utf-8")) if record.is_file() else {}


def sentence(error: Exception) -> str:
    """Put an error on one line, with its type unless a user can mend it."""
    text = " ".join(str(error).split())
    if isinstance(error, MISTAKES):
        return text
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def progress(record: Mapping[str, Any]) -> str:
    """Return how far a job has come: "epoch 3/10"."""
    return f"epoch {record['epoch']}/{record['epochs']}" if "epoch" in record else "starting"


def failure(record: Mapping[str, Any], status: int) -> str:
    """Return why a process did not finish its job; a negative status is that of a signal."""
    if "failed" in record:
        return record["failed"]
    if "stopped" in record:
        return f"interrupted; {way_on(record)}"
    if status < 0:
        hint = ": is there enough memory for --jobs?" if -status == signal.SIGKILL else ""
        return f"{signal.Signals(-status).name} ended its process{hint}"
    return f"its process ended with status {status}"


def way_on(record: Mapping[str, Any]) -> str:
    """Return how to continue a job that was stopped."""
    return f"resume it with: {command}" if (command := record.get("resume")) else "nothing was kept"
