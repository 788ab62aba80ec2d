"""What a series will run: one job for each experiment and seed, and what is done already."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from fastcv import catalogue
from fastcv.experiment import directory
from fastcv.recipe import flat, override
from fastcv.recipe.diff import diff, has_settings, same_experiment
from fastcv.recipe.values import Recipe


@dataclass(frozen=True, kw_only=True)
class Job:
    """One experiment with one seed, and how it went.

    Args:
        reference: as the command line takes it, "NAME/VARIANT" or "FILE.py/VARIANT".
        name: of the recipe, with its variant.
        recipe: with its settings and this seed; None where it could not be made.
        aliases: other names for the same experiment, which are not run again.
        altered: whether the settings made another experiment of it than the recipe's own.
        smoke: whether it is a smoke run.
        run: the finished run.
        before: whether that run was there before the series.
        failure: why it failed, in one sentence; empty while it has not.
    """

    reference: str
    name: str
    recipe: Recipe | None = None
    aliases: tuple[str, ...] = ()
    altered: bool = False
    smoke: bool = False
    run: directory.Run | None = None
    before: bool = False
    failure: str = ""

    @property
    def label(self) -> str:
        """Its name and seed."""
        return self.name if self.recipe is None else f"{self.name} seed {self.recipe.seed}"

    @property
    def waits(self) -> bool:
        """Whether it is still to be run."""
        return self.run is None and not self.failure


def recorded(out: Path, *, smoke: bool = False) -> dict[directory.Run, dict[str, Any]]:
    """The finished runs in the folder of all runs, the newest last, each with its flat recipe."""
    return {run: run.started["flat"] for run in directory.finished(out, smoke=smoke)}


def newest(
    recipe: Recipe, among: Mapping[directory.Run, Mapping[str, Any]], settings: Sequence[str] = ()
) -> directory.Run | None:
    """The last of the recorded runs that is this very experiment, with this seed; else None.

    Args:
        recipe: the experiment, with its settings.
        among: what `recorded` gave.
        settings: what was asked for; such a run has these values too, as a precision, that do not
            decide which experiment it is.
    """
    ours = flat(recipe)
    for run, theirs in reversed(among.items()):
        if theirs["seed"] != recipe.seed or diff(ours, theirs):
            continue
        if has_settings(theirs, ours, settings):
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

    Recipes that are one experiment under several names, or that the settings made so, are one job
    a seed. A finished run of the same experiment and seed, with the values of `settings`, makes a
    job done; smoke runs and those that were stopped do not count.

    Args:
        reference: "NAME", "NAME/VARIANT", or a path to one's own file, with "/VARIANT" or not.
        every: the recipe and all its variants; the reference then names none.
        seeds: how many, from the first one up.
        seed: the first; None takes each recipe's own.
        settings: "key=value" as for `override`, for every variant; one that a variant does not
            have is that job's failure.
        out: the folder of all runs, where finished ones are looked for.
        again: run what is done already, too.
        smoke: plan smoke runs.

    Raises:
        ValueError: no such recipe, or the settings fit none of its variants.
    """
    if seeds < 1:
        raise ValueError(f"--seeds must be 1 or more, got {seeds}")
    experiments = _experiments(_references(reference) if every else [reference], settings, smoke)
    among = {} if again or smoke else recorded(Path(out))
    jobs = []
    for experiment in experiments:
        if experiment.recipe is None:
            jobs.append(experiment)
            continue
        first = experiment.recipe.seed if seed is None else seed
        for each in range(first, first + seeds):
            recipe = replace(experiment.recipe, seed=each)
            found = newest(recipe, among, settings)
            jobs.append(replace(experiment, recipe=recipe, run=found, before=found is not None))
    return jobs


def _references(reference: str) -> list[str]:
    """The recipe's reference and those of its variants."""
    file, variant = catalogue.find(reference)
    if variant:
        raise ValueError(
            f"--all runs a recipe with every variant, got {reference!r}: leave /{variant} out"
        )
    variants = getattr(catalogue.load_file(file), "variants", {})
    return [reference, *(f"{reference}/{name}" for name in variants)]


def _experiments(references: list[str], settings: Sequence[str], smoke: bool) -> list[Job]:
    """A job for each experiment, its seed still the recipe's own."""
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
            said = " ".join(str(error).split())
            found.append(Job(reference=reference, name=name, smoke=smoke, failure=said))
            continue
        same = next((job for job in found if _same(job.recipe, asked)), None)
        if same is not None:
            found[found.index(same)] = replace(same, aliases=(*same.aliases, name))
            continue
        altered = bool(diff(flat(recipe), flat(asked)))
        found.append(
            Job(reference=reference, name=name, recipe=asked, altered=altered, smoke=smoke)
        )
    if len(failures) == len(references):
        raise failures[0]
    return found


def _same(one: Recipe | None, other: Recipe) -> bool:
    return one is not None and same_experiment(flat(one), flat(other))
