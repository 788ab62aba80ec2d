"""The figures: what they show is the data they were given."""

import subprocess
import sys
from functools import cache, partial

import numpy as np
import pytest
import torch
from fastai.data.core import Datasets
from fastai.data.transforms import Categorize, IntToFloatTensor, ToTensor, parent_label
from fastai.learner import Learner
from fastai.vision.core import PILImage
from fasttransform import Transform
from matplotlib.colors import to_hex
from PIL import Image
from sklearn.metrics import confusion_matrix as sklearn_confusion_matrix
from torch import nn

from fastcv import interpret
from fastcv.interpret.predicted import Predictions, readable, shortened
from fastcv.interpret.style import LARGEST_FILE, SMOKE, WRONG

BIRDS = ("001.Black_footed_Albatross", "002.Laysan_Albatross", "003.Sooty_Albatross")


def metrics(epochs, stages=(1,)):
    """Rows as metrics.csv holds them; `stages` are the epochs with which a stage begins."""
    random = np.random.default_rng(epochs)
    keys = ("train_loss", "train_accuracy", "valid_loss", "valid_accuracy")
    return [
        {"stage": sum(epoch >= first for first in stages), "epoch": epoch}
        | dict(zip(keys, random.random(4) + 0.01, strict=True))
        for epoch in range(1, epochs + 1)
    ]


def made_up(n, classes, size=(8, 8), mode="RGB", vocab=None, seed=0):
    random = np.random.default_rng(seed)
    probabilities = random.dirichlet(np.full(classes, 0.5), n).astype(np.float32)
    targets = random.integers(0, classes, n)
    shape = (*size[::-1], 3) if mode == "RGB" else size[::-1]
    pictures = random.integers(0, 256, (n, *shape), dtype=np.uint8)
    return Predictions(
        paths=tuple(f"{i}.png" for i in range(n)),
        probabilities=probabilities,
        targets=targets,
        losses=random.random(n),
        classes=vocab or tuple(f"class {i}" for i in range(classes)),
        image=lambda i: Image.fromarray(pictures[i]),
    )


def line(axes, label):
    (found,) = [found for found in axes.lines if found.get_label().startswith(label)]
    return found


def texts(axes):
    return [text.get_text() for text in axes.texts]


def captions(figure):
    return [axes.get_title(loc="left") for axes in figure.axes]


def frame(axes):
    return axes.spines["left"]


@cache
def all_figures(smoke):
    few, many = made_up(30, 3, vocab=BIRDS), made_up(400, 200)
    steps = [{"step": i, "loss": 1.0, "lr": 0.1 * i, "momentum": 0.9} for i in range(4)]
    return {
        "curves": interpret.curves(metrics(3), {"test": 0.9}, smoke=smoke),
        "schedule": interpret.schedule(steps, smoke=smoke),
        "lr_find": interpret.lr_find(
            [1e-3, 1e-2, 1e-1], [2, 1, 3], {"valley": (1e-2, 1)}, smoke=smoke
        ),
        "confusion_matrix": interpret.confusion_matrix(few, smoke=smoke),
        "confusion_matrix of many": interpret.confusion_matrix(many, smoke=smoke),
        "prediction_grid": interpret.prediction_grid(few, smoke=smoke),
        "top_losses": interpret.top_losses(few, smoke=smoke),
    }


def test_curves_show_the_given_rows():
    rows = metrics(9)
    loss, accuracy = interpret.curves(rows, None, "a run").axes
    for axes, name in ((loss, "loss"), (accuracy, "accuracy")):
        assert axes.get_xlabel() == "epoch"
        assert axes.get_ylabel() == name
        for part in ("train", "valid"):
            drawn = line(axes, part)
            assert list(drawn.get_xdata()) == list(range(1, 10))
            assert list(drawn.get_ydata()) == [row[f"{part}_{name}"] for row in rows]
    assert line(accuracy, "valid").get_label().endswith(f"{100 * rows[-1]['valid_accuracy']:.2f} %")


def test_curves_mark_where_later_stages_begin():
    loss, accuracy = interpret.curves(metrics(9, stages=(1, 4, 8))).axes
    for axes in (loss, accuracy):
        upright = [drawn.get_xdata()[0] for drawn in axes.lines if len(set(drawn.get_xdata())) == 1]
        assert upright == [3.5, 7.5]


def test_curves_reported_accuracies_are_dashed_and_labeled():
    figure = interpret.curves(metrics(4), {"test accuracy": 0.6413, "train accuracy": 0.9937})
    accuracy = figure.axes[1]
    test, train = line(accuracy, "reported test"), line(accuracy, "reported train")
    assert test.get_label() == "reported test accuracy 64.13 %"
    assert set(test.get_ydata()) == {0.6413}
    assert set(train.get_ydata()) == {0.9937}
    assert test.is_dashed()
    assert train.is_dashed()
    assert train.get_color() == line(accuracy, "train").get_color() != test.get_color()
    assert test.get_label() in [text.get_text() for text in accuracy.get_legend().get_texts()]


def test_curves_one_epoch_is_a_visible_point():
    for axes in interpret.curves(metrics(1)).axes:
        assert line(axes, "valid").get_marker() not in (None, "None", "")
        assert axes.get_xlim()[0] < 1 < axes.get_xlim()[1]


def test_curves_rows_read_back_from_csv_leave_out_what_is_empty():
    rows = [{key: str(value) for key, value in row.items()} for row in metrics(5)]
    rows[1]["valid_loss"] = ""
    rows[3]["valid_loss"] = "nan"
    drawn = line(interpret.curves(rows).axes[0], "valid")
    assert list(drawn.get_xdata()) == [1, 3, 5]
    assert list(drawn.get_ydata()) == [float(rows[i]["valid_loss"]) for i in (0, 2, 4)]


def test_curves_without_accuracies_have_losses_only():
    rows = [{"stage": 1, "epoch": i, "train_loss": 1 / i, "valid_loss": 2 / i} for i in (1, 2)]
    loss, accuracy = interpret.curves(rows).axes
    assert list(line(loss, "valid").get_ydata()) == [2, 1]
    assert not accuracy.lines
    assert accuracy.get_legend() is None


def test_curves_only_a_wide_span_of_losses_is_logarithmic():
    rows = metrics(8)
    assert interpret.curves(rows).axes[0].get_yscale() == "linear"
    rows[2]["valid_loss"] = 900.0
    assert interpret.curves(rows).axes[0].get_yscale() == "log"


def test_schedule_shows_rates_and_momenta():
    steps = [{"step": i, "loss": 1.0, "lr": 0.1 * i, "momentum": 0.9 - 0.01 * i} for i in range(6)]
    rate, momentum = interpret.schedule(steps).axes
    assert (rate.get_ylabel(), momentum.get_ylabel()) == ("learning rate", "momentum")
    for axes, key in ((rate, "lr"), (momentum, "momentum")):
        assert axes.get_xlabel() == "step"
        assert list(axes.lines[0].get_xdata()) == list(range(6))
        assert list(axes.lines[0].get_ydata()) == [step[key] for step in steps]


def test_schedule_without_momentum_has_one_chart():
    steps = [{"step": i, "loss": 1.0, "lr": 0.1, "momentum": None} for i in range(3)]
    assert [axes.get_ylabel() for axes in interpret.schedule(steps).axes] == ["learning rate"]


def test_lr_find_marks_the_suggestions_with_their_values():
    rates, losses = np.logspace(-6, 0, 50), np.linspace(2, 1, 50)
    suggestions = {"valley": (2.09e-3, 1.5), "steep": (1e-2, 1.2)}
    (axes,) = interpret.lr_find(rates, losses, suggestions).axes
    assert axes.get_xscale() == "log"
    assert "loss" in axes.get_ylabel()
    assert "learning rate" in axes.get_xlabel()
    np.testing.assert_array_equal(axes.lines[0].get_xydata(), np.stack([rates, losses], axis=1))
    for name, (rate, loss) in suggestions.items():
        assert line(axes, name).get_label() == f"{name} {rate:.3g}"
        assert line(axes, name).get_xydata().tolist() == [[rate, loss]]
    labels = [text.get_text() for text in axes.get_legend().get_texts()]
    assert labels == ["valley 0.00209", "steep 0.01"]


@pytest.mark.parametrize(
    ("taken", "label", "rate"),
    [("steep", "taken: steep 0.01", 1e-2), (3e-3, "recipe: 0.003", 3e-3)],
)
def test_lr_find_marks_the_rate_that_is_taken(taken, label, rate):
    rates, losses = np.logspace(-6, 0, 50), np.linspace(2, 1, 50)
    suggestions = {"valley": (2.09e-3, 1.5), "steep": (1e-2, 1.2)}
    (axes,) = interpret.lr_find(rates, losses, suggestions, taken=taken).axes
    marked = line(axes, label)
    assert marked.get_xdata() == [rate, rate]
    assert marked.get_linestyle() == "-"
    assert axes.get_legend().get_texts()[0].get_text() == label


@pytest.mark.parametrize("last", [[80.0, 1e4, 1e9], [50.0, np.inf, np.nan]])
def test_lr_find_explosion_does_not_flatten_the_valley(last):
    losses = [2.3, 2.3, 2.1, 1.6, 1.2, 1.9, *last]
    suggestions = {"slide": (0.1, 1.3), "steep": (1.0, 40.0), "valley": (2.0, last[1])}
    (axes,) = interpret.lr_find(np.logspace(-5, 1, 9), losses, suggestions).axes
    low, high = axes.get_ylim()
    assert 0.5 < low < 1.2
    assert 2.3 < high < 3.5, "the start must be in sight, the explosion not"
    heights = [line(axes, name).get_ydata()[0] for name in suggestions]
    assert heights == [1.3, high, high]


def test_lr_find_without_a_finite_loss_is_refused():
    with pytest.raises(ValueError, match="at least one finite loss, got none among 2"):
        interpret.lr_find([0.1, 1], [np.nan, np.inf], {})
    with pytest.raises(ValueError, match="got 2 and 1"):
        interpret.lr_find([0.1, 1], [1.0], {})


@pytest.mark.parametrize("draw", [interpret.curves, interpret.schedule])
def test_no_rows_are_refused(draw):
    with pytest.raises(ValueError, match=r"at least one \w+, got none"):
        draw([])


def test_confusion_matrix_counts_are_sklearns():
    predictions = made_up(500, 10)
    expected = sklearn_confusion_matrix(
        predictions.targets, predictions.probabilities.argmax(1), labels=range(10)
    )
    axes = interpret.confusion_matrix(predictions).axes[0]
    written = np.zeros((10, 10), dtype=int)
    for text in axes.texts:
        column, row = text.get_position()
        written[row, column] = int(text.get_text())
    np.testing.assert_array_equal(written, expected)
    np.testing.assert_allclose(
        axes.images[0].get_array(), expected / expected.sum(axis=1, keepdims=True)
    )
    assert axes.get_ylabel() == "true class"
    assert axes.get_xlabel() == "predicted class"
    for axis in (axes.xaxis, axes.yaxis):
        assert [label.get_text() for label in axis.get_ticklabels()] == list(predictions.classes)


@pytest.mark.parametrize("classes", [100, 200])
def test_confusion_matrix_of_many_classes_lists_the_most_confused_pairs(classes):
    predictions = made_up(20 * classes, classes)
    predicted = predictions.probabilities.argmax(1)
    expected = sklearn_confusion_matrix(predictions.targets, predicted, labels=range(classes))
    figure = interpret.confusion_matrix(predictions)
    matrix, beside = figure.axes[:2]
    assert not matrix.texts
    assert len(matrix.get_xticks()) <= 12
    np.testing.assert_allclose(
        matrix.images[0].get_array(),
        sklearn_confusion_matrix(
            predictions.targets, predicted, labels=range(classes), normalize="true"
        ),
    )
    np.fill_diagonal(totals := expected.copy(), 0)
    true, wrong = np.unravel_index(totals.argmax(), totals.shape)
    shown = texts(beside)
    assert f"class {true} → class {wrong}" in shown
    counts = [int(text.split(" of ")[0]) for text in shown if " of " in text]
    assert counts == sorted(totals.ravel(), reverse=True)[: len(counts)]
    assert len(counts) == 20


def test_confusion_matrix_class_without_images_is_an_empty_row():
    probabilities = np.eye(3, dtype=np.float32)[[0, 1]]
    predictions = Predictions(("a", "b"), probabilities, np.array([0, 1]), np.zeros(2), BIRDS)
    shares = interpret.confusion_matrix(predictions).axes[0].images[0].get_array()
    assert shares[2].tolist() == [0, 0, 0]


def test_prediction_grid_captions_say_predicted_and_true():
    predictions = made_up(60, 3, vocab=BIRDS)
    names = ("Black footed Albatross", "Laysan Albatross", "Sooty Albatross")
    figure = interpret.prediction_grid(predictions, n=24, seed=3)
    chosen = np.sort(np.random.default_rng(3).choice(60, 24, replace=False))
    assert len(figure.axes) == 24
    marks = set()
    for axes, i in zip(figure.axes, chosen, strict=True):
        predicted, true = predictions.probabilities[i].argmax(), predictions.targets[i]
        first, second, third = axes.get_title(loc="left").split("\n")
        mark, confidence = first.split(" ", 1)
        assert mark == ("✓" if predicted == true else "✗")
        assert confidence == f"{100 * predictions.probabilities[i].max():.0f} %"
        assert (second, third) == (names[predicted], f"true: {names[true]}")
        np.testing.assert_array_equal(axes.images[0].get_array(), np.asarray(predictions.image(i)))
        marks.add(mark)
    assert marks == {"✓", "✗"}
    right = sum(caption.startswith("✓") for caption in captions(figure))
    assert f"{right} of 24 correct" in figure.get_suptitle()


def test_prediction_grid_wrong_ones_differ_in_color_and_frame():
    colors = {"✓": set(), "✗": set()}
    for axes in interpret.prediction_grid(made_up(60, 3)).axes:
        mark = axes.get_title(loc="left")[0]
        colors[mark].add(to_hex(axes._left_title.get_color()))
        assert frame(axes).get_visible() == (mark == "✗")
    assert colors["✗"] == {WRONG.lower()}
    assert len(colors["✓"]) == 1
    assert colors["✓"] != colors["✗"]


def test_prediction_grid_choice_follows_the_seed():
    predictions = made_up(40, 3)
    grid = partial(interpret.prediction_grid, predictions)
    assert captions(grid(seed=1)) == captions(grid(seed=1)) != captions(grid(seed=2))
    assert len(grid(n=50).axes) == 40
    with pytest.raises(ValueError, match="n, the number of images, must be at least 1, got 0"):
        grid(n=0)


@pytest.mark.parametrize("size", [(8, 8), (32, 32), (20, 64)])
def test_small_images_are_shown_pixel_by_pixel(size):
    figure = interpret.prediction_grid(made_up(2, 2, size=size, mode="L"))
    image = figure.axes[0].images[0]
    assert image.get_interpolation() == "nearest"
    assert (image.get_cmap().name, image.get_clim()) == ("gray", (0, 255))
    assert image.get_array().shape == size[::-1]


def test_photographs_are_reduced_and_keep_their_shape():
    figure = interpret.prediction_grid(made_up(1, 2, size=(600, 300)))
    image = figure.axes[0].images[0]
    assert image.get_array().shape == (112, 224, 3)
    assert image.get_interpolation() != "nearest"


@pytest.mark.parametrize("mode", ["1", "P", "RGBA", "LA", "I", "I;16", "F"])
def test_every_mode_of_image_is_shown(mode, tmp_path):
    picture = Image.fromarray(np.arange(64, dtype=np.uint8).reshape(8, 8) * 4)
    picture = picture.convert("I").convert(mode) if mode == "I;16" else picture.convert(mode)
    predictions = Predictions(
        ("x",), np.ones((1, 1)), np.zeros(1, int), np.ones(1), ("a",), lambda i: picture
    )
    figure = interpret.prediction_grid(predictions)
    shown = figure.axes[0].images[0]
    low, high = shown.get_clim()
    assert low <= shown.get_array().min() < shown.get_array().max() <= high
    interpret.save(figure, tmp_path / "mode.png")


def test_top_losses_are_numpys():
    predictions = made_up(50, 4)
    figure = interpret.top_losses(predictions, n=9)
    order = np.argsort(predictions.losses)[::-1][:9]
    shown = [float(caption.split("\n")[0].split("loss ")[1]) for caption in captions(figure)]
    assert shown == [float(f"{loss:.2f}") for loss in np.sort(predictions.losses)[::-1][:9]]
    for axes, i in zip(figure.axes, order, strict=True):
        end = f"true: class {predictions.targets[i]}\n{predictions.paths[i]}"
        assert axes.get_title(loc="left").endswith(end)
        np.testing.assert_array_equal(axes.images[0].get_array(), np.asarray(predictions.image(i)))


def test_smoke_runs_say_so_on_every_figure_and_others_do_not():
    for name, figure in all_figures(smoke=True).items():
        assert figure.get_supxlabel() == SMOKE == "smoke run: toy images, random weights", name
    for name, figure in all_figures(smoke=False).items():
        assert SMOKE not in str([figure.get_supxlabel(), *map(texts, figure.axes)]), name


def test_every_figure_has_a_left_aligned_title():
    for name, figure in all_figures(smoke=False).items():
        assert figure.get_suptitle(), name
        assert figure._suptitle.get_horizontalalignment() == "left", name


def test_names_become_readable_unless_two_would_be_the_same():
    assert readable(BIRDS) == ("Black footed Albatross", "Laysan Albatross", "Sooty Albatross")
    assert readable([str(i) for i in range(10)]) == tuple("0123456789")
    assert readable(["1.cat", "2.cat"]) == ("1.cat", "2.cat")
    assert readable(["7.5", "3d_printer"]) == ("7.5", "3d printer")


def test_shortened_names_keep_both_ends():
    assert shortened("Laysan Albatross", 16) == "Laysan Albatross"
    name = shortened("American Three toed Woodpecker", 20)
    assert len(name) <= 20
    assert name.startswith("American")
    assert name.endswith("oodpecker")
    assert "…" in name


def test_predictions_of_other_lengths_are_refused():
    with pytest.raises(ValueError, match=r"shape \(2, 3\), 2 losses and 2 paths, got \(2, 2\)"):
        Predictions(("a", "b"), np.ones((2, 2)), np.zeros(2, int), np.ones(2), BIRDS)
    with pytest.raises(ValueError, match="at least one image, got none"):
        Predictions((), np.ones((0, 3)), np.zeros(0, int), np.ones(0), BIRDS)


class Blacken(Transform):
    """An augmentation nobody can overlook: training images become black."""

    split_idx = 0
    order = 100

    def encodes(self, x: torch.Tensor):
        return x * 0 if x.is_floating_point() else x


class Red(nn.Module):
    """Logits that follow from the mean of each color, so that every image has its own."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(3.0))

    def forward(self, x):
        return self.scale * x.mean(dim=(2, 3))


@pytest.fixture(scope="module")
def color_folder(tmp_path_factory):
    """30 images of 4x4 pixels, each of one color, in three folders."""
    random = np.random.default_rng(0)
    folder = tmp_path_factory.mktemp("colors")
    for i in range(30):
        path = folder / "abc"[i % 3] / f"{i}.png"
        path.parent.mkdir(exist_ok=True)
        Image.new("RGB", (4, 4), tuple(map(int, random.integers(0, 256, 3)))).save(path)
    return folder


def color_learner(folder, loss_func):
    paths = sorted(folder.glob("*/*.png"))
    splits = [list(range(22)), list(range(22, 30))]
    datasets = Datasets(paths, [[PILImage.create], [parent_label, Categorize()]], splits=splits)
    dls = datasets.dataloaders(
        bs=4,
        shuffle=True,
        drop_last=True,
        after_item=[ToTensor()],
        after_batch=[IntToFloatTensor(), Blacken()],
        num_workers=0,
        device="cpu",
    )
    return Learner(dls, Red(), loss_func=loss_func, path=folder), paths


@pytest.mark.parametrize("ds_idx", [0, 1])
@pytest.mark.parametrize(
    "loss_func", [nn.CrossEntropyLoss(), nn.CrossEntropyLoss(label_smoothing=0.1)]
)
def test_predictions_are_in_order_and_without_augmentation(color_folder, ds_idx, loss_func):
    learn, paths = color_learner(color_folder, loss_func)
    paths = (paths[:22], paths[22:])[ds_idx]
    predictions = interpret.predictions(learn, ds_idx)
    pixels = [np.asarray(Image.open(path).convert("RGB")) for path in paths]
    targets = torch.tensor(["abc".index(path.parent.name) for path in paths])
    logits = torch.tensor(np.stack(pixels)).float().div(255).mean(dim=(1, 2)) * 3
    np.testing.assert_allclose(predictions.probabilities, logits.softmax(1), atol=1e-6)
    np.testing.assert_array_equal(predictions.targets, targets)
    expected = nn.CrossEntropyLoss(label_smoothing=loss_func.label_smoothing, reduction="none")(
        logits, targets
    )
    np.testing.assert_allclose(predictions.losses, expected, atol=1e-6)
    assert predictions.probabilities.dtype == np.float32
    assert predictions.classes == ("a", "b", "c")
    assert predictions.accuracy == (logits.argmax(1) == targets).float().mean()
    for i, picture in enumerate(pixels):
        np.testing.assert_array_equal(np.asarray(predictions.image(i)), picture)
    assert loss_func.reduction == "mean"
    # Training goes on with its augmentation.
    learn.dls.train.before_iter()
    assert learn.dls.train.after_batch.split_idx == 0


def test_predictions_of_a_missing_data_set_are_refused(color_folder):
    learn, _ = color_learner(color_folder, nn.CrossEntropyLoss())
    with pytest.raises(ValueError, match="ds_idx must be below 2, the number of loaders, got 2"):
        interpret.predictions(learn, 2)


def test_save_writes_small_pngs_and_leaves_nothing_else(tmp_path):
    for i, figure in enumerate(all_figures(smoke=True).values()):
        interpret.save(figure, tmp_path / "figures" / f"{i}.png")
    paths = sorted((tmp_path / "figures").iterdir())
    assert [path.name for path in paths] == [f"{i}.png" for i in range(7)]
    for path in paths:
        assert path.stat().st_size <= LARGEST_FILE
        with Image.open(path) as image:
            image.load()
            assert image.format == "PNG"
            assert image.info["dpi"] == pytest.approx((120, 120), abs=0.1)


def test_save_bounds_a_figure_of_noise(tmp_path):
    figure = interpret.prediction_grid(made_up(24, 3, size=(200, 200)))
    interpret.save(figure, tmp_path / "noise.png")
    assert (tmp_path / "noise.png").stat().st_size <= LARGEST_FILE == 400_000
    with Image.open(tmp_path / "noise.png") as image:
        assert image.mode == "P", "a figure too large for true colors gets a palette"
        assert image.convert("RGB").getpixel((1, 1)) == (255, 255, 255)


def test_save_that_fails_keeps_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "a.png"
    path.write_bytes(b"old")

    def full(*_):
        raise OSError("disk full")

    monkeypatch.setattr("os.replace", full)
    with pytest.raises(OSError, match="disk full"):
        interpret.save(interpret.curves(metrics(2)), path)
    assert [found.name for found in tmp_path.iterdir()] == ["a.png"]
    assert path.read_bytes() == b"old"


def test_names_that_look_like_formulas_or_lack_a_glyph_are_drawn_as_they_are(tmp_path):
    vocab = ("$a_{1", "$b$ $", "鳥 $")
    predictions = made_up(12, 3, vocab=vocab)
    for draw in (interpret.confusion_matrix, interpret.prediction_grid, interpret.top_losses):
        interpret.save(draw(predictions, title="$x_{ $"), tmp_path / "a.png")


def test_figures_need_no_pyplot_and_no_fastai():
    code = (
        "import sys, numpy as np\n"
        "from PIL import Image\n"
        "from fastcv import interpret as f\n"
        "p = f.Predictions(('x', 'y'), np.ones((2, 1)), np.zeros(2, int), np.ones(2), ('a',),"
        " lambda i: Image.new('L', (8, 8)))\n"
        "row = dict(stage=1, epoch=1, train_loss=1, valid_loss=1, step=1, lr=1, momentum=1)\n"
        "import tempfile, pathlib\n"
        "with tempfile.TemporaryDirectory() as d:\n"
        "    for figure in (f.curves([row]), f.schedule([row]), f.lr_find([1], [1], {}),"
        " f.confusion_matrix(p), f.prediction_grid(p), f.top_losses(p)):\n"
        "        f.save(figure, pathlib.Path(d) / 'a.png')\n"
        "print(sorted({'matplotlib.pyplot', 'fastai', 'torch'} & set(sys.modules)))\n"
    )
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=False
    )
    assert (done.stdout.strip(), done.stderr) == ("[]", "")
