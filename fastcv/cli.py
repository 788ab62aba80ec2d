"""The command line: it parses, calls and prints. What is slow to import, the commands import."""

import os
import shlex
import shutil
import sys
from itertools import groupby
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from fastcv import __version__, catalogue
from fastcv.suggest import did_you_mean
from fastcv.terminal import aligned, print_table

# What other programs call our commands.
SYNONYMS = {
    "train": "recipe",
    "run": "recipe",
    "fit": "recipe",
    "list": "recipes",
    "ls": "recipes",
    "find": "lr-find",
    "lrfind": "lr-find",
    "continue": "resume",
    "benchmark": "bench",
}


class Commands(TyperGroup):
    """The commands, with a suggestion for a name that is none of them."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Find the command that the arguments begin with.

        Raises:
            ValueError: there is no such command; names the nearest.
        """
        if args[0] not in self.commands and not ctx.resilient_parsing:  # as the shell completes
            known = SYNONYMS.get(args[0])
            hint = did_you_mean(known or args[0], list(self.commands))
            raise ValueError(f"no command is called {args[0]!r}.{hint}")
        return super().resolve_command(ctx, args)


app = typer.Typer(
    cls=Commands,
    help="Image-classification experiments: run a recipe and compare it with its report.",
    no_args_is_help=True,
    rich_markup_mode="markdown",  # paragraphs are wrapped to the terminal's width
    pretty_exceptions_enable=False,
)

Name = typer.Argument(
    metavar="NAME[/VARIANT]",
    help="A recipe, or the path of your own recipe file.",
    autocompletion=catalogue.completions,
)
RecipeName = Annotated[str, Name]
Data = Annotated[
    Path | None,
    typer.Option(
        help="Folder of the data; default: $FASTCV_DATA/NAME, or else fastai's data folder."
    ),
]
Seed = Annotated[
    int | None, typer.Option(help="Seed of the weights, the order of images and augmentation.")
]
Settings = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="Replace a setting; public names are values: `--set optimizer=SGD`, "
        "`--set model.net=LightResNet`, "
        '`--set "data.augment=HorizontalFlip(), RandomCrop(padding=2)"`. --dry-run lists the keys.',
    ),
]
Compile = Annotated[
    bool, typer.Option("--compile", help="Train with torch.compile: short for step.compile=True.")
]
SkipBad = Annotated[bool, typer.Option("--skip-bad", help="Leave unreadable images out.")]
Device = Annotated[
    str | None, typer.Option(help="cpu, cuda, cuda:1 or mps; default: the fastest there is.")
]
Out = Annotated[Path, typer.Option(help="Folder for the runs.")]
Wandb = Annotated[
    str,
    typer.Option(
        help="Weights & Biases: auto, online, offline or off; auto is online if an API key is "
        "configured."
    ),
]
Smoke = Annotated[
    bool,
    typer.Option(
        "--smoke", help="Try it in seconds: toy images, random weights, one epoch a stage."
    ),
]


@app.callback(invoke_without_command=True)
def _options(
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
) -> None:
    if version:
        typer.echo(__version__)
        raise typer.Exit


@app.command()
def recipes(
    pattern: Annotated[
        str | None,
        typer.Argument(
            metavar="[PATTERN]",
            help="Part of a name, or a glob such as '*/one_cycle'; a recipe's name lists its "
            "variants.",
            autocompletion=catalogue.completions,
        ),
    ] = None,
    every: Annotated[bool, typer.Option("--all", help="List every variant too.")] = False,
) -> None:
    """List the recipes, with the number that each one's report claims."""
    found = catalogue.matching("*" if pattern is None else pattern)
    terminal = sys.stdout.isatty()
    families = [list(family) for _, family in groupby(found, lambda entry: entry.family)]
    folded = not every and len(families) > 1 and not any(family[0].variant for family in families)
    rows = []
    for entry in [family[0] for family in families] if folded else found:
        rows.append([entry.name, catalogue.headline(entry, short=terminal), entry.summary])
    if folded:
        for row, (_, *variants) in zip(rows, families, strict=True):
            row.insert(2, f"{len(variants) or ''}" if terminal else f"{len(variants)} variants")
    if not terminal:
        typer.echo("\n".join(aligned(rows)))
        return
    columns = ["recipe", "reported", *["variants"] * folded, "about"]
    print_table(columns, rows, wrap=pattern is not None and not folded)
    if any(row[1].startswith(">") for row in rows):
        typer.echo("\n> a number to beat")
    if folded:
        typer.echo("\nVariants of a recipe: fastcv recipes NAME; of all: fastcv recipes --all")


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
            help="Run the recipe and every variant.",
        ),
    ] = False,
    seeds: Annotated[
        int | None,
        typer.Option(metavar="K", help="Run K seeds, from --seed up."),
    ] = None,
    jobs: Annotated[
        int,
        typer.Option(
            metavar="N",
            help="With --all or --seeds: run N at a time, each in its own process, with a log in "
            "OUT/logs.",
        ),
    ] = 1,
    again: Annotated[
        bool, typer.Option("--again", help="With --all or --seeds: run finished ones again.")
    ] = False,
    device: Device = None,
    out: Out = Path("runs"),
    wandb: Wandb = "auto",
) -> None:
    """Run an experiment and compare it with its report.

    --all and --seeds run a series, and end with a table of means and standard deviations.
    Finished runs with the same seed and settings are skipped; --again reruns them. A failed run is
    reported; the rest continue, and the exit code is 1. A stopped run starts over, unless
    `fastcv resume` finishes it first.
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
        raise ValueError("--jobs and --again need a series: add --all or --seeds K")
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
        str | None, typer.Option(help="cpu, cuda, cuda:1 or mps; default: the device it began on.")
    ] = None,
    trust: Annotated[
        bool,
        typer.Option(
            "--trust",
            help="Run the recipe file that the run names; only for runs whose author you trust.",
        ),
    ] = False,
) -> None:
    """Resume a stopped run after its last finished epoch."""
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
    name: RecipeName = "light_resnet_cifar10/one_cycle",
    json: Annotated[Path | None, typer.Option(help="Also write the numbers to this file.")] = None,
    rounds: Annotated[int, typer.Option(help="Measurements of each contender.")] = 5,
    memory: Annotated[
        bool, typer.Option("--memory", help="Also measure peak memory, in separate processes.")
    ] = False,
    data: Data = None,
    settings: Settings = None,
    skip_bad: SkipBad = False,
    compiled: Compile = False,
    device: Device = None,
) -> None:
    """Measure training speed here: plain PyTorch, stock fastai, fastcv, and fastcv's parts."""
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
        typer.Argument(help="Run directories, or folders of runs; default: runs."),
    ] = None,
    out: Annotated[Path, typer.Option(help="Folder for report.md and report.html.")] = Path(
        "report"
    ),
    results: Annotated[
        Path | None, typer.Option(help="Folder of saved summaries to include.")
    ] = None,
    save_results: Annotated[
        Path | None, typer.Option(help="Only save a JSON summary of each run to this folder.")
    ] = None,
    readme: Annotated[
        bool,
        typer.Option(
            "--readme", help="Only update README.md's table, from recipes/results/ or --results."
        ),
    ] = False,
    wandb: Annotated[
        bool,
        typer.Option(
            "--wandb", help="Also make a W&B Report; published if an API key is configured."
        ),
    ] = False,
) -> None:
    """Compare every experiment with its report: a table, Markdown, and an HTML page."""
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
    name: RecipeName,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Your new file, ending in .py.")],
) -> None:
    """Copy a recipe to a file, to start your own from it."""
    source = catalogue.source_file(name.partition("/")[0])
    _, variant = catalogue.find(name)
    if file.suffix != ".py":
        raise ValueError(f"a recipe file must end in .py, got {str(file)!r}")
    if file.exists():
        raise ValueError(f"a copy must not overwrite a file, {str(file)!r} exists: choose another")
    if not file.parent.is_dir():
        raise ValueError(f"a copy must go into a folder that exists, {str(file.parent)!r} does not")
    shutil.copyfile(source, file)
    own = f"{file}/{variant}" if variant else f"{file}"
    command = shlex.join(["fastcv", "recipe", own])
    typer.echo(f"{file}: edit it, then run it with: {command}")


def _chosen(
    name: str,
    data: Path | None,
    seed: int | None,
    settings: list[str] | None,
    skip_bad: bool,
) -> Any:
    """Load a recipe and apply the command line's settings."""
    catalogue.find(name)  # a mistyped name is refused before torch is imported
    chosen = catalogue.get_recipe(name)
    from fastcv.recipe import override

    asked = _asked(data, settings, skip_bad)
    if seed is not None:
        asked.append(f"seed={seed}")
    return override(chosen, *asked)


def _with_compile(settings: list[str] | None, compiled: bool) -> list[str]:
    return [*(settings or []), *(["step.compile=True"] if compiled else [])]


def _asked(data: Path | None, settings: list[str] | None, skip_bad: bool) -> list[str]:
    """Write the command line's values as settings of a recipe, the seed aside."""
    asked = list(settings or [])
    if data is not None:
        # Absolute, because a stopped run may be resumed from another folder.
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
    """Run a series or list it; return whether no run failed."""
    catalogue.find(name)  # a mistyped name is refused before torch is imported
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
    """Run the command line; a user's mistake prints one sentence and exits with 2."""
    try:
        app(prog_name="fastcv")
    except (ValueError, FloatingPointError) as error:
        if os.environ.get("FASTCV_TRACEBACK"):
            raise
        sys.stderr.write(f"fastcv: {' '.join(str(error).split())}\n")
        sys.exit(2)


if __name__ == "__main__":
    sys.argv[0] = "fastcv"  # a run records its command in a form that can be repeated
    main()
