"""README's results table says what the committed summaries say, and nothing else."""

import json
from pathlib import Path

import pytest

from fastcv.report import gather, readme
from fastcv.report.committed import portable
from fastcv.report.gather import arrange
from fastcv.report.read import read_summaries

ROOT = Path(__file__).parent.parent.parent
RESULTS = ROOT / "recipes" / "results"
MARKS = f"{readme.BEGIN}\nold\n{readme.END}"


def fail(line):
    raise AssertionError(line)


@pytest.mark.parametrize(
    ("command", "kept"),
    [
        ("fastcv recipe digits --seed 3", "fastcv recipe digits --seed 3"),
        ("fastcv recipe digits --out /home/me/r --seed 3", "fastcv recipe digits --seed 3"),
        ("fastcv recipe digits --out=/home/me/r --data '/my data'", "fastcv recipe digits"),
        ("fastcv recipe a --set 'data.augment=()'", "fastcv recipe a --set 'data.augment=()'"),
        ("fastcv recipe it's", "fastcv recipe it's"),
    ],
)
def test_a_committed_command_says_no_place_of_one_machine(command, kept):
    assert portable(command) == kept


def test_the_table_of_the_readme_is_that_of_the_committed_summaries():
    saved = arrange(read_summaries(RESULTS, fail))
    text = readme.between((ROOT / "README.md").read_text(encoding="utf-8"))
    assert text.startswith(readme.short_table(saved))
    assert text.endswith("All results: [docs/results.md](docs/results.md).")
    assert sum(line.startswith("| `") for line in text.splitlines()) <= 15


def test_the_table_of_all_results_is_that_of_the_committed_summaries():
    text = readme.between((ROOT / "docs" / "results.md").read_text(encoding="utf-8"))
    assert text == readme.results_table(arrange(read_summaries(RESULTS, fail)))
    for file in RESULTS.glob("*.json"):
        assert f"| `{json.loads(file.read_text(encoding='utf-8'))['recipe']}`" in text


def test_every_committed_summary_says_where_and_how_it_ran():
    for file in sorted(RESULTS.glob("*.json")):
        given = json.loads(file.read_text(encoding="utf-8"))
        for name in ("recipe", "seed", "command", "device_name", "precision", "settings"):
            assert given.get(name) not in (None, ""), f"{file.name} lacks {name}"
        assert given["packages"]["torch"], file.name
        assert given["packages"]["fastcv"], file.name
        assert given["measured"], file.name
        assert given["epochs"] > 0, file.name
        assert file.stem.startswith(f"{given['recipe'].replace('/', '-')}-seed{given['seed']}")
        assert ("-changed" in file.stem) == bool(given.get("changed")), file.name


def test_what_a_committed_summary_says_it_changed_is_what_it_changed():
    for experiment in arrange(read_summaries(RESULTS, fail)):
        for result in (*experiment.results, *experiment.changed):
            (stated,) = (
                each
                for each in read_summaries(RESULTS, fail)
                if (each.recipe, each.seed, each.command, each.seconds)
                == (result.recipe, result.seed, result.command, result.seconds)
            )
            said = {key: tuple(pair) for key, pair in stated.changed.items()}
            assert said == dict(result.changed)


def test_a_table_has_a_row_for_each_experiment_that_was_run(tmp_path, write_run):
    write_run(
        tmp_path, "light_resnet_cifar10/one_cycle", test_accuracy=0.9164, best_test_accuracy=0.9166,
        seconds=2160,
    )  # fmt: skip
    write_run(tmp_path, "light_resnet_cifar10", best_test_accuracy=0.9, test_accuracy=0.89)
    write_run(tmp_path, "mnist_cnn", "schedule.0.epochs=2", valid_accuracy=0.97)
    write_run(tmp_path, "digits", seed=4, valid_accuracy=0.98)
    head, _, *rows = readme.results_table(gather([tmp_path])).split("\n\n")[0].splitlines()
    columns = head.strip("| ").split(" | ")
    assert columns[:4] == ["experiment", "reported", "measured", "within tolerance"]
    assert columns[4:] == ["epochs", "time", "device", "seeds", "revision"]
    assert rows == [
        "| `digits` | none | 98.00 % validation |  | 10 | 60 s | A, fp32 | 4 | 0123abc |",
        "| `light_resnet_cifar10`, `light_resnet_cifar10/model5` "
        "| 91.47 % best test (Report 003, table 1, model 5) "
        "| 90.00 % best test | yes | 70 | 60 s | A, fp32 | 0 | 0123abc |",
        "| `light_resnet_cifar10/one_cycle` "
        "| to beat: 91.47 % best test (Report 003, table 1, model 5) in 70 epochs "
        "| 91.66 % best test | beaten | 20 | 36 min | A, fp32 | 0 | 0123abc |",
    ]


def test_the_short_table_has_two_rows_a_recipe_and_no_more_than_fit(
    tmp_path, write_run, monkeypatch
):
    for variant in ("", "/regularized", "/one_cycle"):
        write_run(tmp_path, f"mnist_cnn{variant}", valid_accuracy=0.9, test_accuracy=0.9)
    for variant in ("starter", "step01", "step02", "one_cycle"):
        write_run(tmp_path, f"vgg_cifar100/{variant}", valid_accuracy=0.2)
    for variant in ("fixed_extractor", "one_cycle"):  # both are to beat the report
        write_run(tmp_path, f"transfer_efficientnet/{variant}", test_accuracy=0.7)
    write_run(tmp_path, "digits", own_name="mine", file="/m.py", valid_accuracy=0.9)
    write_run(tmp_path, "digits", device_name="B", seed=1, valid_accuracy=0.9)
    write_run(tmp_path, "digits", device_name="B", seed=2, valid_accuracy=0.9)

    def listed():
        lines = readme.short_table(gather([tmp_path])).splitlines()
        return [line.split("`")[1] for line in lines if line.startswith("| `")]

    assert "| B, fp32 | 1, 2 |" in readme.short_table(gather([tmp_path]))
    assert listed() == [
        *("digits", "mnist_cnn", "mnist_cnn/one_cycle", "resnet_cifar100/starter"),
        *("transfer_efficientnet/one_cycle", "vgg_cifar100/step02", "vgg_cifar100/one_cycle"),
    ]
    monkeypatch.setattr(readme, "MOST", 5)
    assert listed() == [
        *("digits", "mnist_cnn", "mnist_cnn/one_cycle"),
        *("resnet_cifar100/starter", "vgg_cifar100/step02"),
    ]


def test_a_row_without_a_revision_says_so(tmp_path, write_run, edit_json):
    for seed, revision in enumerate(("0123abcdef-changed", None)):
        run = write_run(tmp_path, "digits", seed=seed, valid_accuracy=0.9)
        edit_json(run / "environment.json", git_revision=revision)
    assert "| 0, 1 | 0123abc with local changes, no revision |" in readme.results_table(
        gather([tmp_path])
    )


def test_changed_runs_stand_below_the_table_with_what_they_changed(tmp_path, write_run):
    write_run(tmp_path, "mnist_cnn", "schedule.0.epochs=2", valid_accuracy=0.97)
    said = readme.results_table(gather([tmp_path]))
    assert said.startswith("No experiment was run in full yet.\n\nRuns with changed settings")
    assert "| `mnist_cnn` | `schedule.0.epochs: 250 → 2` | 97.00 % validation | 2 | 60 s |" in said
    assert "98 %" not in said


def test_writing_keeps_what_stands_around_the_marks(tmp_path, write_run):
    write_run(tmp_path / "runs", "digits", valid_accuracy=0.98)
    experiments = gather([tmp_path / "runs"])
    file = tmp_path / "README.md"
    file.write_text(f"# Name\n\n{MARKS}\n\nAfter.\n", encoding="utf-8")
    assert readme.write(file, readme.results_table(experiments))
    text = file.read_text(encoding="utf-8")
    assert text.startswith("# Name\n\n<!-- results")
    assert text.endswith("<!-- end of results -->\n\nAfter.\n")
    assert readme.between(text) == readme.results_table(experiments)
    assert "old" not in text
    assert not readme.write(file, readme.results_table(experiments))


@pytest.mark.parametrize(
    "text", ["", readme.BEGIN, f"{readme.END}\n{readme.BEGIN}", f"{MARKS}\n{MARKS}"]
)
def test_a_readme_without_its_marks_is_left_as_it_is(tmp_path, text):
    file = tmp_path / "README.md"
    file.write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match="must hold the line"):
        readme.write(file, "table")
    assert file.read_text(encoding="utf-8") == text


def test_a_readme_that_is_not_there_is_said(tmp_path):
    with pytest.raises(ValueError, match="needs a file to stand in"):
        readme.write(tmp_path / "README.md", "table")
