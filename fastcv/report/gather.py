"""From runs to experiments: which run belongs to which experiment."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path, PurePath
from typing import Any

from fastcv import catalogue
from fastcv.experiment.comparison import SKIPPED, Experiment, Result, Unfinished
from fastcv.experiment.directory import is_folder_of_images
from fastcv.recipe.diff import decisive, diff, planned_epochs, same_experiment, with_defaults
from fastcv.recipe.flat import flat
from fastcv.recipe.values import Reported
from fastcv.report import read


def gather(
    runs: Iterable[str | Path],
    results_folder: str | Path | None = None,
    warn: Callable[[str], None] = lambda line: None,
) -> list[Experiment]:
    """Read runs, and return every experiment with its results: the catalogue's, then the user's.

    Smoke runs are left out. Of several runs with one seed on one device the newest counts, in
    whichever folder it lies, and any run before a saved summary.

    Args:
        runs: run directories, or folders that hold some at any depth.
        results_folder: folder of saved summaries, `*.json`; None reads none.
        warn: takes a line for every run or summary that cannot be read.
    """
    results, unfinished = [], []
    found = [each for folder in runs for each in read.read_runs(Path(folder), warn)]
    once = {each.path.resolve(): each for each in found}  # folders may hold one another
    for _, each in sorted(once.items(), key=lambda pair: pair[0].name, reverse=True):
        (unfinished if isinstance(each, Unfinished) else results).append(each)
    if results_folder is not None:
        results += read.read_summaries(Path(results_folder), warn)
    return arrange(results, unfinished)


def arrange(results: Iterable[Result], unfinished: Iterable[Unfinished] = ()) -> list[Experiment]:
    """Return the catalogue's experiments, then the user's, each with its runs, the newest first."""
    entries = catalogue.entries()
    recipes = {entry.name: catalogue.get_recipe(entry.name) for entry in entries}
    flats = {name: flat(recipe) for name, recipe in recipes.items()}
    exact, changed, own = (defaultdict[str, list[Result]](list) for _ in range(3))
    for result in _distinct(completed(result, flats) for result in results):
        names = [name for name, ours in flats.items() if not diff(ours, result.settings)]
        if names and not result.skipped:
            for name in names:
                exact[name].append(replace(result, changed={}))
        elif names or (result.recipe in flats and not result.own):
            name = names[0] if names and result.recipe not in names else result.recipe
            differs = diff(flats[name], result.settings) | _skipped(result)
            changed[name].append(replace(result, changed=differs))
        else:
            own[result.recipe].append(result)
    stopped, own_stopped = (defaultdict[str, list[Unfinished]](list) for _ in range(2))
    for run in unfinished:
        ours = run.recipe in flats and not run.own
        (stopped if ours else own_stopped)[run.recipe].append(run)
    experiments = [
        Experiment(
            name=name,
            summary=entry.summary,
            reported=recipes[name].reported,
            epochs=planned_epochs(ours),
            results=_by_seed(exact[name]),
            changed=_by_seed(changed[name]),
            unfinished=tuple(stopped[name]),
            aliases=tuple(
                other
                for other, theirs in flats.items()
                if other != name and same_experiment(theirs, ours)
            ),
        )
        for entry, (name, ours) in zip(entries, flats.items(), strict=True)
    ]
    experiments = [replace(each, original=_original(each, experiments)) for each in experiments]
    return experiments + [
        _own(name, own[name], tuple(own_stopped[name]))
        for name in dict.fromkeys([*own, *own_stopped])
    ]


def completed(result: Result, flats: Mapping[str, Mapping[str, Any]]) -> Result:
    """Add to a catalogue recipe's result the settings that an older fastcv did not write yet."""
    ours = None if result.own else flats.get(result.recipe)
    if ours is None:
        return result
    return replace(result, settings=with_defaults(result.settings, decisive(ours)))


def _distinct(results: Iterable[Result]) -> list[Result]:
    """Keep the newest result of a seed on a device, and any run before its saved summary."""
    kept: dict[str, Result] = {}
    saved: set[str] = set()  # the keys of the runs' summaries
    for result in results:
        key = _key(result)
        if key not in kept and not (result.path is None and key in saved):
            kept[key] = result
            saved.add(_key(without_place(result)))
    return list(kept.values())


def _key(result: Result) -> str:
    """A run that lacks images does not replace one that has all."""
    return f"{identity(result)} {not result.skipped}"


def without_place(result: Result) -> Result:
    """Keep only the names of folders of images: where they lie is one machine's business."""
    names = {
        key: PurePath(value).name
        for key, value in result.settings.items()
        if is_folder_of_images(key) and isinstance(value, str)
    }
    return replace(result, settings=result.settings | names)


def identity(result: Result) -> str:
    """Return what two results share that measure the same: seed, device, precision, settings."""
    settings = sorted(result.settings.items())
    return repr((result.seed, result.device_name, result.precision, settings))


def _skipped(result: Result) -> dict[str, tuple[int, int]]:
    """Return skipped images as a changed setting."""
    return {SKIPPED: (0, result.skipped)} if result.skipped else {}


def _by_seed(results: list[Result]) -> tuple[Result, ...]:
    return tuple(sorted(results, key=lambda result: result.seed))


def _original(experiment: Experiment, experiments: list[Experiment]) -> Experiment | None:
    """Find the experiment of the report whose number a one_cycle variant is to beat."""
    if not experiment.to_beat:
        return None
    recipe, source = experiment.name.partition("/")[0], experiment.reported.source
    for other in experiments:
        same = other.name.partition("/")[0] == recipe and other.reported is not None
        if same and not other.to_beat and other.reported.source == source:
            return other
    return None


def _own(name: str, results: Sequence[Result], unfinished: tuple[Unfinished, ...]) -> Experiment:
    """Make the experiment of a user's file from its runs, the newest first.

    Its settings are those of the newest run that changed nothing of its file. Where every run
    changed something, none is the experiment, and each states what it changed.
    """
    if not results:
        return Experiment(name=name, epochs=unfinished[0].planned, own=True, unfinished=unfinished)
    filed = next((result for result in results if not result.changed), None)
    if filed is not None:
        settings, reported = filed.settings, filed.reported
        results = [replace(each, changed=diff(settings, each.settings)) for each in results]
    else:
        newest = results[0]
        reported = newest.reported
        settings = {**newest.settings, **{key: ours for key, (ours, _) in newest.changed.items()}}
    results = [replace(each, changed={**each.changed, **_skipped(each)}) for each in results]
    return Experiment(
        name=name,
        reported=Reported(**reported) if reported else None,
        epochs=planned_epochs(settings),
        results=_by_seed([each for each in results if not each.changed]),
        changed=_by_seed([each for each in results if each.changed]),
        unfinished=unfinished,
        own=True,
    )
