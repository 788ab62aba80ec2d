"""Weights & Biases: what a run sends, and the one place that imports wandb.

`start` returns a `Tracker`, which takes plain numbers, images and files, and returns nothing but
its id. Whatever goes wrong in W&B (not installed, no key, no network, a server that refuses or
does not answer, a full disk, a crashed service), training continues: the first failure is printed
once on stderr, and the tracker is silent from then on. `start` imports wandb, not this module.

It sends the flat recipe, metrics by epoch and by step, figures, a table of predictions, the model
files, and the load of processor, memory and GPU. It switches off what nobody expects of
`--wandb online`: source code and git state, the list of installed packages, the command line,
program path and hardware description, the console's text, and W&B's own error reports. All files
are in the run directory under `wandb/`.
"""

from fastcv.tracking.publishing import NoAccount, publish
from fastcv.tracking.service import MODES
from fastcv.tracking.tracker import Tracker, add_figures, start, wanted

__all__ = ["MODES", "NoAccount", "Tracker", "add_figures", "publish", "start", "wanted"]
