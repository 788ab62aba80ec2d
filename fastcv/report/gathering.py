"""From runs to experiments: which run belongs to which."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from fastcv import catalogue
from fastcv.experiment.comparison import SKIPPED, Experiment, Result, Unfinished
from fastcv.recipe.diff import decisive, diff, planned_epochs, same_experiment, with_defaults
from fastcv.recipe.flat import flat
from fastcv.recipe.values import Reported
from fastcv.report import reading


def gather(
    runs: Iterable[str | Path],
    results_folder: str | Path | None = None,
    warn: Callable[[str], None] = lambda line: None,
) -> list[Experiment]:
    """Read runs, and give every experiment of the catalogue, in its order, with its results.

    Recipes of one's own come after it. Smoke runs are left out. Of several runs of one seed on
    one device the newest counts, whichever folder it lies in, and any run before a summary.

    Args:
        runs: run directories, or folders that hold some at any depth.
        results_folder: of committed summaries, `*.json`; None reads none.
        warn: takes a line for every run or summary that could not be read.
    """
    results, unfinished = [], []
    found = [each for folder in runs for each in reading.read_runs(Path(folder), warn)]
    once = {each.path.resolve(): each for each in found}  # folders may hold one another
    for _, each in sorted(once.items(), key=lambda pair: pair[0].name, reverse=True):
        (unfinished if isinstance(each, Unfinished) else results).append(each)
    if results_folder is not None:
        results += reading.read_summaries(Path(results_folder), warn)
    return arrange(results, unfinished)


def arrange(results: Iterable[Result], unfinished: Iterable[Unfinished] = ()) -> list[Experiment]:
    """Give every experiment of the catalogue what belongs to it; one's own come last.

    Args:
        results: the newest of a seed first.
        unfinished: likewise.
    """
    recipes = {entry.name: catalogue.get_recipe(entry.name) for entry in catalogue.entries()}
    flats = {name: flat(recipe) for name, recipe in recipes.items()}
    results = [completed(result, flats) for result in results]
    exact: dict[str, list[Result]] = {}
    altered: dict[str, list[Result]] = {}
    own: dict[str, list[Result]] = {}
    for result in _distinct(results):
        names = [name for name, ours in flats.items() if not diff(ours, result.settings)]
        if names and not result.skipped:
            for name in names:
                exact.setdefault(name, []).append(result)
        elif names or (result.recipe in flats and not result.own):
            name = names[0] if names and result.recipe not in names else result.recipe
            changed = diff(flats[name], result.settings) | _skipped(result)
            altered.setdefault(name, []).append(replace(result, changed=changed))
        else:
            own.setdefault(result.recipe, []).append(result)
    stopped: dict[str, list[Unfinished]] = {}
    own_stopped: dict[str, list[Unfinished]] = {}
    for run in unfinished:
        ours = run.recipe in flats and not run.own
        (stopped if ours else own_stopped).setdefault(run.recipe, []).append(run)
    experiments = [
        Experiment(
            name=entry.name,
            summary=entry.summary,
            reported=recipes[entry.name].reported,
            epochs=planned_epochs(flats[entry.name]),
            results=_by_seed(exact.get(entry.name, [])),
            altered=_by_seed(altered.get(entry.name, [])),
            unfinished=tuple(stopped.get(entry.name, [])),
            aliases=tuple(
                name
                for name in flats
                if name != entry.name and same_experiment(flats[name], flats[entry.name])
            ),
        )
        for entry in catalogue.entries()
    ]
    experiments = [replace(each, bar=_bar(each, experiments)) for each in experiments]
    for name in dict.fromkeys([*own, *own_stopped]):
        experiments.append(_own(name, own.get(name, []), tuple(own_stopped.get(name, []))))
    return experiments


def completed(result: Result, flats: Mapping[str, Mapping[str, Any]]) -> Result:
    """Give a result of one of our recipes the settings that its own, older fastcv did not have."""
    ours = None if result.own else flats.get(result.recipe)
    if ours is None:
        return result
    # Of the recipe only what decides a result, as of the run.
    return replace(result, settings=with_defaults(result.settings, decisive(ours)))


def _distinct(results: Iterable[Result]) -> list[Result]:
    """Keep the first, the newest, of a seed on a device; a summary saved from a run is that run."""
    kept: dict[str, Result] = {}
    for result in results:
        settings = sorted(result.settings.items())
        whole = not result.skipped  # a run that lacks images does not stand for one that has all
        key = repr((result.seed, result.device_name, result.precision, whole, settings))
        kept.setdefault(key, result)
    return list(kept.values())


def _skipped(result: Result) -> dict[str, tuple[int, int]]:
    """What a run without some of its images has otherwise: it is not the whole experiment."""
    return {SKIPPED: (0, result.skipped)} if result.skipped else {}


def _by_seed(results: list[Result]) -> tuple[Result, ...]:
    return tuple(sorted(results, key=lambda result: result.seed))


def _bar(experiment: Experiment, experiments: list[Experiment]) -> Experiment | None:
    """The experiment of the report whose number a one_cycle variant is to beat."""
    if not experiment.is_bar or experiment.reported is None:
        return None
    name = experiment.name.partition("/")[0]
    return next(
        (
            other
            for other in experiments
            if other.name.partition("/")[0] == name
            and not other.is_bar
            and other.reported is not None
            and other.reported.source == experiment.reported.source
        ),
        None,
    )


def _own(name: str, results: list[Result], unfinished: tuple[Unfinished, ...]) -> Experiment:
    """An experiment of one's own, which is what its newest run was."""
    if not results:
        return Experiment(name=name, epochs=unfinished[0].planned, own=True, unfinished=unfinished)
    newest = results[0]
    changed = [diff(newest.settings, result.settings) | _skipped(result) for result in results]
    pairs = list(zip(results, changed, strict=True))
    return Experiment(
        name=name,
        reported=Reported(**newest.reported) if newest.reported else None,
        epochs=planned_epochs(newest.settings),
        results=_by_seed([result for result, change in pairs if not change]),
        altered=_by_seed([replace(result, changed=change) for result, change in pairs if change]),
        unfinished=unfinished,
        own=True,
    )
