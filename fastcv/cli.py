"""The command line: it parses, calls and prints. What is slow to import, the commands import."""

import os
import shlex
import shutil
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import groupby
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer
from typer import Argument, Option, echo
from typer.core import TyperGroup

from fastcv import __version__, catalogue, files, interruption, ranks
from fastcv.suggest import did_you_mean
from fastcv.terminal import Bar, aligned, print_table

# What several ranks, as torchrun starts them, can do together.
TOGETHER = ("recipe", "resume")
# What other programs call our commands.
SYNONYMS = {
    "recipe": ("train", "run", "fit"),
    "recipes": ("list", "ls"),
    "lr-find": ("find", "lrfind"),
    "resume": ("continue",),
    "bench": ("benchmark",),
    "data": ("inspect", "dataset"),
    "sweep": ("search", "tune", "hpo"),
}


class Commands(TyperGroup):
    """The commands, with a suggestion for a name that is none of them."""

    def invoke(self, ctx: Any) -> Any:
        """Run a command; a signal, and an output that nobody reads, end it with a code of its own.

        typer alone would end all of them with 1 or 130.
        """
        try:
            result = super().invoke(ctx)
            sys.stdout.flush()  # Python would do it too late to handle an error
        except (interruption.Interrupted, interruption.Checkpointed) as error:
            ctx.exit(error.code)
        except BrokenPipeError:  # as of `fastcv report | head`
            _close_stdout()
            ctx.exit(128 + getattr(signal, "SIGPIPE", 13))
        return result

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Find the command that the arguments begin with.

        Raises:
            ValueError: there is no such command; names the nearest.
        """
        if args[0] not in self.commands and not ctx.resilient_parsing:  # else the shell completes
            known = [name for name, synonyms in SYNONYMS.items() if args[0] in synonyms]
            hint = did_you_mean([*known, args[0]][0], list(self.commands))
            raise ValueError(f"no command is called {args[0]!r}.{hint}")
        return super().resolve_command(ctx, args)


app = typer.Typer(
    cls=Commands,
    help="Image-classification experiments: run a recipe and compare it with its report.",
    no_args_is_help=True,
    rich_markup_mode="markdown",  # paragraphs are wrapped to the terminal's width
    pretty_exceptions_enable=False,
)

RecipeName = Annotated[
    str,
    Argument(
        metavar="NAME[/VARIANT]",
        help="A recipe, or the path of your own recipe file.",
        autocompletion=catalogue.completions,
    ),
]
Data = Annotated[
    Path | None,
    Option(help="Folder of the data; default: $FASTCV_DATA/NAME, or else fastai's data folder."),
]
Trust = Annotated[
    bool,
    Option(
        "--trust",
        help="Run the recipe file that the run names; only for runs whose author you trust.",
    ),
]
FinishedRun = Annotated[Path, Argument(metavar="RUN", help="The directory of a finished run.")]
Seed = Annotated[
    int | None, Option(help="Seed of the weights, the order of images and augmentation.")
]
Settings = Annotated[
    list[str] | None,
    Option(
        "--set",
        metavar="KEY=VALUE",
        help="Replace a setting; public names are values: `--set optimizer=SGD`, "
        "`--set model.net=LightResNet`, "
        '`--set "data.augment=HorizontalFlip(), RandomCrop(padding=2)"`. --dry-run lists the keys.',
    ),
]
Compile = Annotated[
    bool, Option("--compile", help="Train with torch.compile: short for step.compile=True.")
]
SkipBad = Annotated[bool, Option("--skip-bad", help="Leave unreadable images out.")]
Device = Annotated[
    str | None, Option(help="cpu, cuda, cuda:1 or mps; default: the fastest there is.")
]
Out = Annotated[Path, Option(help="Folder for the runs.")]
Threads = Annotated[
    int | None,
    Option(
        metavar="N",
        help="Threads of the processor; they decide the last bits of the results. Default: those "
        "that a resumed run began with, or else all cores.",
    ),
]
CheckpointEvery = Annotated[
    float, Option(metavar="MINUTES", help="Also write last.ckpt this often within an epoch.")
]
Wandb = Annotated[
    str,
    Option(
        help="Weights & Biases: auto, online, offline or off; auto is online if an API key is "
        "configured."
    ),
]
Devices = Annotated[
    str | None,
    Option(
        metavar="A,B",
        help="A device for each job that runs at the same time, such as cuda:0,cuda:1.",
    ),
]
Jobs = Annotated[
    int | None,
    Option(
        metavar="N",
        help="Run N at a time, each in its own process, with a log in OUT/logs; default: one on "
        "each of --devices.",
    ),
]
KeepCheckpoint = Annotated[
    bool, Option("--keep-checkpoint", help="Keep last.ckpt of a finished run.")
]
Smoke = Annotated[
    bool,
    Option("--smoke", help="Try it in seconds: toy images, random weights, one epoch a stage."),
]


@app.callback(invoke_without_command=True)
def _options(
    context: typer.Context,
    version: Annotated[bool, Option("--version", help="Print the version.")] = False,
) -> None:
    if version:
        echo(__version__)
        raise typer.Exit
    if ranks.asked() > 1 and context.invoked_subcommand not in TOGETHER:
        raise ValueError(
            f"several ranks can run {' and '.join(TOGETHER)} together, got "
            f"{context.invoked_subcommand}: start it without torchrun"
        )


@app.command()
def recipes(
    pattern: Annotated[
        str | None,
        Argument(
            metavar="[PATTERN]",
            help="Part of a name, or a glob such as '*/one_cycle'; a recipe's name lists its "
            "variants.",
            autocompletion=catalogue.completions,
        ),
    ] = None,
    every: Annotated[bool, Option("--all", help="List every variant too.")] = False,
) -> None:
    """List the recipes, with the number that each one's report claims."""
    found = catalogue.matching("*" if pattern is None else pattern)
    terminal = sys.stdout.isatty()
    families = [list(family) for _, family in groupby(found, lambda entry: entry.family)]
    folded = not every and len(families) > 1 and not any(family[0].variant for family in families)
    rows = []
    for entry, *variants in families if folded else [[entry] for entry in found]:
        rows.append([entry.name, catalogue.headline(entry, short=terminal), entry.summary])
        if folded:
            count = f"{len(variants) or ''}" if terminal else f"variants: {len(variants)}"
            rows[-1].insert(2, count)
    if not terminal:
        echo("\n".join(aligned(rows)))
        return
    columns = ["recipe", "reported", *["variants"] * folded, "about"]
    print_table(columns, rows, wrap=pattern is not None and not folded)
    if any(row[1].startswith(">") for row in rows):
        echo("\n> a number to beat")
    if folded:
        echo("\nVariants of a recipe: fastcv recipes NAME; of all: fastcv recipes --all")


@app.command("data")
def data_(
    path: Annotated[
        Path,
        Argument(metavar="PATH", help="Folder of class folders, or of train, valid and test."),
    ],
    out: Annotated[
        Path | None, Option(help="Folder of the page; default: inspection/NAME.")
    ] = None,
    json: Annotated[bool, Option("--json", help="Print one JSON object instead of text.")] = False,
    show: Annotated[bool, Option("--open", help="Open the page in a browser.")] = False,
) -> None:
    """Look at a folder of images before training: counts, sizes, faults, copies and leaks.

    Prints what is there, and writes one page with pictures, data.html. Images that are equal or
    similar are shown side by side: across splits they leak, under two classes a label is wrong.
    """
    from fastcv.report.data_page import inspect_folder

    inspect_folder(
        path,
        out=out,
        as_json=json,
        show=show,
        write=echo,
        tell=lambda line: echo(line, err=json),
    )


@app.command()
def recipe(
    name: RecipeName,
    data: Data = None,
    seed: Seed = None,
    settings: Settings = None,
    skip_bad: SkipBad = False,
    smoke: Smoke = False,
    dry_run: Annotated[
        bool, Option("--dry-run", help="Print every setting and run nothing.")
    ] = False,
    compiled: Compile = False,
    every: Annotated[bool, Option("--all", help="Run every variant too.")] = False,
    seeds: Annotated[int | None, Option(metavar="K", help="Run K seeds, from --seed up.")] = None,
    folds: Annotated[
        int | None,
        Option(
            metavar="K",
            help="Cross-validate: cut the images into K stratified folds, and run once for each, "
            "which then validates.",
        ),
    ] = None,
    jobs: Jobs = None,
    devices: Devices = None,
    again: Annotated[bool, Option("--again", help="In a series: run finished ones again.")] = False,
    keep_checkpoint: KeepCheckpoint = False,
    checkpoint_every: CheckpointEvery = 10.0,
    threads: Threads = None,
    device: Device = None,
    out: Out = Path("runs"),
    wandb: Wandb = "auto",
) -> None:
    """Run an experiment and compare it with its report.

    --all, --seeds and --folds run a series, and end with a table of means and standard deviations.
    Finished runs with the same seed and settings are skipped; --again reruns them. A failed run is
    reported; the rest continue, and the exit code is 1. Stopped and killed runs go on from their
    last checkpoint.

    SIGUSR1, which Slurm sends before a job's time is over, makes a checkpoint and exits with 85.
    """
    settings = _settings(settings, data, skip_bad, compiled)
    if every or seeds is not None or folds is not None:
        if ranks.asked() > 1:
            raise ValueError(
                f"a series must be run by one process, got {ranks.asked()} ranks: start it without "
                "torchrun and share the cores or GPUs by --jobs, or one seed at a time with it"
            )
        catalogue.find(name)  # a mistyped name is refused before torch is imported
        from fastcv.experiment import series

        planned = series.plan(
            name,
            settings=settings,
            every=every,
            seeds=1 if seeds is None else seeds,
            seed=seed,
            folds=folds,
            out=out,
            again=again,
            smoke=smoke,
        )
        if dry_run:
            echo(series.listing(planned))
        else:
            ran = {"out": out, "wandb": wandb, "device": device, "devices": _split(devices)}
            ran |= {"threads": threads, "checkpoint_every": checkpoint_every, "at_once": jobs}
            together = jobs or len(_split(devices))
            try:
                planned = series.run(planned, write=echo, **ran)
            except series.Stopped as stopped:
                echo(series.table(stopped.jobs, together))
                raise stopped.reason from None
            echo(series.table(planned, together))
            for line in series.join_folds(planned):
                echo(line)
        if any(job.failure for job in planned):
            raise typer.Exit(1)
        return
    if jobs is not None or devices is not None or again:
        raise ValueError(
            "--jobs, --devices and --again need a series: add --all, --seeds K or --folds K"
        )
    chosen = _chosen(name, settings, seed)
    if dry_run:
        from fastcv.recipe import flat

        if ranks.own() > 0:
            return
        echo("\n".join(f"{key}={value}" for key, value in flat(chosen).items()))
        return
    with _loading():
        from fastcv.experiment.train import train

    train(
        chosen,
        out=out,
        wandb=wandb,
        device=device,
        smoke=smoke,
        keep_checkpoint=keep_checkpoint,
        checkpoint_every=checkpoint_every,
        threads=threads,
    )


@app.command()
def resume(
    run: Annotated[Path, Argument(help="The directory of a stopped run.")],
    device: Annotated[
        str | None, Option(help="cpu, cuda, cuda:1 or mps; default: the device it began on.")
    ] = None,
    keep_checkpoint: KeepCheckpoint = False,
    checkpoint_every: CheckpointEvery = 10.0,
    threads: Threads = None,
    trust: Trust = False,
) -> None:
    """Resume a stopped run after its last checkpoint."""
    with _loading():
        from fastcv.experiment.train import resume as resume_run

    resume_run(
        run,
        device=device,
        trust=trust,
        keep_checkpoint=keep_checkpoint,
        checkpoint_every=checkpoint_every,
        threads=threads,
    )


@app.command()
def sweep(
    name: RecipeName,
    search: Annotated[
        list[str],
        Argument(
            metavar="KEY=RANGE...",
            help="What to search: KEY=LOW..HIGH, KEY=LOW..HIGH:log or KEY=A,B,C; "
            "variant=A,B,C chooses among a recipe's variants.",
        ),
    ],
    trials: Annotated[
        int | None,
        Option(
            metavar="N",
            help="Trials of all processes together; default: every combination of a grid, else 20.",
        ),
    ] = None,
    minutes: Annotated[
        float | None, Option(metavar="M", help="Begin no trial after M minutes.")
    ] = None,
    grid: Annotated[bool, Option("--grid", help="Try every combination.")] = False,
    monitor: Annotated[
        str | None,
        Option(
            metavar="COLUMN",
            help="The column of metrics.csv to compare by; default: the recipe's own metric, else "
            "valid_accuracy.",
        ),
    ] = None,
    prune: Annotated[
        str | None,
        Option(
            help="median: end a trial after an epoch in which it is worse than the median of the "
            "others; none: end none. Default: median, and none for a grid.",
        ),
    ] = None,
    storage: Annotated[
        str | None,
        Option(
            metavar="URL",
            help="postgresql://HOST/NAME keeps the sweep for many machines; default: a journal "
            "file in its folder.",
        ),
    ] = None,
    title: Annotated[
        str | None, Option("--name", help="Name of the sweep; default: the recipe's.")
    ] = None,
    on_test: Annotated[
        bool,
        Option(
            "--on-test",
            help="Choose on the test images of a recipe that validates on them, as its report did.",
        ),
    ] = False,
    data: Data = None,
    seed: Seed = None,
    settings: Settings = None,
    skip_bad: SkipBad = False,
    smoke: Smoke = False,
    compiled: Compile = False,
    jobs: Jobs = None,
    devices: Devices = None,
    checkpoint_every: CheckpointEvery = 10.0,
    threads: Threads = None,
    device: Device = None,
    out: Out = Path("runs"),
    wandb: Wandb = "auto",
) -> None:
    """Search a recipe's settings by many trials, and print the best ones.

    Every trial is a run in OUT/sweeps/NAME. The same command goes on with a sweep that was stopped
    or killed, also within a trial, and in several shells or on several machines works on one.
    """
    catalogue.find(name)  # a mistyped name is refused before torch is imported
    with _loading():
        from fastcv.experiment.sweep import sweep as run_sweep

    found = run_sweep(
        name,
        search,
        settings=_settings(settings, data, skip_bad, compiled),
        seed=seed,
        trials=trials,
        minutes=minutes,
        grid=grid,
        monitor=monitor,
        prune=prune,
        on_test=on_test,
        name=title,
        storage=storage,
        smoke=smoke,
        out=out,
        wandb=wandb,
        device=device,
        devices=_split(devices),
        at_once=jobs,
        threads=threads,
        checkpoint_every=checkpoint_every,
        write=echo,
    )
    if any(trial.state == "failed" for trial in found.trials):
        raise typer.Exit(1)


@app.command("lr-find")
def lr_find(
    name: RecipeName,
    data: Data = None,
    seed: Seed = None,
    settings: Settings = None,
    skip_bad: SkipBad = False,
    smoke: Smoke = False,
    device: Device = None,
    out: Annotated[Path, Option(help="Folder for lr_find.png and lr_find.csv.")] = Path("."),
) -> None:
    """Plot the loss against the learning rate, with suggestions."""
    chosen = _chosen(name, _settings(settings, data, skip_bad), seed)
    with _loading():
        from fastcv.experiment.lr_find import find_learning_rate

    find_learning_rate(chosen, out=out, device=device, smoke=smoke, write=echo)


@app.command()
def bench(
    name: RecipeName = "light_resnet_cifar10/one_cycle",
    json: Annotated[Path | None, Option(help="Also write the numbers to this file.")] = None,
    rounds: Annotated[int, Option(help="Measurements of each contender.")] = 5,
    memory: Annotated[
        bool, Option("--memory", help="Also measure peak memory, in separate processes.")
    ] = False,
    data: Data = None,
    settings: Settings = None,
    skip_bad: SkipBad = False,
    compiled: Compile = False,
    device: Device = None,
) -> None:
    """Measure training speed here: plain PyTorch, stock fastai, fastcv, and fastcv's parts."""
    chosen = _chosen(name, _settings(settings, data, skip_bad, compiled))
    if json is not None:
        files.make_way(json, "the numbers")
    with _loading():
        from fastcv.bench import bench as measure

    found = measure(chosen, device=device, rounds=rounds, peak_memory=memory, write=echo)
    if json is not None:
        files.write_json(json, found)
        echo(str(json))


@app.command()
def report(
    runs: Annotated[
        list[Path] | None, Argument(help="Run directories, or folders of runs; default: runs.")
    ] = None,
    out: Annotated[Path, Option(help="Folder for report.md and report.html.")] = Path("report"),
    results: Annotated[Path | None, Option(help="Folder of saved summaries to include.")] = None,
    save_results: Annotated[
        Path | None, Option(help="Only save a JSON summary of each run to this folder.")
    ] = None,
    readme: Annotated[
        bool,
        Option(
            "--readme", help="Only update README.md's table, from recipes/results/ or --results."
        ),
    ] = False,
    wandb: Annotated[
        bool,
        Option("--wandb", help="Also make a W&B Report; published if an API key is configured."),
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
        write=echo,
    )


@app.command()
def models(
    pattern: Annotated[
        str | None,
        Argument(
            metavar="[PATTERN]",
            help="Part of a name, or a glob such as 'convnext*in12k*'; without it, torchvision's "
            "are listed.",
        ),
    ] = None,
) -> None:
    """List nets with pretrained weights: parameters, image size, license, whether they are here."""
    from fastcv.learning.available import available, has_timm
    from fastcv.learning.backbones import TIMM

    found = available(pattern)
    columns = ["net", "weights", "parameters", "pixels", "license", "here"]
    rows = [
        [
            each.arch if each.library == "torchvision" else f'"{each.arch}"',
            each.weights if each.library == "torchvision" else "timm",
            f"{each.parameters:,}" if each.parameters else "-",
            str(each.size),
            each.origin.license or "-",
            "yes" if each.here else "",
        ]
        for each in found
    ]
    if sys.stdout.isatty():
        print_table(columns, rows)
    else:
        echo("\n".join(aligned([columns, *rows])))
    if not has_timm():
        echo(f"\nover a thousand more: {TIMM}", err=True)
    elif pattern is None:
        echo("\ntimm has over a thousand more: fastcv models PATTERN", err=True)


@app.command()
def copy(
    name: RecipeName,
    file: Annotated[Path, Argument(metavar="FILE", help="Your new file, ending in .py.")],
) -> None:
    """Copy a recipe to a file, to start your own from it."""
    source, variant = catalogue.find(name)
    _refuse_target(file)
    shutil.copyfile(source, file)
    own = f"{file}/{variant}" if variant else f"{file}"
    command = shlex.join(["fastcv", "recipe", own])
    echo(f"{file}: edit it, then run it with: {command}")


@app.command()
def new(
    file: Annotated[Path, Argument(metavar="FILE", help="Your new file, ending in .py.")],
    data: Annotated[
        Path, Option(metavar="PHOTOS", help="Your photos: a folder with one subfolder per class.")
    ],
) -> None:
    """Write a short recipe for your own photos, to start from."""
    _refuse_target(file)
    from fastcv.experiment.starter import write_starter

    echo(f"{data}: {write_starter(file, data)}")
    command = shlex.join(["fastcv", "recipe", str(file)])
    echo(f"{file}: edit it, then run it with: {command}")


@app.command()
def cache(
    folder: Annotated[
        Path | None,
        Argument(
            metavar="[PATH]",
            help="Folder of one or more data sets; default: the current one, $FASTCV_DATA and "
            "fastai's data folder.",
        ),
    ] = None,
    clear: Annotated[bool, Option("--clear", help="Remove the files instead.")] = False,
) -> None:
    """List the files of decoded images that lie beside data sets, or remove them."""
    from fastcv.data.cache_files import cache as list_or_clear

    list_or_clear(folder, clear=clear, write=echo)


@app.command()
def predict(
    run: FinishedRun,
    paths: Annotated[
        list[Path],
        Argument(metavar="PATH...", help="Images and folders; - reads images' paths, one a line."),
    ],
    top: Annotated[int, Option(help="Likeliest classes to name of each image.")] = 1,
    csv: Annotated[Path | None, Option(help="Write a table to this file.")] = None,
    json: Annotated[bool, Option("--json", help="Print one JSON object per image.")] = False,
    batch_size: Annotated[int, Option(help="Images computed at a time.")] = 32,
    device: Device = None,
    trust: Trust = False,
) -> None:
    """Predict images with a trained net; the exit code is 1 if some cannot be read."""
    with _loading("PyTorch"):
        from fastcv.experiment.trained import load
        from fastcv.predict.writing import paths_of, predict_files

        predictor = load(run, device=device, trust=trust)

    unreadable = predict_files(
        predictor,
        paths_of(sys.stdin) if paths == [Path("-")] else paths,
        top=top,
        table=csv,
        as_json=json,
        batch_size=batch_size,
        write=echo,
        warn=lambda line: echo(line, err=True),
    )
    if csv is not None:
        echo(str(csv))
    if unreadable:
        raise typer.Exit(1)


@app.command()
def validate(
    run: FinishedRun,
    data: Annotated[
        Path | None, Option(help="Judge it on this folder of class folders instead.")
    ] = None,
    part: Annotated[
        str | None,
        Option("--split", help="valid, test or folds; default: test if there is one."),
    ] = None,
    tta: Annotated[bool, Option("--tta", help="Average over mirrored images.")] = False,
    calibrate: Annotated[
        bool,
        Option("--calibrate", help="Fit a temperature on the validation images, and keep it."),
    ] = False,
    out: Annotated[
        Path | None, Option(help="Folder of the tables and figures; default: in RUN.")
    ] = None,
    device: Device = None,
    trust: Trust = False,
) -> None:
    """Judge a trained net: accuracy with its interval, calibration, a table of classes."""
    with _loading():
        from fastcv.experiment.judge import validate as validate_run

    validate_run(
        run,
        data=data,
        part=part,
        tta=tta,
        calibrate=calibrate,
        device=device,
        out=out,
        trust=trust,
        write=echo,
    )


@app.command()
def compare(
    first: FinishedRun,
    second: FinishedRun,
    part: Annotated[
        str | None,
        Option(
            "--split",
            help="valid, test or folds; default: test if both have it, else what both have.",
        ),
    ] = None,
    out: Annotated[
        Path | None, Option(help="The page; default: compare.html in the second run.")
    ] = None,
    trust: Trust = False,
) -> None:
    """Compare two trained nets on the same images: difference, McNemar's test, a page."""
    with _loading():
        from fastcv.report.compare import compare_runs

    compare_runs(first, second, part=part, out=out, trust=trust, write=echo)


@app.command()
def serve(
    run: FinishedRun,
    host: Annotated[
        str, Option(help="Address to listen on; 0.0.0.0 lets other machines in.")
    ] = "127.0.0.1",
    port: Annotated[int, Option(help="Port to listen on.")] = 7860,
    device: Device = None,
    trust: Trust = False,
) -> None:
    """Serve a page to drop images on, and POST /predict for programs."""
    with _loading():
        from fastcv.experiment.trained import load
        from fastcv.predict.serve import serve as serve_page
        from fastcv.report.explain import Net

    predictor = load(run, device=device, trust=trust)
    echo(f"http://{host}:{port}")
    look = Net(name=predictor.model.name, predictor=predictor).look
    serve_page(predictor, look=look, host=host, port=port)


@app.command()
def export(
    run: Annotated[
        Path, Argument(metavar="RUN", help="A run directory, or a folder with its model.json.")
    ],
    to: Annotated[str, Option(help="onnx or pt2 (torch.export).")] = "onnx",
    int8: Annotated[
        bool, Option("--int8", help="Write model.int8.onnx too, and measure its accuracy.")
    ] = False,
    out: Annotated[Path | None, Option(help="Folder of the files; default: RUN/export.")] = None,
    images: Annotated[
        Path | None, Option(help="Compare on the images of this folder, not the run's.")
    ] = None,
    trust: Trust = False,
) -> None:
    """Export a trained net as one file: bytes in, probabilities out, checked against torch."""
    with _loading():
        from fastcv.experiment.export import export as run_export

    run_export(run, to=to, int8=int8, out=out, images=images, trust=trust, write=echo)


@app.command()
def share(
    run: FinishedRun,
    repository: Annotated[str, Argument(metavar="USER/NAME", help="On the Hub.")],
    license: Annotated[
        str, Option(help="Its identifier on the Hub, such as apache-2.0.")
    ] = "unknown",
    card: Annotated[
        Path | None, Option(help="Push this model card; default: one made from the run.")
    ] = None,
    private: Annotated[bool, Option("--private", help="Keep a new repository private.")] = False,
    trust: Trust = False,
) -> None:
    """Push a trained net, its ONNX file and its model card to the Hugging Face Hub."""
    with _loading():
        from fastcv.experiment.share import share as run_share

    run_share(
        run,
        repository,
        license=license,
        card_file=card,
        private=private,
        trust=trust,
        write=echo,
    )


@app.command()
def explain(
    run: FinishedRun,
    paths: Annotated[
        list[Path] | None,
        Argument(metavar="[PATH]...", help="Images or folders; default: the run's own."),
    ] = None,
    also: Annotated[
        list[Path] | None, Option(metavar="RUN", help="Show the images to this run, too.")
    ] = None,
    out: Annotated[Path | None, Option(help="Folder of the page; default: RUN/explain.")] = None,
    part: Annotated[
        str | None,
        Option(
            "--split",
            help="The images to explain: valid, test, or folds, all of a cross-validation that RUN "
            "is a fold of; default: valid.",
        ),
    ] = None,
    data: Annotated[
        Path | None, Option(help="Folder of the run's data; default: its recipe's.")
    ] = None,
    wandb: Annotated[
        str | None,
        Option(
            help="Weights & Biases: auto, online, offline or off; default: as the run was tracked."
        ),
    ] = None,
    device: Device = None,
    trust: Trust = False,
) -> None:
    """Explain what a run learned: one HTML page, with its figures beside it."""
    with _loading():
        from fastcv.report.explain import explain as explain_run

    explain_run(
        run,
        paths or (),
        also=also or (),
        out=out,
        part=part,
        data=data,
        wandb=wandb,
        device=device,
        trust=trust,
        write=echo,
    )


def _split(devices: str | None) -> list[str]:
    """Return the devices of a list with commas."""
    return [each.strip() for each in (devices or "").split(",") if each.strip()]


def _refuse_target(file: Path) -> None:
    """Raise a ValueError if a new recipe cannot be written to `file`."""
    if file.suffix != ".py":
        raise ValueError(f"a recipe file must end in .py, got {str(file)!r}")
    if file.exists():
        raise ValueError(
            f"a new recipe must not overwrite a file, {str(file)!r} exists: choose another name"
        )
    if not file.parent.is_dir():
        raise ValueError(
            f"a recipe must go into a folder that exists, {str(file.parent)!r} does not"
        )


def _chosen(name: str, settings: list[str], seed: int | None = None) -> Any:
    """Load a recipe and apply settings to it."""
    with _loading():
        chosen = catalogue.get_recipe(name)
        from fastcv.recipe import override

        return override(chosen, *settings, *([] if seed is None else [f"seed={seed}"]))


@contextmanager
def _loading(what: str = "PyTorch and fastai") -> Iterator[None]:
    """Show on a terminal why nothing happens yet: these imports take seconds."""
    bar = Bar(sys.stderr)
    if bar.live:
        bar.draw(f"loading {what}")
    try:
        yield
    finally:
        bar.erase()


def _settings(
    settings: list[str] | None, data: Path | None, skip_bad: bool, compiled: bool = False
) -> list[str]:
    """Add the options that are short for a setting to those of --set."""
    found = list(settings or [])
    if compiled:
        found.append("step.compile=True")
    if data is not None:
        # Absolute, because a stopped run may be resumed from another folder.
        found.append(f"data.path={os.path.realpath(os.path.expanduser(data))}")
    if skip_bad:
        found.append("data.skip_bad=True")
    return found


def main() -> None:
    """Run the command line.

    Exit codes: 0, done; 1, some of what was asked for failed; 2, a mistake that a user can mend, in
    one sentence; 85, a signal asked for a checkpoint, and it was written; 128 + a signal's number,
    stopped by it.
    """
    try:
        with interruption.handled():
            app(prog_name="fastcv")
    except OSError as error:
        if error.errno not in files.NO_ROOM or os.environ.get("FASTCV_TRACEBACK"):
            raise
        _close_stdout()
        _refuse(f"{error.filename or 'the output'} cannot be written: {error.strerror}")
    except (ValueError, FloatingPointError) as error:
        ranks.leave_to_first()
        if os.environ.get("FASTCV_TRACEBACK"):
            raise
        _refuse(f"rank {ranks.own()}: {error}" if ranks.own() else str(error))


def _refuse(sentence: str) -> NoReturn:
    sys.stderr.write(f"fastcv: {' '.join(sentence.split())}\n")
    sys.exit(2)


def _close_stdout() -> None:
    """Let Python, when it exits, flush what nobody takes to nowhere."""
    with suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


if __name__ == "__main__":
    sys.argv[0] = "fastcv"  # a run records its command in a form that can be repeated
    main()
