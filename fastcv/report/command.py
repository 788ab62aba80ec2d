"""What `fastcv report` does, behind the command line."""

from collections.abc import Callable, Sequence
from pathlib import Path

from fastcv import report as reports
from fastcv.report import committed, sweeps, wandb_report
from fastcv.report import readme as readmes
from fastcv.report.gather import arrange, gather
from fastcv.report.read import read_summaries

RUNS, RESULTS = Path("runs"), Path("recipes/results")
README, ALL_RESULTS = Path("README.md"), Path("docs/results.md")


def report(
    runs: Sequence[Path] | None = None,
    *,
    out: Path = Path("report"),
    results: Path | None = None,
    save_results: Path | None = None,
    readme: bool = False,
    wandb: bool = False,
    write: Callable[[str], None] = print,
) -> None:
    """Print the report of all runs, and write it as Markdown and as a page.

    Args:
        runs: run directories, or folders that hold some; None reads ./runs.
        out: folder of the report.
        results: folder of saved summaries to report as well, or to make the README's table from.
        save_results: save a summary of every run to this folder, and write no report.
        readme: write the tables of README.md and, where it exists, docs/results.md from saved
            summaries alone, and write no report.
        wandb: make a W&B Report as well, and publish it where there is an account.
        write: takes each line of output.

    Raises:
        ValueError: a folder does not exist or cannot be written to.
    """
    if wandb:
        if readme or save_results is not None:
            raise ValueError("--wandb needs a report: leave out --readme and --save-results")
        wandb_report.workspaces()  # a missing extra shows before anything is read
    warnings: list[str] = []

    def warn(line: str) -> None:
        warnings.append(line)
        write(f"warning: {line}")

    if save_results is not None or not readme:
        default = [RUNS] if RUNS.is_dir() else []  # without it everything is "not run"
        experiments = gather(runs or default, _there(results), warn)
    if save_results is not None:
        for file in committed.save(experiments, save_results):
            write(str(file))
    if readme:
        folder = _there(results) or save_results or RESULTS
        saved = arrange(read_summaries(folder, warn))
        short = readmes.short_table(saved)
        if ALL_RESULTS.is_file():
            short += f" All results: [{ALL_RESULTS}]({ALL_RESULTS})."
            _between(ALL_RESULTS, readmes.results_table(saved), write)
        _between(README, short, write)
    if readme or save_results is not None:
        return
    write(reports.as_text(experiments))
    write("")
    searched = sweeps.gather(runs or default, warn)
    if searched:
        write(f"{sweeps.as_text(searched)}\n")
    files = reports.write(
        experiments, out, warnings, lambda line: write(f"warning: {line}"), searched
    )
    for file in files:
        write(str(file))
    if wandb:
        wandb_report.write(experiments, out, write)


def _between(file: Path, text: str, write: Callable[[str], None]) -> None:
    changed = readmes.write(file, text)
    write(f"{file}: {'written' if changed else 'is up to date'}")


def _there(folder: Path | None) -> Path | None:
    if folder is not None and not folder.is_dir():
        raise ValueError(
            f"saved summaries must lie in a folder that exists, {str(folder)!r} is not"
        )
    return folder
