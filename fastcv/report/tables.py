"""The rows of the report's tables, in words: every form of the report sets the same ones."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from fastcv.experiment.comparison import HEADLINES, MEASURED_FIRST, SKIPPED, Experiment, Result
from fastcv.experiment.words import (
    NOT_RUN,
    WITHIN,
    duration,
    epochs_in_words,
    measured,
    name,
    number,
    seeds,
    short,
)
from fastcv.recipe.diff import describe
from fastcv.terminal import aligned


@dataclass(frozen=True, kw_only=True)
class Line:
    """One number of an experiment: reported, measured, and how they compare."""

    metric: str
    reported: str
    measured: str
    within: str


@dataclass(frozen=True, kw_only=True)
class Block:
    """An experiment on one device: a line a number, the headline first.

    `group` is the experiment with the results of that device alone.
    """

    experiment: Experiment
    group: Experiment
    lines: tuple[Line, ...]
    epochs: str
    time: str
    device: str
    seeds: str


@dataclass(frozen=True, kw_only=True)
class ShortCut:
    """Runs that changed the same settings of an experiment, on one device; never compared."""

    experiment: Experiment
    changed: tuple[str, ...]
    measured: str
    epochs: str
    time: str
    device: str
    seeds: str
    results: tuple[Result, ...]


def blocks(experiment: Experiment) -> list[Block]:
    """Give the experiment's rows, once for each device that ran it."""
    return [
        Block(
            experiment=experiment,
            group=group,
            lines=tuple(_lines(group)),
            epochs=epochs(group),
            time=times(group.results),
            device=devices(group.results),
            seeds=seeds(group.results),
        )
        for group in experiment.by_device()
    ]


def short_cuts(experiment: Experiment) -> list[ShortCut]:
    """Give the runs that changed something of the experiment, those of the same change together."""
    groups: dict[str, list[Result]] = {}
    for result in experiment.altered:
        key = repr((sorted(result.changed.items()), result.device_name, result.precision))
        groups.setdefault(key, []).append(result)
    found = []
    for group in groups.values():
        ran = replace(experiment, results=tuple(group), reported=None)
        metrics = [metric for metric in shown_metrics(ran) if ran.values(metric)]
        found.append(
            ShortCut(
                experiment=experiment,
                changed=tuple(_change(key, *pair) for key, pair in group[0].changed.items()),
                measured="; ".join(f"{measured(ran, name)} {short(name)}" for name in metrics),
                epochs=_span(result.epochs for result in group),
                time=times(group),
                device=devices(group),
                seeds=seeds(group),
                results=ran.results,
            )
        )
    return found


def _change(key: str, ours: object, theirs: object) -> str:
    return f"{key}: {theirs}" if key == SKIPPED else describe(key, ours, theirs)


def _lines(experiment: Experiment) -> Iterable[Line]:
    metrics = shown_metrics(experiment)
    if not metrics:
        run = "not measured" if experiment.results else NOT_RUN
        yield Line(metric="", reported=_no_number(experiment), measured=run, within="")
    for metric in metrics:
        reported = "none"
        if metric in experiment.numbers:
            reported = number(metric, experiment.numbers[metric])
            if experiment.is_bar and metric != "parameters":
                reported = f"to beat: {reported}"
        verdict = experiment.verdict(metric)
        yield Line(
            metric=name(metric),
            reported=reported,
            measured=measured(experiment, metric),
            within="" if verdict in (NOT_RUN, "not measured") else WITHIN.get(verdict, verdict),
        )


def _no_number(experiment: Experiment) -> str:
    return "no number" if experiment.reported else "none"


def shown_metrics(experiment: Experiment) -> list[str]:
    """Say which numbers stand in a table: all reported ones, else those that matter.

    A bar's losses and training accuracies are another way's, and not shown beside it. The count
    of parameters is left out of what was not run.
    """
    reported = list(experiment.numbers)
    if not experiment.results and len(reported) > 1:
        reported = [each for each in reported if each != "parameters"]
    if experiment.is_bar:
        reported = [each for each in reported if each in (experiment.headline, "parameters")]
    if reported or experiment.headline is None:
        return reported
    plain = next((each for each in HEADLINES if experiment.values(each)), None)
    both = experiment.headline == MEASURED_FIRST and plain
    return [experiment.headline, plain] if both else [experiment.headline]


def epochs(experiment: Experiment) -> str:
    """Say how many epochs were run, and of how many planned where that is another number."""
    if not experiment.results:
        return f"{experiment.epochs} planned" if experiment.epochs else ""
    ran = _span(result.epochs for result in experiment.results)
    return ran if ran == str(experiment.epochs) else f"{ran} of {experiment.epochs}"


def _span(values: Iterable[int]) -> str:
    found = sorted(set(values))
    return str(found[0]) if len(found) == 1 else f"{found[0]}-{found[-1]}"


def times(results: Sequence[Result]) -> str:
    """Say how long one run took, the mean over them; the warm-up apart where it took a second."""
    if not results:
        return ""
    seconds = sum(result.seconds for result in results) / len(results)
    warm = sum(result.warmup_seconds or 0 for result in results) / len(results)
    return duration(seconds) + (f" + {duration(warm)} warm-up" if warm >= 1 else "")


def devices(results: Sequence[Result]) -> str:
    """Name the device, without its maker's marks, and its precision."""
    said = (f"{_plain(result.device_name)}, {result.precision}" for result in results)
    return "; ".join(dict.fromkeys(said))


def _plain(device: str) -> str:
    return " ".join(re.sub(r"\((R|TM)\)|\b(CPU|Processor)\b", "", device).split())


def _seeded(listed: str) -> str:
    return listed if listed.endswith("seeds") else f"seed {listed}"


def distinct(experiments: Sequence[Experiment]) -> list[list[Experiment]]:
    """Put those together that are one experiment under two names, in order."""
    groups: dict[tuple[bool, frozenset[str]], list[Experiment]] = {}
    for each in experiments:
        groups.setdefault((each.own, frozenset((each.name, *each.aliases))), []).append(each)
    return list(groups.values())


def not_run(experiments: Sequence[Experiment]) -> list[list[Experiment]]:
    """Keep of the `distinct` experiments those without a finished run."""
    return [group for group in distinct(experiments) if not any(each.results for each in group)]


def lead(experiments: Sequence[Experiment]) -> str:
    """Say how many experiments there are, and how many of them were run; two names are one."""
    groups = distinct(experiments)
    missing = not_run(experiments)
    cut = sum(any(each.altered for each in group) for group in missing)
    changed = f", {cut} of these only with changed settings" if cut else ""
    run = len(groups) - len(missing)
    return f"{len(groups)} experiments: {run} run, {len(missing)} not run{changed}."


def as_text(experiments: Sequence[Experiment]) -> str:
    """Set the results as a table of plain text; what was not run is listed below it."""
    rows = [("experiment", "", "reported", "measured", "within tolerance", "epochs", "time")]
    for experiment in experiments:
        if not experiment.results:
            continue
        for block in blocks(experiment):
            for index, line in enumerate(block.lines):
                first = index == 0
                rows.append(
                    (
                        experiment.name if first else "",
                        line.metric,
                        line.reported,
                        line.measured,
                        line.within,
                        block.epochs if first else "",
                        f"{block.time} on {block.device}, {_seeded(block.seeds)}" if first else "",
                    )
                )
    parts = ["\n".join(aligned(rows)) if len(rows) > 1 else "no experiment was run in full"]
    cuts = [cut for experiment in experiments for cut in short_cuts(experiment)]
    if cuts:
        parts.append(
            "changed, so not compared:\n"
            + "\n".join(
                f"  {cut.experiment.name}: {cut.measured}; {epochs_in_words(cut.epochs)}; "
                f"{cut.time}; {', '.join(cut.changed)}"
                for cut in cuts
            )
        )
    unfinished = [run for experiment in experiments for run in experiment.unfinished]
    if unfinished:
        parts.append(
            "unfinished, left out:\n"
            + "\n".join(f"  {run.path}: {run.epochs} of {run.planned} epochs" for run in unfinished)
        )
    missing = not_run(experiments)
    if missing:
        names = "\n".join(f"  {', '.join(each.name for each in group)}" for group in missing)
        parts.append(f"not run ({len(missing)}):\n{names}")
    parts.append(lead(experiments))
    return "\n\n".join(parts)
