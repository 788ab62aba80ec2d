"""A series as text: the table of what it measured, and the list of what it would run."""

import statistics
from collections.abc import Sequence

from fastcore.basics import groupby

from fastcv.experiment import folds, words
from fastcv.experiment.building import SMOKE_NOTE
from fastcv.experiment.comparison import Experiment, Result
from fastcv.experiment.series.jobs import Job
from fastcv.recipe.checks import VERDICTS
from fastcv.recipe.metrics import HEADLINES, MEASURES, TTA_ACCURACY
from fastcv.terminal import aligned

COLUMNS = (
    *("experiment", "seeds", "folds", "reported", "measured", "within tolerance"),
    *("epochs", "seconds", "warm-up s", "runs"),
)


def table(jobs: Sequence[Job], at_once: int = 1) -> str:
    """Return a table with a row for each experiment: mean and sample deviation over its runs.

    Lines below it name the jobs that failed or were not run, and limits of the numbers.

    Args:
        jobs: a series, as `run` returned it.
        at_once: how many jobs shared the machine.
    """
    groups = groupby(jobs, lambda job: job.name)
    rows = [COLUMNS, *map(_row, groups.values())]
    if all(job.fold is None for job in jobs):
        place = COLUMNS.index("folds")
        rows = [(*row[:place], *row[place + 1 :]) for row in rows]
    lines = aligned(rows)
    lines += [f"failed: {job.label}: {job.failure}" for job in jobs if job.failure]
    if waiting := [job.label for job in jobs if job.waits]:
        lines.append(f"not run: {', '.join(waiting)}")
    if any(job.smoke for job in jobs):
        lines.append(SMOKE_NOTE)
    elif any(job.changed and job.run is not None for job in jobs):
        lines.append("changed: the settings make it another experiment than the recipe's own")
    if any(job.fold is not None and job.run is not None for job in jobs):
        lines.append("folds share training images: their deviation is no error of the mean")
    lines += [line for group in groups.values() if (line := _unlike_images(group))]
    if at_once > 1 and any(job.run is not None and not job.before for job in jobs):
        lines.append(f"up to {at_once} at a time shared this machine: alone, each is faster")
    return "\n".join(lines)


def join_folds(jobs: Sequence[Job]) -> list[str]:
    """Join the predictions of each cross-validation whose folds are all finished, into a folder.

    Args:
        jobs: a series, as `run` returned it.

    Returns:
        For each, a line with the accuracy over all images, and one with the folder.
    """
    lines = []
    folded = [job for job in jobs if job.fold is not None and not job.smoke]
    for each in groupby(
        folded, lambda job: (job.name, job.variation.partition(" fold")[0])
    ).values():
        runs = [job.run for job in each if job.run is not None]
        if len(runs) < len(each):
            continue
        try:
            folder, summary = folds.join(runs)
        except ValueError as error:
            lines.append(f"the folds of {each[0].name} were not joined: {error}")
        else:
            lines += [folds.in_words(summary), str(folder)]
    return lines


def listing(jobs: Sequence[Job]) -> str:
    """Return what a series would run, one line per job: --dry-run."""
    rows = []
    for job in jobs:
        if job.failure:
            state = f"fails: {job.failure}"
        else:
            state = f"done before: {job.run.path}" if job.run else "would run"
            state = f"would resume: {job.stopped.path}" if job.stopped else state
        rows.append((_named(job), job.variation, state))
    return "\n".join(aligned(rows))


def in_words(job: Job) -> str:
    """Return the result of a finished job: `test 91.40 % in 35.0 s, warm-up 3.1 s`."""
    experiment = _experiment([job])
    (result,) = experiment.results
    measured = "" if job.smoke else ", ".join(_measured(experiment))
    epochs = words.epochs_in_words(str(result.epochs))
    warmup = result.warmup_seconds
    after = "" if warmup is None else f", warm-up {warmup:.1f} s"
    return f"{measured or epochs} in {result.seconds:.1f} s{after}"


def _experiment(jobs: list[Job]) -> Experiment:
    """Gather what the finished jobs of an experiment measured."""
    results = tuple(_result(job) for job in jobs if job.run is not None)
    return Experiment(name=jobs[0].name, reported=jobs[0].recipe.reported, results=results)


def _result(job: Job) -> Result:
    summary = job.run.summary
    return Result(
        recipe=job.name,
        seed=summary["seed"],
        measured={name: summary[name] for name in MEASURES if summary.get(name) is not None},
        epochs=summary["epochs"],
        seconds=summary["seconds"],
        warmup_seconds=summary.get("warmup_seconds"),
    )


def _row(jobs: list[Job]) -> tuple[str, ...]:
    if jobs[0].recipe is None:
        return (jobs[0].name, *["-"] * (len(COLUMNS) - 2), "1 failed")
    experiment = _experiment(jobs)
    results, metric = experiment.results, experiment.headline
    warmups = [each.warmup_seconds for each in results if each.warmup_seconds is not None]
    measured = ", ".join([] if jobs[0].smoke else _measured(experiment))
    count = len(experiment.values(metric)) if measured else 0
    return (
        _named(jobs[0]),
        words.seeds(results) or "-",
        _folds(jobs),
        _reported(experiment),
        (f"{measured} (n = {count})" if count > 1 else measured) or "-",
        _within(jobs[0], experiment, metric),
        words.epochs_run(results) if results else "-",
        _mean([result.seconds for result in results]),
        _mean(warmups),
        _states(jobs),
    )


def _unlike_images(jobs: list[Job]) -> str:
    """Say of runs that trained on more images than others, so that their mean is of no experiment.

    Folds may differ by an image.
    """
    counts = [job.run.summary.get("images") for job in jobs if job.run is not None]
    trained = {count[0] for count in counts if count and count[0]}
    if len(trained) < 2 or any(job.fold is not None for job in jobs):
        return ""
    said = " and ".join(f"{count:,}" for count in sorted(trained))
    return (
        f"the runs of {jobs[0].name} trained on {said} images: to train all of them on the same "
        "images, run them with --again"
    )


def _folds(jobs: list[Job]) -> str:
    """Return which folds are finished: "5 of 5"."""
    wanted = {job.fold for job in jobs if job.fold is not None}
    there = {job.fold for job in jobs if job.fold is not None and job.run is not None}
    return f"{len(there)} of {len(wanted)}" if wanted else "-"


def _named(job: Job) -> str:
    """Return its name, with the other names of the same experiment."""
    return f"{job.name} (also {', '.join(job.aliases)})" if job.aliases else job.name


def _reported(experiment: Experiment) -> str:
    metric = experiment.headline
    if metric not in experiment.numbers:
        return "-"
    reported = f"{words.short(metric)} {words.number(metric, experiment.numbers[metric])}"
    return f"to beat: {reported}" if experiment.to_beat else reported


def _measured(experiment: Experiment) -> list[str]:
    """Return the headline metric, and for an accuracy with TTA also the plain one."""
    metrics = [experiment.headline]
    if metrics == [TTA_ACCURACY]:
        metrics += [metric for metric in HEADLINES if experiment.values(metric)][:1]
    return [
        f"{words.short(metric)} {words.measured(experiment, metric)}"
        for metric in metrics
        if metric is not None and experiment.values(metric)
    ]


def _within(job: Job, experiment: Experiment, metric: str | None) -> str:
    if job.smoke or not experiment.results or metric not in experiment.numbers:
        return "-"
    verdict = "changed" if job.changed else experiment.verdict(metric)
    return VERDICTS.get(verdict, verdict)


def _mean(values: list[float]) -> str:
    """Return mean and sample standard deviation of some seconds."""
    if not values:
        return "-"
    spread = f" ± {statistics.stdev(values):.1f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.1f}{spread}"


def _states(jobs: list[Job]) -> str:
    """Return how many jobs ran, were done before, failed or were not run."""
    counts = {
        "run": sum(job.run is not None and not job.before for job in jobs),
        "done before": sum(job.before for job in jobs),
        "failed": sum(bool(job.failure) for job in jobs),
        "not run": sum(job.waits for job in jobs),
    }
    return ", ".join(f"{count} {state}" for state, count in counts.items() if count)
