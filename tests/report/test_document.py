"""What a report holds before it is a page: its first line, its pictures, its Markdown."""

import struct
import zlib
from dataclasses import replace

import pytest
from matplotlib.figure import Figure
from PIL import Image

from fastcv.experiment.comparison import Experiment, Result
from fastcv.markdown import code, escaped, table
from fastcv.recipe.values import Reported
from fastcv.report import as_text, charts, gather
from fastcv.report.document import compose
from fastcv.report.markdown import write as write_markdown


def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width, height, data):
    """A PNG whose chunks are whole, whatever their data are."""
    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    parts = chunk(b"IHDR", head), chunk(b"IDAT", data), chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


@pytest.fixture
def drawn(monkeypatch):
    """What curves were drawn of: title and reported numbers, instead of the curves."""
    calls = []

    def curves(rows, reported=None, title=""):
        calls.append((title, reported))
        return Figure((1, 1))

    monkeypatch.setattr(charts, "curves", curves)
    return calls


@pytest.fixture
def with_curves(tmp_path):
    """A folder of figures with the curves alone."""
    folder = tmp_path / "figures"
    folder.mkdir()
    Image.new("RGB", (4, 4)).save(folder / "curves.png")
    return folder


def named(experiments, *names):
    return [each for each in experiments if each.name in names]


def test_pictures_under_another_name_bear_that_name_and_its_report(
    tmp_path, write_run, with_curves, drawn
):
    names = ("resnet_cifar100/starter", "vgg_cifar100/starter")
    write_run(tmp_path / "runs", names[1], figures=with_curves, valid_accuracy=0.2)
    both = named(gather([tmp_path / "runs"]), *names)
    document = compose(both, tmp_path / "out")
    shown = [row.experiment.name for section in document.sections for row in section.pictured]
    assert sorted(shown) == sorted(names)
    other = next(each for each in both if each.name == names[0])
    (call,) = drawn  # the run's own curves bear its own name
    assert call[0] == names[0]
    assert set(call[1].values()) == {
        value for metric, value in other.numbers.items() if metric.endswith("accuracy")
    }


def test_pictures_stand_once_where_two_names_report_the_same(
    tmp_path, write_run, with_curves, drawn
):
    names = ("light_resnet_cifar10", "light_resnet_cifar10/model5")
    write_run(tmp_path / "runs", names[1], figures=with_curves)
    document = compose(named(gather([tmp_path / "runs"]), *names), tmp_path / "out")
    shown = [row.experiment.name for section in document.sections for row in section.pictured]
    assert shown == [names[0]]
    assert [title for title, _ in drawn] == [names[0]]


def test_ones_own_come_first_and_what_was_not_run_is_folded(tmp_path, write_run):
    runs = tmp_path / "runs"
    write_run(runs, "vgg_cifar100/starter", valid_accuracy=0.25)
    write_run(runs, "digits", "schedule.0.epochs=3", valid_accuracy=0.9)
    write_run(
        runs, "digits", "schedule.0.epochs=4", own_name="zebra", file="/z.py", valid_accuracy=0.9
    )
    document = compose(gather([runs]), tmp_path / "out")
    assert [section.recipe for section in document.sections] == [
        "zebra", "digits", "resnet_cifar100", "vgg_cifar100",
    ]  # fmt: skip
    assert [row.experiment.name for section in document.sections for row in section.rows] == [
        "zebra", "resnet_cifar100/starter", "vgg_cifar100/starter",
    ]  # fmt: skip
    folded = [row.experiment.name for section in document.not_run for row in section.rows]
    assert {"digits", "mnist_cnn", "vgg_cifar100/step01"} < set(folded)
    assert "vgg_cifar100 (also vgg_cifar100/step15)" in document.missing
    assert document.sections[1].ladder is None
    assert document.sections[3].ladder is not None
    text = as_text(gather([runs]))
    assert text.index("\nzebra ") < text.index("\nresnet_cifar100/starter ")


def test_the_first_line_counts_an_experiment_once_under_all_its_names():
    result = Result(recipe="a", seed=0, measured={}, epochs=1, seconds=1.0)
    short = replace(result, changed={"x": (1, 2)})
    experiments = [
        Experiment(name="a", aliases=("a/1",), results=(result,)),
        Experiment(name="a/1", aliases=("a",), results=(result,)),
        Experiment(name="b", aliases=("b/1",)),
        Experiment(name="b/1", aliases=("b",), changed=(short,)),
        Experiment(name="a", own=True),
    ]
    said = compose(experiments, None).lead
    assert said == "3 experiments: 1 run, 2 not run, 1 of these only with changed settings."


def test_a_ladder_draws_the_number_that_is_to_be_beaten():
    reported = Reported(source="1", valid_accuracy=0.65, test_accuracy=0.626)
    experiment = Experiment(name="a/one_cycle", reported=replace(reported, to_beat=True))
    assert charts.step_metric(experiment, "valid_accuracy") == "test_accuracy"
    other = replace(experiment, reported=reported)
    assert charts.step_metric(other, "valid_accuracy") == "valid_accuracy"


@pytest.mark.parametrize(
    "picture",
    [
        png(100, 100, b"not zlib"),
        png(100, 100, zlib.compress(b"\0" * 10)),
        png(60_000, 60_000, zlib.compress(b"\0" * 10)),
        png(11_000, 11_000, zlib.compress(b"\0" * 10)),
    ],
    ids=["no data", "too little data", "a bomb", "a small bomb"],
)
def test_a_picture_that_cannot_be_decoded_is_left_out_and_said(tmp_path, write_run, picture):
    run = write_run(tmp_path / "runs", "digits", valid_accuracy=0.9)
    (run / "figures").mkdir()
    (run / "figures" / "curves.png").write_bytes(picture)
    (digits,) = named(gather([tmp_path / "runs"]), "digits")
    lines = []
    assert charts.of_run(digits, digits.results[0], tmp_path, lines.append) == []
    assert f"{run / 'figures' / 'curves.png'}: left out" in lines[0]


@pytest.mark.parametrize(
    "rows", [b"\xff\xff", b"epoch,stage\n1\n", b"epoch,stage\n1,0,7\n", b"", b"a,b\n1,2\n"]
)
def test_curves_of_rows_that_cannot_be_read_are_left_out_and_said(
    tmp_path, write_run, with_curves, rows
):
    run = write_run(tmp_path / "runs", "digits", "schedule.0.epochs=2", figures=with_curves)
    (run / "metrics.csv").write_bytes(rows)
    (digits,) = named(gather([tmp_path / "runs"]), "digits")
    lines = []
    assert charts.of_run(digits, digits.changed[0], tmp_path, lines.append) == []
    assert f"{run / 'metrics.csv'}: left out" in lines[0]


def test_markdown_takes_nothing_in_a_text_for_its_own():
    assert escaped("<b>&|`\\[a](b)*\n# H") == ("&lt;b>&amp;&#124;&#96;&#92;&#91;a&#93;(b)&#42; # H")
    assert code("a_b: [1] → 2") == "`a_b: [1] → 2`"
    assert code("<i>`|") == "<code>&lt;i>&#96;&#124;</code>"
    assert table(["a"], [[code("x|y")]]).splitlines()[2] == "| <code>x&#124;y</code> |"


def test_names_settings_and_commands_are_text_in_markdown(
    tmp_path, write_run, with_curves, edit_json
):
    name = "<img src=x>`|x\n# H"
    run = write_run(
        tmp_path / "runs", "digits", own_name="own", file="/x.py", figures=with_curves,
        valid_accuracy=0.5,
    )  # fmt: skip
    recipe = {"data.evil": "<script>`|", "seed": 0}
    edit_json(run / "recipe.json", flat=recipe)
    edit_json(run / "environment.json", command="fastcv <b>x</b> | `", device_name="<i>d</i>|")
    (own,) = (replace(each, name=name) for each in gather([tmp_path / "runs"]) if each.own)
    changed = replace(own.results[0], changed={"data.evil": (None, "<script>`|")})
    experiments = [own, replace(own, results=(), changed=(changed,))]
    text = write_markdown(compose(experiments, tmp_path / "figures"), tmp_path).read_text("utf-8")
    for tag in ("<img", "<b>", "<i>", "<script"):
        assert tag not in text
    assert "\n# H" not in text
    assert "### <code>&lt;img src=x>&#96;&#124;x # H</code>" in text
    lines = text.splitlines()
    for index, line in enumerate(lines):
        if line.startswith("| ---"):
            assert lines[index - 1].count("|") == lines[index + 1].count("|")
