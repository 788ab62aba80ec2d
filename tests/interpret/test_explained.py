"""The figures that explain a net: what they show is the data they were given."""

import numpy as np
import pytest
from matplotlib.colors import to_rgba_array
from PIL import Image

from fastcv.interpret import explained
from fastcv.interpret.explained import Row, Tile
from fastcv.interpret.style import RIGHT, SMOKE, WRONG
from fastcv.predict.evaluation import Predictions, reliability


@pytest.fixture
def predictions():
    random = np.random.default_rng(0)
    return Predictions(
        paths=tuple(f"{index}.jpg" for index in range(40)),
        probabilities=random.dirichlet(np.full(3, 0.4), 40).astype(np.float32),
        targets=random.integers(0, 3, 40),
        losses=random.random(40),
        classes=("a_b", "c", "$d$"),
    )


def test_overlay_brightens_where_the_evidence_is_and_nothing_else():
    picture = Image.new("RGB", (80, 80), (10, 20, 30))
    cam = np.zeros((8, 8), dtype=np.float32)
    cam[6, 1] = 5.0
    pixels = np.asarray(explained.overlay(picture, cam)).astype(int)
    assert pixels.shape == (80, 80, 3)
    assert (pixels[:40, 40:] == (10, 20, 30)).all()
    row, column = np.unravel_index(pixels.sum(axis=2).argmax(), (80, 80))
    assert row // 10 == 6
    assert column // 10 == 1
    assert np.array_equal(np.asarray(explained.overlay(picture, 0 * cam)), np.asarray(picture))


def test_tiles_show_captions_paths_and_verdicts():
    picture = Image.new("L", (8, 8), 200)
    right = Tile(picture, ("✓ 90 %", "$cat$"), "a cat", "cats/1.jpg", right=True)
    wrong = Tile(picture, ("✗ 80 %",), "a dog", "dogs/a_very_long_name_of_a_file.jpg", right=False)
    figure = explained.tiles(
        "Pictures", [Row("pair", (right, wrong)), Row("", (right,))], smoke=True
    )
    texts = {text.get_text(): text.get_color() for text in figure.texts}
    assert texts["✓ 90 %\n$cat$\ncats/1.jpg"] == RIGHT
    (shortened,) = [text for text in texts if text.startswith("✗ 80 %\ndogs/a_v")]
    assert "…" in shortened
    assert texts[shortened] == WRONG
    assert {"Pictures", "pair", SMOKE} <= set(texts)
    assert len(figure.axes) == 3
    heights = [axes.get_position().y0 for axes in figure.axes]
    assert heights[0] == heights[1] > heights[2] > 0


def test_reliability_curve_draws_the_bins(predictions):
    axes, counts = explained.reliability_curve(predictions).axes
    rows = reliability(predictions)
    _, curve = axes.lines
    assert list(curve.get_xdata()) == [row["confidence"] for row in rows]
    assert list(curve.get_ydata()) == [row["accuracy"] for row in rows]
    assert sum(bar.get_height() for bar in counts.patches) == 40


@pytest.mark.parametrize(("count", "width"), [(1, 4), (2, 1), (12, 5), (40, 8)])
def test_projection_has_two_dimensions_and_is_the_same_each_time(count, width):
    features = np.random.default_rng(0).normal(size=(count, width)).astype(np.float32)
    points = explained.project(features)
    assert points.shape == (count, 2)
    assert points.min() >= 0
    assert points.max() <= 1
    assert np.array_equal(points, explained.project(features))


def test_projection_keeps_groups_apart():
    random = np.random.default_rng(0)
    groups = np.repeat(np.eye(3) * 20, 20, axis=0)
    points = explained.project(groups + random.normal(size=(60, 3)))
    centers = points.reshape(3, 20, 2).mean(axis=1)
    nearest = ((points[:, None] - centers) ** 2).sum(axis=2).argmin(axis=1)
    assert (nearest == np.repeat(range(3), 20)).all()


def test_map_frames_images_by_verdict_and_names_classes(predictions):
    points = np.random.default_rng(1).random((40, 2))
    pictures = [Image.new("RGB", (10, 10))] * 40
    (axes,) = explained.embedding_map(points, pictures, predictions).axes
    assert {text.get_text() for text in axes.texts} == {"a b", "c", "$d$"}
    colors = [RIGHT if right else WRONG for right in predictions.right]
    assert np.array_equal(axes.collections[0].get_facecolors(), to_rgba_array(colors))


@pytest.mark.parametrize(
    ("shape", "named"), [((70, 3, 5, 5), "first 64"), ((3, 1, 3, 3), "3 filters")]
)
def test_first_filters_are_shown_on_their_own_scale(shape, named):
    weights = np.random.default_rng(0).normal(size=shape)
    weights[0] *= 1000
    figure = explained.first_filters(weights)
    assert named in figure.texts[0].get_text()
    pixels = figure.axes[0].images[0].get_array()
    low = weights[1].min()
    expected = (weights[1, :, 0, 0] - low) / (weights[1].max() - low)
    side = explained.FILTER // shape[2] * shape[2] + explained.GAP
    np.testing.assert_allclose(pixels[1, side + 1], np.resize(expected, 3), atol=1e-6)
