"""A series of runs: a recipe with all its variants, over several seeds, one or more at a time.

`plan` lists the jobs and finds those that are done, `run` runs the rest, `table` shows what all of
them measured:

    jobs = run(plan("light_resnet_cifar10", every=True, seeds=3))
    print(table(jobs))
"""

from fastcv.experiment.series.jobs import Job, plan
from fastcv.experiment.series.running import Stopped, run
from fastcv.experiment.series.tables import join_folds, listing, table

__all__ = ["Job", "Stopped", "join_folds", "listing", "plan", "run", "table"]
