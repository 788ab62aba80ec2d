"""One page that explains what a run learned: explain.html, with its figures beside it."""

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor, nn

from fastcv import files, tracking
from fastcv.data.decoding import read_image
from fastcv.experiment import directory
from fastcv.experiment.directory import Run
from fastcv.experiment.images import FOLDS, RunImages
from fastcv.experiment.trained import load
from fastcv.interpret.activations import activations, feature_maps
from fastcv.interpret.confusion import most_confused
from fastcv.interpret.explained import (
    Row,
    Tile,
    embedding_map,
    first_filters,
    overlay,
    project,
    reliability_curve,
    tiles,
)
from fastcv.interpret.predicted import readable
from fastcv.interpret.style import percent, save
from fastcv.predict.evaluation import Evaluation, Predictions, evaluate, top_losses
from fastcv.predict.grad_cam import features, grad_cam
from fastcv.predict.label_errors import MISSING, label_errors, suspect_rows
from fastcv.predict.predictor import Predictor, image_files
from fastcv.report.pages import Section, render
from fastcv.terminal import doing, make_bar

NAME = "explain.html"
SIDE = 224  # pixels of a picture on the page
LOSSES, ERRORS, PAIRS, PER_PAIR = 16, 16, 6, 4
WRONG_ONES, RIGHT_ONES = 8, 4  # images under Grad-CAM, where none are named
MOST_PATHS = 24
EMBEDDED = 600  # images on the map of embeddings
BATCH = 32
COLUMNS = 4


@dataclass(frozen=True, eq=False)
class Subject:
    """An image to explain.

    Args:
        name: its path, as the page shows it.
        image: a file or pixels.
        true: its class; None if unknown.
    """

    name: str
    image: Path | np.ndarray
    true: str | None


@dataclass(frozen=True, eq=False)
class Net:
    """A run's net, asked about subjects."""

    name: str
    predictor: Predictor

    def picture(self, image: Path | np.ndarray) -> Image.Image:
        """Return the square of an image that the net sees, in the page's resolution."""
        model = self.predictor.model
        whole = read_image(image, model.channels, model.upright)
        side = min(whole.size) * model.size / model.resize
        left, top = (whole.width - side) / 2, (whole.height - side) / 2
        small = side <= SIDE / 2  # enlarged, every pixel is a square
        how = Image.Resampling.NEAREST if small else Image.Resampling.BICUBIC
        box = (
            max(left, 0),
            max(top, 0),
            min(left + side, whole.width),
            min(top + side, whole.height),
        )
        return whole.resize((SIDE, SIDE), how, box=box)

    def input(self, images: Sequence[Path | np.ndarray]) -> Tensor:
        """Return the net's input, (N, channels, size, size)."""
        return torch.stack([self.predictor.transform(image) for image in images])

    def cams(self, x: Tensor, classes: Sequence[int]) -> np.ndarray:
        """Return (N, h, w)."""
        index = torch.as_tensor(classes, device=x.device)
        return grad_cam(self.predictor.net, x, index).cpu().numpy()

    @cached_property
    def names(self) -> tuple[str, ...]:
        """Names of the classes, as a person would write them."""
        return readable(self.predictor.classes)

    def look(self, image: Path | np.ndarray) -> Image.Image:
        """Return the image with the evidence for its predicted class laid over it."""
        x = self.input([image])
        (cam,) = self.cams(x, [int(self.predictor.classify(x)[0].argmax())])
        return overlay(self.picture(image), cam)

    def index(self, true: str | None) -> int | None:
        """Return the index of a class, None if the net does not know it."""
        classes = self.predictor.classes
        return classes.index(true) if true in classes else None


@dataclass(eq=False)
class _Page:
    """Sections as they are made; each figure is saved when it is drawn."""

    folder: Path
    write: Callable[[str], None]
    smoke: bool
    sections: list[Section] = field(default_factory=list)
    figures: dict[str, Path] = field(default_factory=dict)

    def pictures(self, anchor: str, title: str, note: str, rows: Sequence[Row]) -> None:
        """Add rows of pictures, on the page and as a figure."""
        if not any(row.tiles for row in rows):
            self.sections.append(Section(anchor, title, note))
            return
        self.figures[anchor] = self.folder / f"{anchor}.png"
        save(tiles(title, rows, smoke=self.smoke), self.figures[anchor])
        self.sections.append(Section(anchor, title, note, tuple(rows)))

    def chart(self, anchor: str, title: str, note: str, figure: Figure, alt: str) -> None:
        """Add a chart."""
        self.figures[anchor] = file = self.folder / f"{anchor}.png"
        save(figure, file)
        self.sections.append(Section(anchor, title, note, chart=file, alt=alt))


def explain(
    run: str | Path,
    paths: Sequence[Path] = (),
    *,
    also: Sequence[str | Path] = (),
    out: Path | None = None,
    part: str | None = None,
    data: Path | None = None,
    device: str | None = None,
    trust: bool = False,
    wandb: str | None = None,
    write: Callable[[str], None] = print,
) -> Path:
    """Write a page that explains a run, and its figures beside it.

    If the run is tracked in Weights & Biases, the figures are added to it there.

    Args:
        run: its directory.
        paths: images to explain, or folders of them; if none, the run's own are.
        also: directories of other runs, which are shown the same images.
        out: folder of the page; "explain" in the run's directory if None.
        part: "valid", "test" or "folds", where no paths are named; None takes the first that the
            run has. Of "folds", which are all images of a cross-validation, the net itself looks
            at those of its own fold alone.
        data: the folder of the run's data; the recipe's own if None.
        device: "cpu", "cuda", "mps"; None takes a GPU if there is one.
        trust: whether to run the recipe files that the runs name.
        wandb: "online", "offline", "off" or "auto"; None takes what the run was started with.
        write: takes each line about what is being done.

    Returns:
        The page.

    Raises:
        ValueError: a run cannot be read, or there is no image to explain.
    """
    folder = Path(run)
    names = _told_apart([folder, *map(Path, also)])
    nets = [
        Net(name, load(each, device=device, trust=trust))
        for name, each in zip(names, (run, *also), strict=True)
    ]
    if nets[0].predictor.model.thresholds is not None:
        raise ValueError(
            "a page explains one class an image, but this net knows several labels: see "
            "figures/average_precision.png and per_label.csv of the run"
        )
    out = folder / "explain" if out is None else out
    files.make_folder(out, "a page")
    source = Run(folder, trust=trust)
    if wandb is not None and wandb not in tracking.MODES:
        raise ValueError(f"wandb must be one of {', '.join(tracking.MODES)}, got {wandb!r}")
    smoke = (folder / "recipe.json").is_file() and bool(source.started["smoke"])
    page = _Page(out, write, smoke)
    summary = None
    if paths:
        subjects = _named_on_disk(paths, nets[0], write)
        of = f"{len(subjects):,} named image{'s' * (len(subjects) > 1)}"
        _compare(page, subjects, nets)
        _explain_images(page, subjects, nets[0])
    else:
        images = RunImages(source, data)
        part, found = images.predictions(nets[0].predictor, part, write)
        kind = {"valid": "validation images", "test": "test images", FOLDS: "images of all folds"}
        of = f"{len(found.targets):,} {kind[part]}"
        summary = evaluate(found)
        # What the net computes itself is of images that it was not trained on.
        own = images.predictions(nets[0].predictor, "valid")[1] if part == FOLDS else found
        subjects = _chosen(own, images)
        _compare(page, subjects, nets)
        _explain_images(page, subjects, nets[0])
        _judge(page, found, own, images, nets[0], summary)
    _look_inside(page, subjects[0], nets[0])
    file = out / NAME
    files.write_text(file, _render(page, nets, of, summary))
    write(str(file))
    _track(source, wandb, page.figures, write)
    return file


def _track(
    run: Run, wandb: str | None, figures: dict[str, Path], write: Callable[[str], None]
) -> None:
    """Add figures to the run in W&B that a run is tracked as, if it is."""
    tracked = run.environment.get("wandb_id") if (run.path / "environment.json").is_file() else None
    mode = wandb or (run.started["settings"].get("wandb") if tracked else "off") or "auto"
    if not isinstance(tracked, str) or not tracking.wanted(mode):
        return
    directory.refuse_links(run)
    with doing("adding the figures to Weights & Biases", make_bar(sys.stderr)):
        hint = tracking.add_figures(
            {f"explain/{name}": file for name, file in figures.items()},
            to=tracked,
            after=max((row["step"] for row in run.steps), default=0),
            mode=mode,
            directory=run.path,
            name=run.started["name"],
            config=run.started["flat"],
            smoke=run.started["smoke"],
        )
    if hint:
        write(f"to upload them to Weights & Biases: {hint}")


def _told_apart(runs: Sequence[Path]) -> list[str]:
    """Name runs by the last two folders of their paths, or by more where these are equal."""
    parts = [run.resolve().parts for run in runs]
    count = 2
    while len({each[-count:] for each in parts}) < len(set(parts)):
        count += 1
    return ["/".join(each[-count:]) for each in parts]


def _named_on_disk(paths: Sequence[Path], net: Net, write: Callable[[str], None]) -> list[Subject]:
    """List the images of some files and folders; a folder named like a class says the true one."""
    for path in paths:
        if not path.exists():
            raise ValueError(f"an image to explain must exist, {str(path)!r} does not")
    listed = [file for path in paths for file in (image_files(path) if path.is_dir() else (path,))]
    found = []
    for file in listed[:MOST_PATHS]:
        try:
            net.predictor.transform(file)
        except ValueError as error:
            write(f"left out: {error}")
            continue
        true = file.resolve().parent.name
        found.append(Subject(str(file), file, true if net.index(true) is not None else None))
    if not found:
        raise ValueError(
            f"there must be an image to explain, {', '.join(map(str, paths))} holds none that can "
            "be read"
        )
    if len(listed) > MOST_PATHS:
        write(f"explaining the first {MOST_PATHS} of {len(listed):,} images")
    return found


def _chosen(found: Predictions, images: RunImages) -> list[Subject]:
    """Choose the wrong images with the largest losses, and some right ones at random."""
    order = np.argsort(-found.losses, kind="stable")
    wrong = [int(index) for index in order if not found.right[index]][:WRONG_ONES]
    right = np.flatnonzero(found.right)
    some = np.random.default_rng(0).permutation(right)[:RIGHT_ONES].tolist()
    return [
        Subject(found.paths[i], images[found.paths[i]], found.classes[found.targets[i]])
        for i in (*wrong, *some)
    ]


def _plain(subject: Subject, net: Net) -> Tile:
    true = net.index(subject.true)
    said = "true class unknown" if true is None else f"true: {net.names[true]}"
    return Tile(net.picture(subject.image), ("the image", said), f"{subject.name}: the image")


def _explain_images(page: _Page, subjects: Sequence[Subject], net: Net) -> None:
    """Add Grad-CAM of the predicted and the true class."""
    page.write(f"Grad-CAM of {len(subjects)} images")
    rows = []
    for subject in subjects:
        x = net.input([subject.image])
        (probabilities,) = net.predictor.classify(x)
        predicted, true = int(probabilities.argmax()), net.index(subject.true)
        picture = net.picture(subject.image)
        row = [_plain(subject, net)]
        asked = dict.fromkeys(index for index in (predicted, true) if index is not None)
        for index in asked:
            (cam,) = net.cams(x, [index])
            known = None if true is None else index == true
            roles = {"predicted": index == predicted, "true": index == true}
            role = " and ".join(name for name, has in roles.items() if has)
            evidence = "" if cam.max() > 0 else ", no evidence"
            row.append(
                Tile(
                    overlay(picture, cam),
                    (net.names[index], f"{role}: {percent(probabilities[index], 1)}{evidence}"),
                    f"{subject.name}: where the net sees {net.names[index]}, {role}",
                    right=known,
                )
            )
        rows.append(Row(subject.name, tuple(row)))
    page.pictures(
        "grad_cam",
        "Grad-CAM: where the net looks",
        "Bright places speak for the class named with the picture; each has its own scale.",
        rows,
    )


def _compare(page: _Page, subjects: Sequence[Subject], nets: Sequence[Net]) -> None:
    """Add the same images through several runs; nothing for one run alone."""
    if len(nets) == 1:
        return
    page.write(f"{len(subjects)} images through {len(nets)} runs")
    rows = []
    for subject in subjects:
        row = [_plain(subject, nets[0])]
        for net in nets:
            x = net.input([subject.image])
            (probabilities,) = net.predictor.classify(x)
            predicted, true = int(probabilities.argmax()), net.index(subject.true)
            (cam,) = net.cams(x, [predicted])
            right = None if true is None else predicted == true
            mark = {None: "", True: "✓ ", False: "✗ "}[right]
            said = f"{mark}{percent(probabilities[predicted], 1)} {net.names[predicted]}"
            row.append(
                Tile(
                    overlay(net.picture(subject.image), cam),
                    (net.name, said),
                    f"{subject.name} through {net.name}: {said}",
                    right=right,
                )
            )
        rows.append(Row(subject.name, tuple(row)))
    page.pictures(
        "side_by_side",
        "The same images through several runs",
        "Each run's prediction, and where it looks for it.",
        rows,
    )


def _judge(
    page: _Page,
    found: Predictions,
    own: Predictions,
    images: RunImages,
    net: Net,
    summary: Evaluation,
) -> None:
    """Add what the predictions of a whole part say, and the net's own features of some images."""
    names = readable(found.classes)

    def tile(index: int) -> Tile:
        path, right = found.paths[index], bool(found.right[index])
        true, predicted = names[found.targets[index]], names[found.predicted[index]]
        share = percent(found.confidences[index], 1)
        lines = (
            f"{'✓' if right else '✗'} {share}, loss {found.losses[index]:.2f}",
            predicted,
            f"true: {true}",
        )
        alt = f"{path}: predicted {predicted}, true {true}"
        return Tile(net.picture(images[path]), lines, alt, path, right)

    def grid(indices: Sequence[int]) -> list[Row]:
        rows = [indices[at : at + COLUMNS] for at in range(0, len(indices), COLUMNS)]
        return [Row("", tuple(map(tile, row))) for row in rows]

    page.write("top losses, label errors, confused pairs")
    losses = np.argsort(-found.losses, kind="stable")[:LOSSES].tolist()
    page.pictures(
        "top_losses",
        "Top losses",
        "The images that the net is most wrong about; top_losses.csv lists all of them.",
        grid(losses),
    )
    files.write_csv(page.folder / "top_losses.csv", top_losses(found))
    _list_label_errors(page, found, grid)
    pairs = most_confused(found.confusion(), PAIRS)
    rows = []
    for true, predicted in pairs:
        both = np.flatnonzero((found.targets == true) & (found.predicted == predicted))
        of = int((found.targets == true).sum())
        heading = f"{names[true]} taken for {names[predicted]}: {len(both)} of {of}"
        surest = both[np.argsort(-found.confidences[both], kind="stable")][:PER_PAIR]
        # The heading names the classes already.
        shown = (tile(int(index)) for index in surest)
        rows.append(Row(heading, tuple(replace(each, lines=each.lines[:1]) for each in shown)))
    page.pictures(
        "confused_pairs",
        "Most confused pairs",
        "Of each pair the images that the net is surest about."
        if pairs
        else "No image is taken for another class.",
        rows,
    )
    readably = dict(zip(found.classes, names, strict=True)) | {"": ""}
    rows = [
        row | {key: readably[row[key]] for key in ("class", "most_confused_with")}
        for row in sorted(summary.per_class, key=lambda row: row["f1"])
    ]
    page.sections.append(
        Section(
            "per_class",
            "Classes",
            "The classes with the lowest F1 score stand first.",
            table=tuple(rows),
        )
    )
    page.chart(
        "reliability",
        "Reliability",
        "How often predictions of a confidence are right: a calibrated net follows the diagonal.",
        reliability_curve(found, smoke=page.smoke),
        "Reliability curve: accuracy against confidence, and a histogram of confidences",
    )
    _map_embeddings(page, own, images, net)


def _list_label_errors(
    page: _Page, found: Predictions, grid: Callable[[Sequence[int]], list[Row]]
) -> None:
    title, missing = "Likely label errors", MISSING
    try:
        indices = label_errors(found)
    except ImportError:
        page.sections.append(Section("label_errors", title, f"{missing[0].upper()}{missing[1:]}."))
        return
    note = (
        f"Confident learning suspects {len(indices):,} of {len(found.targets):,} labels; the "
        "least likely come first, and label_errors.csv lists all. Check them by eye: a hard image "
        "looks the same, and a weak net suspects many."
        if len(indices)
        else f"Confident learning suspects none of {len(found.targets):,} labels."
    )
    if rows := suspect_rows(found, indices):
        files.write_csv(page.folder / "label_errors.csv", rows)
    page.pictures("label_errors", title, note, grid(indices[:ERRORS].tolist()))


def _map_embeddings(page: _Page, found: Predictions, images: RunImages, net: Net) -> None:
    count = len(found.targets)
    chosen = np.sort(np.random.default_rng(0).permutation(count)[:EMBEDDED])
    page.write(f"map of embeddings: {len(chosen):,} of {count:,} images")
    some = Predictions(
        paths=tuple(found.paths[index] for index in chosen),
        probabilities=found.probabilities[chosen],
        targets=found.targets[chosen],
        losses=found.losses[chosen],
        classes=found.classes,
    )
    seen = [images[path] for path in some.paths]
    batches = (seen[at : at + BATCH] for at in range(0, len(seen), BATCH))
    embedded = [features(net.predictor.net, net.input(batch)).cpu().numpy() for batch in batches]
    points = project(np.concatenate(embedded))
    page.chart(
        "embeddings",
        "Map of embeddings",
        "Features before the last layer, laid out by t-SNE: neighbors look alike to the net.",
        embedding_map(points, [net.picture(each) for each in seen], some, smoke=page.smoke),
        f"Map of {len(chosen):,} images by their features, with thumbnails",
    )


def _look_inside(page: _Page, subject: Subject, net: Net) -> None:
    """Add the first filters, and what the layers make of an image."""
    first = next(
        (each for each in net.predictor.net.modules() if isinstance(each, nn.Conv2d)), None
    )
    if first is not None:
        weights = first.weight.detach().float().cpu().numpy()
        page.chart(
            "first_filters",
            "First filters",
            "What the first convolution looks for.",
            first_filters(weights, smoke=page.smoke),
            f"{len(weights)} filters of the first convolution",
        )
    x = net.input([subject.image])[0]
    if feature_maps(net.predictor.net, x):
        page.chart(
            "activations",
            "Activations",
            f"What the layers make of {subject.name}.",
            activations(net.predictor.net, x, picture=net.picture(subject.image), smoke=page.smoke),
            f"Feature maps of the layers for {subject.name}",
        )


def _render(page: _Page, nets: Sequence[Net], of: str, summary: Evaluation | None) -> str:
    return render(
        "explain.html.j2",
        nets=nets,
        model=nets[0].predictor.model,
        of=of,
        summary=summary,
        sections=page.sections,
        smoke=page.smoke,
    )
