"""Weights & Biases: what a run tells it, and the one place that imports it.

`start` gives a `Tracker`, which takes plain numbers, images and files and never gives anything
back but its id. Whatever W&B does (not installed, no key, no network, a server that refuses or
does not answer, a full disk, a crashed service), training goes on: the first failure is said
once on stderr and the tracker is silent from then on. wandb is imported by `start`, not with
this module.

What is sent: the flat recipe, metrics by epoch and by step, figures, a table of predictions, the
model files, and the load of processor, memory and GPU. What is switched off, because nobody who
types `--wandb online` expects it: the source code and its git state, the list of installed
packages, the command line, program path and hardware description, the console's text, and
W&B's own error reports. All files lie in the run directory under `wandb/`.
"""

from fastcv.tracking.publishing import NoAccount, publish
from fastcv.tracking.service import MODES
from fastcv.tracking.tracker import Tracker, start

__all__ = ["MODES", "NoAccount", "Tracker", "publish", "start"]
