"""The jobs of a series: one for each experiment and seed, and which of them are done."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from fastcv import catalogue
from fastcv.experiment import directory
from fastcv.experiment.series.record import sentence
from fastcv.recipe import flat, override
from fastcv.recipe.diff import has_settings, same_experiment
from fastcv.recipe.values import Recipe


@dataclass(frozen=True, kw_only=True)
class Job:
    """One experiment with one seed, and how it went.

    Args:
        reference: as on the command line, "NAME/VARIANT" or "FILE.py/VARIANT".
        name: the recipe's, with its variant.
        recipe: with the series' settings and this seed; None if it could not be built.
        aliases: other names of the same experiment, which is run once.
        changed: whether the settings make it another experiment than the recipe's own.
        run: the finished run; None before.
        before: whether that run was finished before the series began.
        failure: why the job failed, in one sentence; empty if it did not.
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

    @property
    def label(self) -> str:
        """The name and the seed."""
        return self.name if self.recipe is None else f"{self.name} seed {self.recipe.seed}"

    @property
    def waits(self) -> bool:
        """Whether it has not been run yet."""
        return self.run is None and not self.failure


def _newest(
    recipe: Recipe, among: Mapping[directory.Run, Mapping[str, Any]], settings: Sequence[str]
) -> directory.Run | None:
    """Return the last of some runs that is the same experiment with the same seed, if any.

    It must have the values of `settings` too, even of those, such as a precision, that do not
    decide the experiment.
    """
    ours = flat(recipe)
    for run, theirs in reversed(among.items()):
        same = theirs["seed"] == recipe.seed and same_experiment(ours, theirs)
        if same and has_settings(theirs, ours, settings):
            return run
    return None


def plan(
    reference: str,
    *,
    every: bool = False,
    seeds: int = 1,
    seed: int | None = None,
    settings: Sequence[str] = (),
    out: str | Path = "runs",
    again: bool = False,
    smoke: bool = False,
) -> list[Job]:
    """List the jobs of a series in the order they run, variant by variant and seed by seed.

    Variants that are the same experiment share one job per seed. A job is done if a finished run
    has the same experiment and seed, and the values of `settings`; smoke runs and stopped runs do
    not count.

    Args:
        reference: "NAME", "NAME/VARIANT", or the path of a recipe file, with "/VARIANT" or without.
        every: plan the recipe and all its variants; then `reference` names none.
        seeds: how many seeds, from the first one up.
        seed: the first seed; None takes each recipe's own.
        settings: "key=value" as for `override`, for every variant; a job whose variant lacks the
            key fails.
        out: the folder of all runs, searched for finished ones.
        again: also run what is done.
        smoke: plan smoke runs.

    Raises:
        ValueError: no such recipe, or the settings fit none of its variants.
    """
    if seeds < 1:
        raise ValueError(f"--seeds must be 1 or more, got {seeds}")
    experiments = _experiments(_references(reference) if every else [reference], settings, smoke)
    done = [] if again or smoke else directory.finished(Path(out))
    among = {run: run.started["flat"] for run in done}
    jobs = []
    for experiment in experiments:
        if experiment.recipe is None:
            jobs.append(experiment)
            continue
        first = experiment.recipe.seed if seed is None else seed
        for each in range(first, first + seeds):
            recipe = replace(experiment.recipe, seed=each)
            found = _newest(recipe, among, settings)
            jobs.append(replace(experiment, recipe=recipe, run=found, before=found is not None))
    return jobs


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
            found.append(
                Job(reference=reference, name=name, recipe=asked, changed=changed, smoke=smoke)
            )
    if len(failures) == len(references):
        raise failures[0]
    return found
