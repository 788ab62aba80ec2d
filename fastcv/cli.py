"""The command line: it parses, calls and prints. What is heavy is imported inside the commands."""

import os
import shlex
import shutil
import sys
import textwrap
from pathlib import Path
from typing import Annotated, Any

import typer

from fastcv import __version__, catalogue
from fastcv.terminal import aligned

app = typer.Typer(
    help="Image-classification experiments: run a recipe, compare it with its report.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="markdown",  # paragraphs are set anew for the terminal's width
    pretty_exceptions_enable=False,
)

RecipeName = Annotated[
    str, typer.Argument(metavar="NAME[/VARIANT]", help="A recipe, or a path to your own file.")
]
Data = Annotated[
    Path | None,
    typer.Option(help="Folder of the data; else $FASTCV_DATA/NAME, else fastai's data folder."),
]
Seed = Annotated[int | None, typer.Option(help="Of weights, order and augmentation.")]
Settings = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Replace one value; --dry-run shows the keys."),
]
Compile = Annotated[
    bool, typer.Option("--compile", help="Train with torch.compile: the same as step.compile=True.")
]
SkipBad = Annotated[bool, typer.Option("--skip-bad", help="Go on without unreadable images.")]
Device = Annotated[str | None, typer.Option(help="cpu, cuda, cuda:1, mps; default: the best.")]
Out = Annotated[Path, typer.Option(help="Folder of all runs.")]
Wandb = Annotated[
    str, typer.Option(help="auto, online, offline or off; auto: online where a key is configured.")
]
Smoke = Annotated[
    bool, typer.Option("--smoke", help="Toy images, random weights, one epoch a stage: seconds.")
]


@app.callback(invoke_without_command=True)
def _options(
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
) -> None:
    if version:
        typer.echo(__version__)
        raise typer.Exit


@app.command()
def recipes() -> None:
    """List every recipe and variant with what its report claims."""
    rows = [(each.name, catalogue.headline(each), each.summary) for each in catalogue.entries()]
    lines = aligned(rows)
    terminal = shutil.get_terminal_size().columns
    if not sys.stdout.isatty() or max(map(len, lines)) <= terminal:
        typer.echo("\n".join(lines))
        return
    fill = textwrap.TextWrapper(max(terminal, 24), initial_indent="    ", subsequent_indent="    ")
    for name, *cells in rows:
        typer.echo("\n".join([name, *(fill.fill(cell) for cell in cells if cell)]))


@app.command()
def recipe(
    name: RecipeName,
    data: Data = None,
    seed: Seed = None,
    settings: Settings = None,
    skip_bad: SkipBad = False,
    smoke: Smoke = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print every setting and run nothing.")
    ] = False,
    compiled: Compile = False,
    every: Annotated[
        bool,
        typer.Option(
            "--all",
            help="Run the recipe and every variant; those that --out holds finished are skipped.",
        ),
    ] = False,
    seeds: Annotated[
        int | None,
        typer.Option(metavar="K", help="Run K seeds, from --seed up; finished ones are skipped."),
    ] = None,
    jobs: Annotated[
        int,
        typer.Option(
            metavar="N",
            help="With --all or --seeds: N at a time, in processes of their own; logs in OUT/logs.",
        ),
    ] = 1,
    again: Annotated[
        bool, typer.Option("--again", help="With --all or --seeds: skip none that is finished.")
    ] = False,
    device: Device = None,
    out: Out = Path("runs"),
    wandb: Wandb = "auto",
) -> None:
    """Run an experiment and compare it with its report.

    --all and --seeds run a series, and end with a table of means and spreads. One that fails is
    said, the others go on, and the exit code is 1. A run that was stopped is not finished: it runs
    anew, unless `fastcv resume` goes on with it first.
    """
    settings = _with_compile(settings, compiled)
    if every or seeds is not None:
        asked = _asked(data, settings, skip_bad)
        planned = {
            "every": every,
            "seeds": 1 if seeds is None else seeds,
            "seed": seed,
            "out": out,
            "again": again,
            "smoke": smoke,
        }
        ran = {"out": out, "wandb": wandb, "device": device, "at_once": jobs}
        if not _series(name, asked, planned, ran, dry_run):
            raise typer.Exit(1)
        return
    if jobs != 1 or again:
        raise ValueError("--jobs and --again are for a series: give --all or --seeds K with them")
    chosen = _chosen(name, data, seed, settings, skip_bad)
    if dry_run:
        from fastcv.recipe import flat

        for key, value in flat(chosen).items():
            typer.echo(f"{key}={value}")
        return
    from fastcv.experiment.train import train

    train(chosen, out=out, wandb=wandb, device=device, smoke=smoke)


@app.command()
def resume(
    run: Annotated[Path, typer.Argument(help="The directory of a stopped run.")],
    device: Annotated[
        str | None, typer.Option(help="cpu, cuda, cuda:1, mps; default: as it began.")
    ] = None,
    trust: Annotated[
        bool, typer.Option("--trust", help="Run the recipe file that the run names.")
    ] = False,
) -> None:
    """Go on with a stopped run behind its last finished epoch."""
    from fastcv.experiment.train import resume as resume_run

    resume_run(run, device=device, trust=trust)


@app.command("lr-find")
def lr_find(
    name: RecipeName,
    data: Data = None,
    seed: Seed = None,
    settings: Settings = None,
    skip_bad: SkipBad = False,
    smoke: Smoke = False,
    device: Device = None,
    out: Annotated[Path, typer.Option(help="Folder for lr_find.png and lr_find.csv.")] = Path("."),
) -> None:
    """Plot the loss against the learning rate, with suggestions."""
    chosen = _chosen(name, data, seed, settings, skip_bad)
    from fastcv.experiment.lr_find import find_learning_rate

    find_learning_rate(chosen, out=out, device=device, smoke=smoke, write=typer.echo)


@app.command()
def bench(
    name: Annotated[
        str, typer.Argument(metavar="[NAME[/VARIANT]]", help="A recipe, or your own file.")
    ] = "light_resnet_cifar10/one_cycle",
    json: Annotated[Path | None, typer.Option(help="Write the figures to this file.")] = None,
    rounds: Annotated[int, typer.Option(help="Each lets every contender measure once.")] = 5,
    memory: Annotated[
        bool, typer.Option("--memory", help="Measure peak memory too, in processes of their own.")
    ] = False,
    data: Data = None,
    settings: Settings = None,
    skip_bad: SkipBad = False,
    compiled: Compile = False,
    device: Device = None,
) -> None:
    """Measure this machine: plain PyTorch, stock fastai, fastcv, and what each part brings."""
    settings = _with_compile(settings, compiled)
    chosen = _chosen(name, data, None, settings, skip_bad)
    from fastcv import files
    from fastcv.bench import bench as measure

    found = measure(chosen, device=device, rounds=rounds, peak_memory=memory, write=typer.echo)
    if json is not None:
        files.write_json(json, found)
        typer.echo(str(json))


@app.command()
def report(
    runs: Annotated[
        list[Path] | None,
        typer.Argument(help="Run directories, or folders that hold some; default: runs."),
    ] = None,
    out: Annotated[Path, typer.Option(help="Folder for report.md and report.html.")] = Path(
        "report"
    ),
    results: Annotated[
        Path | None, typer.Option(help="Folder of saved summaries to report as well.")
    ] = None,
    save_results: Annotated[
        Path | None, typer.Option(help="Only save a summary of every run, as JSON, to this folder.")
    ] = None,
    readme: Annotated[
        bool,
        typer.Option(
            "--readme", help="Only write README.md's table, from recipes/results/ or --results."
        ),
    ] = False,
    wandb: Annotated[
        bool,
        typer.Option(
            "--wandb", help="Make a W&B Report too; published where an API key is configured."
        ),
    ] = False,
) -> None:
    """Compare every experiment with its report: a table, Markdown, and one HTML page."""
    from fastcv.report.command import report as run_report

    run_report(
        runs,
        out=out,
        results=results,
        save_results=save_results,
        readme=readme,
        wandb=wandb,
        write=typer.echo,
    )


@app.command()
def copy(
    name: Annotated[str, typer.Argument(metavar="NAME[/VARIANT]", help="A recipe.")],
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Where your own begins.")],
) -> None:
    """Start your own recipe from a copy of one."""
    source = catalogue.source_file(name.partition("/")[0])
    _, variant = catalogue.find(name)
    if file.suffix != ".py":
        raise ValueError(f"a recipe file must end in .py, got {str(file)!r}")
    if file.exists():
        raise ValueError(f"a copy must not overwrite a file, {str(file)!r} exists: name another")
    if not file.parent.is_dir():
        raise ValueError(f"a copy must go into a folder that exists, {str(file.parent)!r} does not")
    shutil.copyfile(source, file)
    own = f"{file}/{variant}" if variant else f"{file}"
    command = shlex.join(["fastcv", "recipe", own])
    typer.echo(f"{file}: edit it, then run it with: {command}")


@app.command()
def explain(
    run: Annotated[Path, typer.Argument(help="The directory of a finished run.")],
    paths: Annotated[
        list[Path] | None,
        typer.Argument(metavar="[PATH]...", help="Images or folders; default: the run's own."),
    ] = None,
    also: Annotated[
        list[Path] | None, typer.Option(metavar="RUN", help="Show the images to this run, too.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder of the page; default: RUN/explain.")
    ] = None,
    part: Annotated[
        str | None, typer.Option(help="valid or test: the images to explain; default: valid.")
    ] = None,
    data: Annotated[
        Path | None, typer.Option(help="Folder of the run's data; default: its recipe's.")
    ] = None,
    device: Device = None,
    trust: Annotated[
        bool, typer.Option("--trust", help="Run the recipe files that the runs name.")
    ] = False,
) -> None:
    """Explain what a run learned: one HTML page, with its figures beside it."""
    from fastcv.report.explain import explain as explain_run

    explain_run(
        run,
        paths or (),
        also=also or (),
        out=out,
        part=part,
        data=data,
        device=device,
        trust=trust,
        write=typer.echo,
    )


def _chosen(
    name: str,
    data: Path | None,
    seed: int | None,
    settings: list[str] | None,
    skip_bad: bool,
) -> Any:
    """Load a recipe and put the command line's values into it."""
    catalogue.find(name)  # a mistyped name is answered before anything heavy is imported
    chosen = catalogue.get_recipe(name)
    from fastcv.recipe import override

    asked = _asked(data, settings, skip_bad)
    if seed is not None:
        asked.append(f"seed={seed}")
    return override(chosen, *asked)


def _with_compile(settings: list[str] | None, compiled: bool) -> list[str]:
    return [*(settings or []), *(["step.compile=True"] if compiled else [])]


def _asked(data: Path | None, settings: list[str] | None, skip_bad: bool) -> list[str]:
    """The command line's values as settings of a recipe, but for the seed."""
    asked = list(settings or [])
    if data is not None:
        # Absolute, because a stopped run may be resumed from elsewhere.
        asked.append(f"data.path={data.expanduser().resolve()}")
    if skip_bad:
        asked.append("data.skip_bad=True")
    return asked


def _series(
    name: str,
    settings: list[str],
    planned: dict[str, Any],
    ran: dict[str, Any],
    dry_run: bool,
) -> bool:
    """Run a series or list it, and say whether none of it failed."""
    catalogue.find(name)  # a mistyped name is answered before anything heavy is imported
    from fastcv.experiment import series

    jobs = series.plan(name, settings=settings, **planned)
    if dry_run:
        typer.echo(series.listing(jobs))
        return not any(job.failure for job in jobs)
    try:
        jobs = series.run(jobs, settings=settings, write=typer.echo, **ran)
    except series.Stopped as stopped:
        typer.echo(series.table(stopped.jobs, ran["at_once"]))
        raise
    typer.echo(series.table(jobs, ran["at_once"]))
    return not any(job.failure for job in jobs)


def main() -> None:
    """Run the command line: a user's mistake is one sentence and exit code 2."""
    try:
        app(prog_name="fastcv")
    except (ValueError, FloatingPointError) as error:
        if os.environ.get("FASTCV_TRACEBACK"):
            raise
        sys.stderr.write(f"fastcv: {' '.join(str(error).split())}\n")
        sys.exit(2)


if __name__ == "__main__":
    sys.argv[0] = "fastcv"  # a run takes down its command as one that can be given again
    main()
