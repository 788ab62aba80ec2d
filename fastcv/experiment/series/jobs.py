"""The jobs of a series: one for each experiment, seed and fold, and which of them are done."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from fastcv import catalogue
from fastcv.experiment import directory
from fastcv.experiment.series.record import sentence
from fastcv.learning.callbacks import checkpoint
from fastcv.recipe import flat, override
from fastcv.recipe.diff import has_settings, same_experiment
from fastcv.recipe.values import Recipe


@dataclass(frozen=True, kw_only=True)
class Job:
    """One experiment with one seed and at most one fold, and how it went.

    Args:
        reference: as on the command line, "NAME/VARIANT" or "FILE.py/VARIANT".
        name: the recipe's, with its variant.
        recipe: with the series' settings, this seed and fold; None if it could not be built.
        aliases: other names of the same experiment, which is run once.
        changed: whether the settings make it another experiment than the recipe's own.
        run: the finished run; None before.
        before: whether that run was finished before the series began.
        failure: why the job failed, in one sentence; empty if it did not.
        fold: (k, K) of a cross-validation; None outside of one.
        settings: "key=value" as for `override`, which with the seed and the fold make the
            reference's recipe this one.
        stopped: a stopped run of the job, to be resumed.
        title: what to call the job; empty for its name, seed and fold.
        about: what else to say of it as it begins.
        options: of `train`, for this job alone.
    """

    reference: str
    name: str
    recipe: Recipe | None = None
    aliases: tuple[str, ...] = ()
    changed: bool = False
    smoke: bool = False
    run: directory.Run | None = None
    before: bool = False
    failure: str = ""
    fold: tuple[int, int] | None = None
    settings: tuple[str, ...] = ()
    stopped: directory.Run | None = None
    title: str = ""
    about: str = ""
    options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def label(self) -> str:
        """The title, or the name, the seed and the fold."""
        if self.title:
            return self.title
        return self.name if self.recipe is None else f"{self.name} {self.variation}"

    @property
    def variation(self) -> str:
        """The seed and the fold: "seed 0", "seed 0 fold 1/5"."""
        if self.recipe is None:
            return "-"
        fold = "" if self.fold is None else " fold {}/{}".format(*self.fold)
        return f"seed {self.recipe.seed}{fold}"

    @property
    def fold_settings(self) -> list[str]:
        """The setting, as for `override`, that makes a recipe the one of this fold, if any."""
        return [] if self.fold is None else ["data.fold={},{}".format(*self.fold)]

    @property
    def waits(self) -> bool:
        """Whether it has not been run yet."""
        return self.run is None and not self.failure


def _newest(
    recipe: Recipe, among: Mapping[directory.Run, Mapping[str, Any]], settings: Sequence[str]
) -> directory.Run | None:
    """Return the last of some runs that is the same experiment with the same seed, if any.

    It must have the values of `settings` too, even of those, such as a precision, that do not
    decide the experiment. The paths in `among` are absolute.
    """
    ours = directory.absolute_paths(flat(recipe), Path.cwd())
    for run, theirs in reversed(among.items()):
        same = theirs["seed"] == recipe.seed and same_experiment(ours, theirs)
        if same and has_settings(theirs, ours, settings):
            return run
    return None


def resumable(
    stopped: directory.Run | None, write: Callable[[str], None] = print
) -> directory.Run | None:
    """Return a stopped run if its checkpoint can be read; else say that the job starts over."""
    if stopped is None:
        return None
    try:
        checkpoint.read(stopped.path / directory.CHECKPOINT)
    except ValueError as error:
        write(f"starting over: {error}")
        return None
    write(f"resuming {stopped.path}")
    return stopped


def plan(
    reference: str,
    *,
    every: bool = False,
    seeds: int = 1,
    seed: int | None = None,
    folds: int | None = None,
    settings: Sequence[str] = (),
    out: str | Path = "runs",
    again: bool = False,
    smoke: bool = False,
) -> list[Job]:
    """List the jobs of a series in the order they run: by variant, then by seed, then by fold.

    Variants that are the same experiment share one job per seed and fold. A job is done if a
    finished run has the same experiment and seed, and the values of `settings`; a stopped run that
    has them is resumed. Smoke runs do not count.

    Args:
        reference: "NAME", "NAME/VARIANT", or the path of a recipe file, with "/VARIANT" or without.
        every: plan the recipe and all its variants; then `reference` names none.
        seeds: how many seeds, from the first one up.
        seed: the first seed; None takes each recipe's own.
        folds: how many stratified folds to cut the images into that are not for testing; each
            validates one job, and the others train it. None for no cross-validation.
        settings: "key=value" as for `override`, for every variant; a job whose variant lacks the
            key fails.
        out: the folder of all runs, searched for finished ones.
        again: also run what is done, and resume nothing.
        smoke: plan smoke runs.

    Raises:
        ValueError: no such recipe, or the settings fit none of its variants.
    """
    if seeds < 1:
        raise ValueError(f"--seeds must be 1 or more, got {seeds}")
    if folds is not None and folds < 2:
        raise ValueError(f"--folds must be 2 or more, got {folds}")
    experiments = _experiments(_references(reference) if every else [reference], settings, smoke)
    fresh = again or smoke
    done, stopped = (
        {run: directory.placed(run.started) for run in ([] if fresh else found(Path(out)))}
        for found in (directory.finished, directory.stopped)
    )
    jobs = []
    for experiment in experiments:
        if experiment.recipe is None:
            jobs.append(experiment)
            continue
        first = experiment.recipe.seed if seed is None else seed
        for each in range(first, first + seeds):
            for fold in [None] if folds is None else [(k, folds) for k in range(1, folds + 1)]:
                job = replace(experiment, recipe=replace(experiment.recipe, seed=each), fold=fold)
                jobs.append(_searched(job, done, stopped, settings))
    return jobs


def _searched(
    job: Job,
    done: Mapping[directory.Run, Mapping[str, Any]],
    stopped: Mapping[directory.Run, Mapping[str, Any]],
    settings: Sequence[str],
) -> Job:
    """Give a job its fold, and the run that is it, if one is finished or was stopped."""
    if job.fold is not None:
        data = job.recipe.data
        if not hasattr(data, "fold"):
            sentence = (
                "--folds needs data that can be cut into folds, as that of Images, got "
                f"{getattr(data, '__name__', type(data).__name__)}: use Images, or leave it out"
            )
            return replace(job, failure=sentence)
        recipe = replace(job.recipe, data=replace(data, fold=job.fold))
        # Other images validate than those of the report.
        changed = job.changed or recipe.reported is not None
        job = replace(job, recipe=recipe, changed=changed)
    if found := _newest(job.recipe, done, settings):
        return replace(job, run=found, before=True)
    return replace(job, stopped=_newest(job.recipe, stopped, settings))


def _references(reference: str) -> list[str]:
    """Return the references of a recipe and of its variants."""
    file, variant = catalogue.find(reference)
    if variant:
        raise ValueError(
            f"--all runs a recipe with every variant, got {reference!r}: leave /{variant} out"
        )
    variants = getattr(catalogue.load_file(file), "variants", {})
    return [reference, *(f"{reference}/{name}" for name in variants)]


def _experiments(references: list[str], settings: Sequence[str], smoke: bool) -> list[Job]:
    """Return a job for each experiment, with the recipe's own seed."""
    found: list[Job] = []
    failures: list[ValueError] = []
    for reference in references:
        file, variant = catalogue.split(reference)
        name = f"{file.stem}/{variant}" if variant else file.stem
        try:
            recipe = catalogue.get_recipe(reference)
            asked = override(recipe, *settings)
        except ValueError as error:
            failures.append(error)
            failed = Job(reference=reference, name=name, smoke=smoke, failure=sentence(error))
            found.append(failed)
            continue
        for index, job in enumerate(found):
            if job.recipe is not None and same_experiment(flat(job.recipe), flat(asked)):
                found[index] = replace(job, aliases=(*job.aliases, name))
                break
        else:
            changed = not same_experiment(flat(recipe), flat(asked))
            job = Job(reference=reference, name=name, recipe=asked, changed=changed, smoke=smoke)
            found.append(replace(job, settings=tuple(settings)))
    if len(failures) == len(references):
        raise failures[0]
    return found
