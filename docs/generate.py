"""What the site generates while it is built: a hook of mkdocs.

A page asks for it by a comment, which a code host does not show: `<!-- draws: MixUp() -->`. The
functions of `MAKERS` are what it can ask for.

Nothing of it is kept in the repository, so that nothing of it can be out of date.
"""

import html
import inspect
import io
import json
import math
import os
import re
import statistics
import sys
import tomllib
import typing
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from itertools import cycle, groupby
from pathlib import Path
from types import NoneType
from typing import Any

ROOT = Path(__file__).parent.parent
# Files of the root that are pages of the site too.
ROOT_PAGES = ("CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md")
LINK = re.compile(r"\[([^\]]*)\]\(([^)#:\s]+)(#[^)\s]*)?\)")
MARK = re.compile(r"^<!-- (\w+)(?:: (.+?))? -->$", flags=re.MULTILINE)
DRAWS = 8
SIDE = 128  # pixels of a draw
STEPS = 20  # drawn of each epoch of a stage


def on_files(files: Any, config: Any) -> Any:
    """Add the pages that lie in the root."""
    from mkdocs.structure.files import File

    for name in ROOT_PAGES:
        text = (ROOT / name).read_text(encoding="utf-8").replace("](docs/", "](")
        for other in ROOT_PAGES:
            text = text.replace(f"]({other}", f"]({other.lower()}")
        files.append(File.generated(config, name.lower(), content=text))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Any) -> str:
    """Complete a page: its links, and what it asks for."""
    from mkdocs.structure.files import File

    def image(name: str, content: bytes) -> str:
        """Add a file beside the page, and return its address on it."""
        folder = Path(page.file.src_uri).parent / "generated"
        files.append(File.generated(config, (folder / name).as_posix(), content=content))
        return f"generated/{name}"

    def made(mark: re.Match) -> str:
        make = MAKERS.get(mark[1])
        return mark[0] if make is None else f"\n{make(mark[2] or '', image)}\n"

    if "<!-- results: " in markdown:
        page.meta["hide"] = ["toc"]  # its tables need the width
    return MARK.sub(made, inside(markdown, page.file.src_uri))


def inside(markdown: str, uri: str) -> str:
    """Point links that leave docs/ to a page of the site, or leave only their text."""
    folder = (ROOT / "docs" / uri).parent

    def linked(found: re.Match) -> str:
        text, target, anchor = found[1], found[2], found[3] or ""
        place = os.path.relpath(os.path.normpath(folder / target), ROOT)
        if place in ROOT_PAGES:
            there = os.path.relpath(ROOT / "docs" / place.lower(), folder)
            return f"[{text}]({there}{anchor})"
        return found[0] if place.startswith("docs/") else text

    return LINK.sub(linked, markdown)


def on_page_content(html: str, page: Any, config: Any, files: Any) -> str:
    """Mark the options in code, which must not be broken after their hyphens."""
    return re.sub(
        r"<code>[^<]*</code>",
        lambda code: re.sub(r"--[a-z][a-z-]*", r'<span class="option">\g<0></span>', code[0]),
        html,
    )


def commands(_: str, image: Callable) -> str:
    """Describe every command: what it does, how it is called, its arguments and options."""
    from typer.main import get_command

    from fastcv.cli import app

    return "\n\n".join(
        _command(name, command) for name, command in get_command(app).commands.items()
    )


def _command(name: str, command: Any) -> str:
    shown = [each for each in command.params if each.name != "help" and not each.hidden]
    types = typing.get_type_hints(inspect.unwrap(command.callback))
    arguments = [each for each in shown if each.param_type_name == "argument"]
    call = " ".join(["fastcv", name, *(_metavar(each) for each in arguments), "[OPTIONS]"])
    rows = "\n".join(
        f"| {_words(each, _kind(types[each.name]))} | {_cell(each.help or '')}{_default(each)} |"
        for each in shown
    )
    described = " ".join(command.help.split("\n\n")[0].split())
    rest = command.help.split("\n\n")[1:]
    return (
        f"## fastcv {name} {{ #{name} }}\n\n{described}\n\n```text\n{call}\n```\n\n"
        + "".join(f"{_as_code(each)}\n\n" for each in rest)
        + (f"| argument or option | what it does |\n| --- | --- |\n{rows}" if rows else "")
    )


def _metavar(parameter: Any) -> str:
    found = parameter.metavar or parameter.name.upper()
    return found if parameter.required or found.startswith("[") else f"[{found}]"


def _words(parameter: Any, kind: str) -> str:
    if parameter.param_type_name == "argument":
        return f"`{_metavar(parameter)}`"
    names = ", ".join(f"`{each}`" for each in parameter.opts)
    if parameter.is_flag:
        return names
    return f"{names} `{parameter.metavar or kind}`"


def _kind(annotation: Any) -> str:
    """Return what `--help` writes for a value of a type."""
    while options := typing.get_args(annotation):
        (annotation,) = [each for each in options if each is not NoneType]
    return {Path: "PATH", int: "INTEGER", float: "FLOAT"}.get(annotation, "TEXT")


def _default(parameter: Any) -> str:
    value = parameter.default
    says = "default" in (parameter.help or "").lower()
    if value in (None, False, ()) or callable(value) or says or parameter.required:
        return ""
    return f" Default: `{value}`."


def _cell(text: str) -> str:
    return _as_code(text).replace("|", "\\|").replace("<", "&lt;")


def _as_code(text: str) -> str:
    """Set options and variables as code where the terminal's help has them as plain text."""
    parts = text.split("`")  # every second part is code already
    parts[::2] = [re.sub(r"(--[a-z-]+|\$[A-Z_/]+)", r"`\1`", each) for each in parts[::2]]
    return "`".join(parts)


def draws(expression: str, image: Callable) -> str:
    """Draw an augmentation eight times on a photo that comes with scikit-learn."""
    import torch
    from PIL import Image

    import fastcv.augment

    value = _value(expression, fastcv.augment)
    torch.manual_seed(0)
    photos = torch.stack([photo(name) for name in ("china.jpg", "flower.jpg")])
    batch = photos[:1].expand(DRAWS, -1, -1, -1).clone()  # (B, 3, H, W), uint8
    if getattr(value, "changes_labels", False):
        batch[1::2] = photos[1]
        drawn, _ = value(batch.float() / 255, torch.tensor([0, 1] * (DRAWS // 2)), classes=2)
    elif hasattr(value, "at_epoch"):
        drawn = torch.cat([value.at_epoch(epoch)(batch[:1]) for epoch in range(DRAWS)])
    else:
        drawn = fastcv.augment.compose((value,))(batch)
    if drawn.dtype != torch.uint8:
        drawn = (drawn.clamp(0, 1) * 255).round().to(torch.uint8)
    gap, across = 4, DRAWS // 2
    side = drawn.shape[-1]
    sheet = Image.new("RGB", (across * (side + gap) - gap, 2 * (side + gap) - gap), "gray")
    for number, each in enumerate(drawn):
        place = (number % across * (side + gap), number // across * (side + gap))
        sheet.paste(Image.fromarray(each.permute(1, 2, 0).numpy()), place)
    written = io.BytesIO()
    sheet.save(written, format="JPEG", quality=88)
    name = re.sub(r"\W+", "-", expression).strip("-").lower()
    source = image(f"{name}.jpg", written.getvalue())
    return f"`{expression}`\n\n![Eight draws of {expression} on one photo]({source})"


@cache
def photo(name: str) -> Any:
    """Return the middle of a photo of scikit-learn's: (3, SIDE, SIDE), uint8."""
    import torch
    from PIL import Image, ImageOps
    from sklearn.datasets import load_sample_image

    square = ImageOps.fit(Image.fromarray(load_sample_image(name)), (SIDE, SIDE))
    return torch.frombuffer(bytearray(square.tobytes()), dtype=torch.uint8).view(
        SIDE, SIDE, 3
    ).permute(2, 0, 1).contiguous()  # fmt: skip


def curve(expression: str, image: Callable) -> str:
    """Draw the learning rate of a stage, and its momentum where the stage sets it."""
    import fastcv.learning

    rates, momenta = stage_curve(_value(expression, fastcv.learning))
    return f"`{expression}`\n\n{_chart(expression, rates, momenta)}"


def stage_curve(stage: Any) -> tuple[list[float], list[float]]:
    """Return rate and momentum of every step; no momenta where the stage leaves them."""
    from fastcv.learning import Plateau

    if isinstance(stage, Plateau):
        return _plateau(stage), []
    move = stage.curve()
    found = [
        (1.0, None) if move is None else move(step, step // STEPS, STEPS, stage.epochs)
        for step in range(STEPS * stage.epochs)
    ]
    rates = [stage.lr * factor for factor, _ in found]
    return rates, [momentum for _, momentum in found if momentum is not None]


def _plateau(stage: Any) -> list[float]:
    """Cut the rate as torch does where the loss falls for half of the epochs and then stalls."""
    from torch import nn, optim

    optimizer = optim.SGD(nn.Linear(1, 1).parameters(), lr=stage.lr)
    rule = optim.lr_scheduler.ReduceLROnPlateau(
        optimizer, factor=stage.factor, patience=stage.patience
    )
    rates = []
    for epoch in range(stage.epochs):
        rates += STEPS * [optimizer.param_groups[0]["lr"]]
        rule.step(1 / (1 + min(epoch, stage.epochs // 2)))
    return rates


def _chart(title: str, rates: Sequence[float], momenta: Sequence[float]) -> str:
    """Draw two lines over the steps as SVG, in the colors of the page."""
    width, height, left, top = 360, 110, 44, 10
    most = max(rates)

    def line(values: Sequence[float], low: float, high: float, look: str) -> str:
        span = (high - low) or 1
        points = " ".join(
            f"{left + width * at / len(values):.1f},{top + height * (high - value) / span:.1f}"
            for at, value in enumerate(values)
        )
        return f'<polyline class="{look}" points="{points}"/>'

    epochs = len(rates) // STEPS
    every = max(1, round(epochs / 5))
    ticks = "".join(
        f'<text x="{left + width * epoch / epochs:.0f}" y="{top + height + 16}" '
        f'text-anchor="middle">{epoch}</text>'
        for epoch in range(0, epochs + 1, every)
    )
    labels = (
        f'<text x="{left - 6}" y="{top + 5}" text-anchor="end">{most:g}</text>'
        f'<text x="{left - 6}" y="{top + height}" text-anchor="end">0</text>{ticks}'
        f'<text x="{left + width / 2:.0f}" y="{top + height + 32}" text-anchor="middle">'
        "epoch</text>"
    )
    drawn = line(rates, 0, most, "rate")
    said = "learning rate"
    if momenta:
        low, high = min(momenta), max(momenta)
        drawn += line(momenta, low, high, "momentum")
        labels += "".join(
            f'<text x="{left + width + 6}" y="{top + y}">{value:g}</text>'
            for y, value in ((5, high), (height, low))
        )
        said = "solid: learning rate; dashed: momentum, scale on the right"
    size = f"0 0 {left + width + 44} {top + height + 38}"
    frame = f'<path class="frame" d="M{left} {top}v{height}h{width}"/>'
    return (
        f'<figure class="curve"><svg viewBox="{size}" role="img" aria-label="{html.escape(title)}">'
        f"{frame}{drawn}{labels}</svg><figcaption>{said}</figcaption></figure>"
    )


def shapes(expression: str, image: Callable) -> str:
    """List the layers of a net: what they are, their output and their parameters."""
    import fastcv.nets

    net = _value(expression, fastcv.nets)
    rows = "\n".join(
        f"| `{name}` | {kinds} | {'&nbsp;x&nbsp;'.join(map(str, shape))} | {count:,} |"
        for name, kinds, shape, count in layers(net, *image_shape(expression))
    )
    total = sum(each.numel() for each in net.parameters())
    return (
        f"`{expression}`: {total:,} parameters\n\n| layers | of what | output | parameters |\n"
        f"| --- | --- | --- | ---: |\n{rows}"
    )


def image_shape(expression: str) -> tuple[int, int]:
    """Return channels and size of the images that a net written like this takes."""
    import fastcv.nets

    name, _, settings = expression.rstrip(")").partition("(")
    own = eval(f"dict({settings})", {})
    taken = inspect.signature(getattr(fastcv.nets, name)).parameters
    return tuple(own.get(each, taken[each].default) for each in ("channels", "size"))


def layers(net: Any, channels: int, size: int) -> Iterator[tuple[str, str, tuple[int, ...], int]]:
    """Run a net on one image; yield name, kinds, output shape and parameters of its layers.

    Neighbors in one sequence with outputs of one shape are joined.
    """
    import torch
    from torch import nn

    parts = [
        (f"{name}.{below}" if below else name, layer)
        for name, child in net.named_children()
        for below, layer in (
            child.named_children() if isinstance(child, nn.Sequential) else [("", child)]
        )
    ]
    outputs: dict[nn.Module, tuple[int, ...]] = {}

    def remember(layer: nn.Module, _: Any, output: torch.Tensor) -> None:
        outputs[layer] = tuple(output.shape[1:])

    for _, layer in parts:
        layer.register_forward_hook(remember)
    with torch.inference_mode():
        net.eval()(torch.zeros(1, channels, size, size))
    same = groupby(parts, lambda part: (part[0].partition(".")[0], outputs[part[1]]))
    for (_, shape), group in same:
        names, joined = zip(*group, strict=True)
        name = names[0] if len(names) == 1 else f"{names[0]}-{names[-1].rpartition('.')[2]}"
        yield (
            name,
            repeated([type(each).__name__ for each in joined]),
            shape,
            sum(weight.numel() for each in joined for weight in each.parameters()),
        )


def repeated(words: Sequence[str]) -> str:
    """Write a list with what repeats in it once: "MaxPool2d, 4 times Conv2d, ReLU"."""
    for first in range(min(2, len(words))):
        rest = words[first:]
        for length in range(1, len(rest) // 2 + 1):
            times, left = divmod(len(rest), length)
            if not left and rest == rest[:length] * times:
                return ", ".join([*words[:first], f"{times} times {', '.join(rest[:length])}"])
    return ", ".join(words)


def ladders(_: str, image: Callable) -> str:
    """Draw each recipe with several steps, reported and measured."""
    from fastcv import catalogue
    from fastcv.report import charts

    parts = []
    for recipe in catalogue.names():
        steps = [each for each in _experiments() if each.name.partition("/")[0] == recipe]
        metric = charts.ladder_metric(steps)
        if metric is not None:
            figure = charts.ladder(recipe, steps, metric)
            alt = f"Reported and measured accuracy of {recipe}"
            parts.append(f"### `{recipe}`\n\n" + _figure(figure, f"ladder-{recipe}", alt, image))
    return "\n\n".join(parts)


def differences(_: str, image: Callable) -> str:
    """Draw how far measured accuracies lie from the reported ones."""
    from fastcv.report import charts

    figure = charts.differences(charts.compared(_experiments()))
    return _figure(figure, "differences", "Measured minus reported accuracy", image)


def histories(_: str, image: Callable) -> str:
    """Draw loss and accuracy over the epochs of each experiment whose summary has them."""
    from fastcv import interpret

    parts = []
    for each in _experiments():
        result = next((run for run in each.results if run.history and not run.changed), None)
        if result is None:
            continue
        columns = result.history
        rows = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
        figure = interpret.curves(rows, title=f"{each.name}, seed {result.seed}")
        name = "curves-" + each.name.replace("/", "-")
        alt = f"Loss and accuracy of {each.name} in each epoch"
        parts.append(_figure(figure, name, alt, image))
    return "\n\n".join(parts)


@cache
def _experiments() -> list[Any]:
    """Return the catalogue's experiments with the committed summaries of their runs."""
    from fastcv.report.gather import arrange
    from fastcv.report.read import read_summaries

    found = arrange(read_summaries(ROOT / "recipes/results", _fail))
    return [each for each in found if not each.own]


def _figure(figure: Any, name: str, alt: str, image: Callable) -> str:
    written = io.BytesIO()
    figure.savefig(written, format="svg")
    return f"![{alt}]({image(f'{name}.svg', written.getvalue())})"


def _fail(line: str) -> None:
    raise ValueError(f"the committed results must be readable: {line}")


def finder(name: str, image: Callable) -> str:
    """Draw a measured curve of the LR finder, docs/curves/NAME.json, and list its suggestions."""
    from fastcv import interpret

    kept = json.loads((ROOT / f"docs/curves/{name}.json").read_text(encoding="utf-8"))
    figure = interpret.lr_find(
        kept["rates"], kept["losses"], kept["suggestions"], taken=kept.get("taken"), title=name
    )
    alt = f"Loss of {name} against the learning rate, with five suggestions"
    drawn = _figure(figure, f"lr-find-{name}", alt, image)
    found = kept["suggestions"].items()
    rows = [f"| `{name}` | {rate:.3g} | {loss:.2f} |" for name, (rate, loss) in found]
    head = f"| suggestion | rate | loss there, {kept['losses'][0]:.2f} at first |"
    rule = "| --- | ---: | ---: |"
    caption = f"*`{kept['command']}`, {kept['device']}*"
    return f"{drawn}\n\n{caption}\n\n" + "\n".join([head, rule, *rows])


def few_images(recipe: str, image: Callable) -> str:
    """Draw test accuracy against images of a class, from the committed runs of a recipe."""
    from matplotlib.ticker import MultipleLocator, PercentFormatter

    from fastcv.interpret import style

    lines = points_by_images(recipe)
    if not lines:
        return "*Not measured yet.*"
    counts = sorted({count for points in lines.values() for count in points})
    figure = style.blank(f"{recipe}: images of a class, and accuracy", height=4, width=7)
    axes = figure.subplots()
    style.dress(axes, x="training images of a class, at most", y="test accuracy")
    looks = ((style.BLUE, "o"), (style.VERMILION, "s"), (style.GREEN, "^"), (style.PURPLE, "v"))
    for (name, points), (color, marker) in zip(sorted(lines.items()), cycle(looks)):
        places = [counts.index(count) for count in sorted(points)]
        values = [statistics.fmean(points[count]) for count in sorted(points)]
        axes.plot(places, values, color=color, marker=marker, label=name)
    axes.set_xticks(range(len(counts)), ["all" if math.isinf(each) else each for each in counts])
    axes.yaxis.set_major_locator(MultipleLocator(0.05))
    axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0, symbol=" %"))
    style.legend(axes, columns=2)
    head = "| training images of a class | " + " | ".join(f"`{name}`" for name in sorted(lines))
    rows = [
        f"| {'all' if math.isinf(count) else count} | "
        + " | ".join(_mean(lines[name].get(count)) for name in sorted(lines))
        + " |"
        for count in counts
    ]
    rule = "| --- |" + " --- |" * len(lines)
    alt = f"Test accuracy of {recipe} against the training images of a class"
    drawn = _figure(figure, f"few-images-{recipe}", alt, image)
    return f"{drawn}\n\n" + "\n".join([f"{head} |", rule, *rows])


def points_by_images(recipe: str) -> dict[str, dict[float, list[float]]]:
    """Return {variant: {images of a class: test accuracy of each seed}}, infinity for all images.

    Only runs that changed nothing else count, and only variants with two points or more.
    """
    key, found = "data.train_per_class", {}
    for each in _experiments():
        for result in (*each.results, *each.changed):
            accuracy = result.measured.get("test_accuracy")
            ours = each.name.partition("/")[0] == recipe and {*result.changed} <= {key}
            if ours and accuracy is not None:
                count = result.settings.get(key) or math.inf
                found.setdefault(each.name, {}).setdefault(count, []).append(accuracy)
    return {name: points for name, points in found.items() if len(points) > 1}


def _mean(values: Sequence[float] | None) -> str:
    if not values:
        return ""
    spread = f" ± {100 * statistics.stdev(values):.2f}" if len(values) > 1 else ""
    return f"{100 * statistics.fmean(values):.2f}{spread} %"


def speeds(names: str, image: Callable) -> str:
    """List how fast experiments trained in their committed runs, the fastest first."""
    from fastcv.report import tables

    runs = [_unchanged_runs(name)[0] for name in names.split(", ")]
    rows = [
        f"| `{run.recipe}` | {run.measured['parameters']:,.0f} | {run.settings['data.size']} "
        f"| {tables.device(run)} | {run.images_per_second:,.0f} |"
        for run in sorted(runs, key=lambda run: -run.images_per_second)
    ]
    head = "| experiment | parameters | pixels | processor | images/s |\n"
    return "\n".join([f"{head}| --- | ---: | ---: | --- | ---: |", *rows])


def stored_features(name: str, image: Callable) -> str:
    """Set the time for the features of a frozen body beside that of the epochs, from its runs."""
    from fastcv.report import tables

    runs = _unchanged_runs(name)
    once = statistics.fmean(run.warmup_seconds for run in runs)
    trained = statistics.fmean(run.seconds for run in runs)
    epochs, processor = runs[0].epochs, tables.device(runs[0])
    return (
        f"`{name}`: computing the features took {once:.0f} s, and all {epochs} epochs of the head "
        f"{trained:.1f} s ({processor}, mean of {len(runs)} runs). Without them each epoch would "
        f"compute the body again: {epochs} times {once:.0f} s."
    )


def _unchanged_runs(name: str) -> Sequence[Any]:
    """Return the committed runs of an experiment that changed none of its settings, by seed."""
    runs = next((each.results for each in _experiments() if each.name == name), ())
    if not runs:
        raise ValueError(f"recipes/results must hold an unchanged run of {name}, it has none")
    return runs


def rooms(_: str, image: Callable) -> str:
    """Draw the layers of the code, from what imports all to what everybody imports."""
    with (ROOT / "pyproject.toml").open("rb") as file:
        (contract,) = tomllib.load(file)["tool"]["importlinter"]["contracts"]
    width, height, gap = 660, 34, 12
    drawn = []
    for row, layer in enumerate(contract["layers"]):
        names = [name.strip().removeprefix("fastcv.") for name in layer.split("|")]
        wide = (width - gap * (len(names) - 1)) / len(names)
        for place, name in enumerate(names):
            x, y = place * (wide + gap), row * (height + gap)
            drawn.append(
                f'<rect x="{x:.1f}" y="{y}" width="{wide:.1f}" height="{height}" rx="4"/>'
                f'<text x="{x + wide / 2:.1f}" y="{y + height / 2 + 5}" text-anchor="middle">'
                f"{name}</text>"
            )
    tall = len(contract["layers"]) * (height + gap)
    return (
        f'<figure class="rooms"><svg viewBox="-2 -2 {width + 4} {tall}" role="img" '
        f'aria-label="The rooms of fastcv in layers">{"".join(drawn)}</svg>'
        "<figcaption>A room imports from the rooms below it, never from one beside or above it."
        "</figcaption></figure>"
    )


def _value(expression: str, room: Any) -> Any:
    """Evaluate an expression of the pages with the public names of a room."""
    return eval(expression, {name: getattr(room, name) for name in room.__all__})


MAKERS = {
    make.__name__: make
    for make in (
        *(commands, draws, curve, shapes, ladders, differences),
        *(histories, finder, few_images, speeds, stored_features, rooms),
    )
}

if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))  # the site describes the code that it lies beside
