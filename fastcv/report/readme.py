"""The results table of a README, between two marks that only this module writes between."""

from collections.abc import Sequence
from pathlib import Path

from fastcv import files
from fastcv.experiment.comparison import Experiment
from fastcv.experiment.words import measured, number, short
from fastcv.markdown import code, escaped, table
from fastcv.report.markdown import short_cut_table
from fastcv.report.tables import Block, blocks, short_cuts, shown_metrics

BEGIN = "<!-- results: written by `fastcv report --readme` from recipes/results/*.json -->"
END = "<!-- end of results -->"
VERDICTS = {
    "within": "within tolerance",
    "above": "above tolerance",
    "below": "below tolerance",
}
COLUMNS = ("experiment", "reported", "measured", "epochs", "time", "device", "seeds")


def results_table(experiments: Sequence[Experiment]) -> str:
    """Set what was run: whole experiments first, then those with changed settings, folded away."""
    rows, listed = [], set()
    by_name = {experiment.name: experiment for experiment in experiments}
    for experiment in experiments:
        others = [by_name[alias] for alias in experiment.aliases]
        # Two reports may give two numbers for what is one experiment: then each has its row.
        names = [experiment.name] + [
            other.name for other in others if other.numbers == experiment.numbers
        ]
        if listed.intersection(names) or not experiment.results:
            continue
        listed.add(experiment.name)
        rows += [_row(names, block) for block in blocks(experiment)]
    parts = [table(COLUMNS, rows)] if rows else ["No experiment was run yet."]
    cuts = [cut for experiment in experiments for cut in short_cuts(experiment)]
    if cuts:
        parts.append(
            f"<details>\n<summary>{len(cuts)} short cuts and other runs with changed settings, "
            f"compared with nothing</summary>\n\n{short_cut_table(cuts)}\n\n</details>"
        )
    return "\n\n".join(parts)


def _row(names: Sequence[str], block: Block) -> tuple[str, ...]:
    return (
        ", ".join(code(name) for name in names),
        escaped(_reported(block.experiment)),
        _measured(block.group),
        block.epochs,
        block.time,
        escaped(block.device),
        block.seeds,
    )


def _reported(experiment: Experiment) -> str:
    """Say "91.47 % best test (Report 003, table 1, model 5)", of a bar with the recipe's epochs."""
    metric = experiment.headline
    if experiment.reported is None:
        return "none"
    if metric not in experiment.numbers:
        return f"no number (Report {experiment.reported.source})"
    said = f"{number(metric, experiment.numbers[metric])} {short(metric)}"
    said = f"{said} (Report {experiment.reported.source})"
    if experiment.is_bar:
        said = f"to beat: {said}"
    return said if experiment.bar is None else f"{said}; its recipe: {experiment.bar.epochs} epochs"


def _measured(experiment: Experiment) -> str:
    """Say "91.64 % best test, beaten", the other test accuracy behind it where there is one."""
    said = [
        f"{measured(experiment, metric)} {short(metric)}"
        for metric in shown_metrics(experiment)
        if metric in (experiment.headline, "test_accuracy")
    ]
    verdict = experiment.verdict(experiment.headline) if experiment.headline else ""
    return ", ".join(said) + (f" ({VERDICTS.get(verdict, verdict)})" if verdict else "")


def write(readme: Path, experiments: Sequence[Experiment]) -> bool:
    """Write the table between the marks of a README; say whether that changed it.

    Raises:
        ValueError: there is no such file, or the marks are not in it, once each and in order.
    """
    if not readme.is_file():
        raise ValueError(
            f"a results table needs a README to stand in, {str(readme)!r} is not there"
        )
    text = readme.read_text(encoding="utf-8")
    before, after = _around(text, readme)
    written = f"{before}{BEGIN}\n\n{results_table(experiments)}\n\n{END}{after}"
    if written == text:
        return False
    files.write_text(readme, written)
    return True


def between(text: str) -> str:
    """The table that stands between the marks of a README's text."""
    before, after = _around(text, Path("README.md"))
    return text[len(before) + len(BEGIN) : len(text) - len(after) - len(END)].strip()


def _around(text: str, readme: Path) -> tuple[str, str]:
    if text.count(BEGIN) != 1 or text.count(END) != 1 or text.index(BEGIN) > text.index(END):
        raise ValueError(
            f"{str(readme)!r} must hold the line {BEGIN!r} and, behind it, the line {END!r}, "
            "once each: put them where the table is to stand"
        )
    before, _, rest = text.partition(BEGIN)
    return before, rest.partition(END)[2]
