import json
import shutil

import pytest

from fastcv import catalogue
from fastcv.experiment.train import train
from fastcv.experiment.words import measured
from fastcv.recipe import override
from fastcv.report import gather
from fastcv.report.gather import arrange, without_place
from fastcv.report.read import read_run, read_summaries
from fastcv.report.readme import results_table
from fastcv.report.tables import changed_rows, rows


def of(experiments, name):
    (found,) = (each for each in experiments if each.name == name)
    return found


def test_every_experiment_of_the_catalogue_is_there_in_its_order_and_not_run():
    experiments = gather([])
    assert [each.name for each in experiments] == [each.name for each in catalogue.entries()]
    assert not any(each.results or each.changed for each in experiments)
    assert of(experiments, "mnist_cnn/regularized").verdict("test_accuracy") == "not run"
    assert {line.measured for each in experiments for line in rows(each)[0].lines} == {"not run"}


def test_seeds_give_mean_and_sample_deviation_and_a_verdict(tmp_path, write_run):
    for seed, accuracy in enumerate((0.981, 0.983, 0.991)):
        write_run(
            tmp_path, "mnist_cnn/regularized", seed=seed, test_accuracy=accuracy, train_accuracy=0.9
        )
    found = of(gather([tmp_path]), "mnist_cnn/regularized")
    assert [result.seed for result in found.results] == [0, 1, 2]
    assert found.headline == "test_accuracy"
    assert found.mean("test_accuracy") == pytest.approx(0.985)
    assert found.spread("test_accuracy") == pytest.approx(0.00529150262)
    assert found.verdict("test_accuracy") == "within"  # 98.23 in the report, tolerance 1 point
    assert found.verdict("train_accuracy") == "below"  # 99
    assert measured(found, "test_accuracy") == "98.50 ± 0.53 %"
    assert found.epochs == 15


def test_one_seed_has_no_spread(tmp_path, write_run):
    write_run(tmp_path, "digits", valid_accuracy=0.98)
    found = of(gather([tmp_path]), "digits")
    assert found.spread("valid_accuracy") is None
    assert found.headline == "valid_accuracy"
    assert measured(found, "valid_accuracy") == "98.00 %"


def test_a_name_and_its_alias_share_results(tmp_path, write_run):
    write_run(tmp_path, "light_resnet_cifar10", seed=1, best_test_accuracy=0.91)
    write_run(tmp_path, "light_resnet_cifar10/model5", seed=2, best_test_accuracy=0.92)
    experiments = gather([tmp_path])
    for name, other in (
        ("light_resnet_cifar10", "light_resnet_cifar10/model5"),
        ("light_resnet_cifar10/model5", "light_resnet_cifar10"),
    ):
        assert of(experiments, name).aliases == (other,)
        assert [result.seed for result in of(experiments, name).results] == [1, 2]
    assert of(experiments, "light_resnet_cifar10/model8").results == ()


def test_changed_settings_are_not_compared(tmp_path, write_run):
    short = ("schedule.0.epochs=2", "data.train_per_class=20")
    for seed, accuracy in ((0, 0.4), (1, 0.6)):
        write_run(tmp_path, "mnist_cnn/regularized", *short, seed=seed, test_accuracy=accuracy)
    found = of(gather([tmp_path]), "mnist_cnn/regularized")
    assert found.results == ()
    assert found.verdict("test_accuracy") == "not run"
    assert found.changed[0].changed == {
        "data.train_per_class": (None, 20),
        "schedule.0.epochs": (15, 2),
    }
    (row,) = changed_rows(found)
    assert row.changed == ("data.train_per_class: None → 20", "schedule.0.epochs: 15 → 2")
    assert (row.epochs, row.seeds) == ("2", "0, 1")
    assert row.measured == "50.00 ± 14.14 % test"


def test_training_writes_down_what_it_changed_of_the_recipe(tmp_path):
    short = override(catalogue.get_recipe("digits"), "schedule.0.epochs=1")
    run = train(short, out=tmp_path, wandb="off", device="cpu", smoke=True)
    assert run.started["changed"] == {"schedule.0.epochs": [10, 1]}


def test_where_data_lies_and_how_it_is_computed_changes_nothing(tmp_path, write_run):
    write_run(tmp_path, "digits", "data.path=elsewhere", "precision=fp32", valid_accuracy=0.98)
    assert len(of(gather([tmp_path]), "digits").results) == 1


def test_a_run_of_before_a_setting_was_there_counts_at_its_default(tmp_path, write_run):
    write_run(
        tmp_path, "digits", without=("data.test_validates", "data.channels"), valid_accuracy=0.9
    )
    # channels are 3 by default, and digits has 1; what validates is by default as digits has it
    assert of(gather([tmp_path]), "digits").changed[0].changed == {"data.channels": (1, 3)}


def test_final_weights_may_beat_the_best_epoch_of_a_report(tmp_path, write_run):
    name = "light_resnet_cifar10/one_cycle"
    write_run(tmp_path / "a", name, test_accuracy=0.9148, train_accuracy=0.5)
    write_run(tmp_path / "b", name, best_test_accuracy=0.9147)
    beaten, not_beaten = (of(gather([tmp_path / each]), name) for each in "ab")
    assert beaten.headline == not_beaten.headline == "best_test_accuracy"
    assert beaten.verdict("best_test_accuracy") == "beaten"
    assert not_beaten.verdict("best_test_accuracy") == "not beaten"
    assert measured(beaten, "best_test_accuracy") == "91.48 % (final weights)"
    assert measured(not_beaten, "best_test_accuracy") == "91.47 %"
    assert beaten.original.name == "light_resnet_cifar10"
    assert beaten.original.epochs == 70


def test_smoke_runs_are_left_out_and_unfinished_ones_count_in_no_number(tmp_path, write_run):
    write_run(tmp_path, "digits", smoke=True, valid_accuracy=0.1)
    stopped = write_run(tmp_path, "digits", finished=False, epochs=4, seed=3)
    found = of(gather([tmp_path]), "digits")
    assert found.results == found.changed == ()
    (run,) = found.unfinished
    assert (run.seed, run.epochs, run.path) == (3, 4, stopped)


def test_an_unfinished_run_has_the_epochs_of_its_own_recipe_and_stands_where_it_is_of(
    tmp_path, write_run
):
    write_run(tmp_path, "digits", "schedule.0.epochs=3", finished=False, epochs=2)
    write_run(
        tmp_path, "digits", "schedule.0.epochs=5", seed=1, finished=False, epochs=4, file="/x.py"
    )
    ours, own = (each for each in gather([tmp_path]) if each.name == "digits")
    assert [(run.seed, run.epochs, run.planned) for run in ours.unfinished] == [(0, 2, 3)]
    assert [(run.seed, run.epochs, run.planned) for run in own.unfinished] == [(1, 4, 5)]
    assert (own.own, own.epochs) == (True, 5)


def test_a_run_that_skipped_images_is_compared_with_nothing(tmp_path, write_run, edit_json):
    whole = write_run(tmp_path, "mnist_cnn/regularized", test_accuracy=0.98)
    whole.rename(whole.with_name("20200101-000000-seed0"))
    some = write_run(tmp_path, "mnist_cnn/regularized", test_accuracy=0.5)
    edit_json(some / "summary.json", skipped_images=7)
    found = of(gather([tmp_path]), "mnist_cnn/regularized")
    assert found.values("test_accuracy") == [0.98]
    (row,) = changed_rows(found)
    assert (row.changed, row.measured) == (("skipped images: 7",), "50.00 % test")


@pytest.mark.parametrize(
    ("wrong", "why"),
    [(float("nan"), "a finite number, got nan"), (98.0, "between 0 and 1, got 98.0")],
)
def test_an_impossible_number_is_left_out_and_said(tmp_path, write_run, edit_json, wrong, why):
    for seed, accuracy in enumerate((0.98, wrong, 0.96)):
        run = write_run(tmp_path, "digits", seed=seed, valid_accuracy=accuracy, parameters=1)
    (first, *_) = (tmp_path / "digits").glob("*-seed1")
    lines = []
    found = of(gather([tmp_path], None, lines.append), "digits")
    assert lines == [f"{first}: valid_accuracy is left out: it must be {why}"]
    assert measured(found, "valid_accuracy") == "97.00 ± 1.41 % (2 of 3 seeds)"
    assert measured(found, "parameters") == "1"
    edit_json(run / "summary.json", seconds=float("inf"))
    assert len(of(gather([tmp_path]), "digits").results) == 2


def test_devices_and_precisions_stand_in_lines_of_their_own(tmp_path, write_run):
    write_run(tmp_path, "digits", device_name="One(R) CPU @ 2GHz", seconds=7, valid_accuracy=0.8)
    write_run(tmp_path, "digits", device_name="Two", precision="bf16", valid_accuracy=0.9)
    found = of(gather([tmp_path]), "digits")
    assert {(row.device, row.lines[0].measured) for row in rows(found)} == {
        ("One @ 2GHz, fp32", "80.00 %"),
        ("Two, bf16", "90.00 %"),
    }
    assert found.mean("valid_accuracy") == pytest.approx(0.85)


def test_folders_of_images_stand_in_lines_of_their_own(tmp_path, write_run):
    for folder, accuracy in (("here/cats", 0.9), ("there/cats", 0.8), ("dogs", 0.7)):
        write_run(tmp_path, "finetune", f"data.path=/{folder}", test_accuracy=accuracy)
    for accuracy in (0.6, 0.5):
        write_run(
            tmp_path,
            "finetune",
            f"data.path=/{accuracy}",
            "data.size=192",
            "data.augment.0.size=192",
            test_accuracy=accuracy,
        )
    found = of(gather([tmp_path]), "finetune")
    assert {(row.name, row.measured) for row in rows(found)} == {
        ("finetune on cats", "90.00 % test"),
        ("finetune on cats", "80.00 % test"),
        ("finetune on dogs", "70.00 % test"),
    }
    assert {row.name for row in changed_rows(found)} == {"finetune on 0.6", "finetune on 0.5"}
    table = results_table([found])
    assert "| `finetune` on dogs | none | 70.00 % test |" in table
    assert "| `finetune` on 0.6 | `data.size" in table


def test_of_one_seed_on_one_device_the_newest_run_counts(tmp_path, write_run):
    old = write_run(tmp_path, "digits", valid_accuracy=0.1)
    old.rename(old.with_name("20200101-000000-seed0"))
    write_run(tmp_path, "digits", valid_accuracy=0.9)
    assert of(gather([tmp_path]), "digits").values("valid_accuracy") == [0.9]


def test_a_seed_is_counted_once_though_its_older_run_lacks_a_setting(tmp_path, write_run):
    old = write_run(
        tmp_path, "digits", without=("data.drop_last", "data.test_per_class"), valid_accuracy=0.1
    )
    old.rename(old.with_name("20200101-000000-seed0"))
    write_run(tmp_path, "digits", valid_accuracy=0.9)
    assert of(gather([tmp_path]), "digits").values("valid_accuracy") == [0.9]


def test_the_newest_run_counts_in_whichever_order_folders_are_given(tmp_path, write_run):
    for folder, stamp, accuracy in (("a", "20200101", 0.1), ("b", "20300101", 0.9)):
        run = write_run(tmp_path / folder, "digits", valid_accuracy=accuracy)
        run.rename(run.with_name(f"{stamp}-000000-seed0"))
    for order in ("ab", "ba"):
        found = of(gather([tmp_path / folder for folder in order]), "digits")
        assert found.values("valid_accuracy") == [0.9]


def test_a_recipe_of_ones_own_is_listed_last_with_what_it_says_is_reported(tmp_path, write_run):
    write_run(
        tmp_path, "mnist_cnn/regularized", "schedule.0.epochs=3", file="/home/mine.py",
        own_name="mine", test_accuracy=0.97,
    )  # fmt: skip
    found = gather([tmp_path])[-1]
    assert (found.name, found.own, found.epochs) == ("mine", True, 3)
    assert found.verdict("test_accuracy") == "below"
    assert found.reported.source == "004, 1b"


def write_own(write_run, out, day, epochs, filed=3, stated=True, **measured):
    """A run of one's own file, which has `filed` epochs; without what it changed, an older one."""
    changed = {"schedule.0.epochs": (filed, epochs)} if stated and epochs != filed else None
    path = write_run(
        out, "digits", f"schedule.0.epochs={epochs}", file="/home/mine.py", own_name="mine",
        changed=changed, **measured,
    )  # fmt: skip
    if not stated:
        started = json.loads((path / "recipe.json").read_text())
        del started["changed"]
        (path / "recipe.json").write_text(json.dumps(started))
    return path.rename(path.with_name(f"202001{day:02}-000000-seed0"))


def test_an_experiment_of_ones_own_is_what_its_file_says(tmp_path, write_run):
    write_own(write_run, tmp_path, 1, epochs=3, valid_accuracy=0.9)
    write_own(write_run, tmp_path, 2, epochs=7, valid_accuracy=0.8)
    mine = of(gather([tmp_path]), "mine")
    assert mine.epochs == 3
    assert mine.values("valid_accuracy") == [0.9]
    (row,) = changed_rows(mine)
    assert row.changed == ("schedule.0.epochs: 3 → 7",)


def test_an_edited_file_is_a_new_experiment_of_ones_own(tmp_path, write_run):
    write_own(write_run, tmp_path, 1, epochs=3, valid_accuracy=0.9)
    write_own(write_run, tmp_path, 2, epochs=7, filed=7, valid_accuracy=0.8)
    mine = of(gather([tmp_path]), "mine")
    assert (mine.epochs, mine.values("valid_accuracy")) == (7, [0.8])
    assert [row.changed for row in changed_rows(mine)] == [("schedule.0.epochs: 7 → 3",)]


def test_runs_that_all_changed_something_are_not_the_experiment_of_ones_own(tmp_path, write_run):
    write_own(write_run, tmp_path, 1, epochs=5, valid_accuracy=0.9)
    write_own(write_run, tmp_path, 2, epochs=7, valid_accuracy=0.8)
    mine = of(gather([tmp_path]), "mine")
    assert (mine.epochs, mine.results) == (3, ())
    assert {row.changed for row in changed_rows(mine)} == {
        ("schedule.0.epochs: 3 → 5",),
        ("schedule.0.epochs: 3 → 7",),
    }


def test_older_runs_of_ones_own_do_not_say_what_they_changed_and_the_newest_counts(
    tmp_path, write_run
):
    write_own(write_run, tmp_path, 1, epochs=3, stated=False, valid_accuracy=0.9)
    write_own(write_run, tmp_path, 2, epochs=7, stated=False, valid_accuracy=0.8)
    mine = of(gather([tmp_path]), "mine")
    assert (mine.epochs, mine.values("valid_accuracy")) == (7, [0.8])


def test_a_changed_run_that_is_another_variant_counts_as_that_one(tmp_path, write_run):
    recipe = catalogue.get_recipe("digits")
    stated = {"schedule.0.epochs": (3, recipe.schedule[0].epochs)}
    write_run(tmp_path, "digits", changed=stated, valid_accuracy=0.9)
    (result,) = of(gather([tmp_path]), "digits").results
    assert not result.changed


def test_other_metrics_are_lines_with_nothing_reported(tmp_path, write_run):
    write_run(
        tmp_path, "mnist_cnn/regularized", test_accuracy=0.98, test_f1_score=0.97531,
        valid_top5_accuracy=0.999, valid_note="good", test_broken=float("nan"), other=3,
    )  # fmt: skip
    lines = []
    (row,) = rows(of(gather([tmp_path], None, lines.append), "mnist_cnn/regularized"))
    assert [tuple(line) for line in row.lines if line.reported == "none"] == [
        ("test f1 score", "none", "0.9753", ""),
        ("validation top5 accuracy", "none", "99.90 %", ""),
    ]
    assert len(lines) == 1
    assert "test_broken is left out: it must be a finite number" in lines[0]


def test_a_broken_run_is_a_line_of_warning_and_the_others_are_read(tmp_path, write_run):
    write_run(tmp_path, "digits", seed=0, valid_accuracy=0.98)
    torn = write_run(tmp_path, "digits", seed=1, valid_accuracy=0.98)
    (torn / "summary.json").write_text('{"epochs": 1')
    without = write_run(tmp_path, "digits", seed=2, valid_accuracy=0.98)
    (without / "environment.json").unlink()
    nameless = write_run(tmp_path, "digits", seed=3, valid_accuracy=0.98)
    (nameless / "recipe.json").unlink()
    lacking = write_run(tmp_path, "digits", seed=4, valid_accuracy=0.98)
    (lacking / "summary.json").write_text('{"seed": 4}')
    strange = write_run(tmp_path, "digits", seed=5, valid_accuracy=0.98)
    (strange / "recipe.json").write_text("[]")
    lines = []
    found = of(gather([tmp_path], None, lines.append), "digits")
    assert [result.seed for result in found.results] == [0]
    for path in (torn, without, nameless, lacking, strange):
        (line,) = (line for line in lines if line.startswith(str(path)))
        assert "\n" not in line
    assert len(lines) == 5


BAD_FILES = [
    ("summary.json", {"epochs": float("inf")}),
    ("summary.json", {"epochs": "10"}),
    ("summary.json", {"seconds": 10**400}),
    ("summary.json", {"seconds": -1}),
    ("summary.json", {"warmup_seconds": "x"}),
    ("summary.json", {"skipped_images": None}),
    ("environment.json", {"packages": None}),
    ("environment.json", {"device_name": None}),
    ("environment.json", {"command": None}),
    ("recipe.json", {"name": 5}),
    ("recipe.json", {"changed": {"schedule": [1]}}),
    ("recipe.json", {"changed": []}),
    ("recipe.json", {"flat": {"seed": "0"}}),
    ("recipe.json", {"flat": {"seed": 0, "reported.nonsense": 1}}),
]


def test_a_run_with_a_value_of_another_kind_is_left_out_and_said(tmp_path, write_run, edit_json):
    for seed, (file, values) in enumerate(BAD_FILES):
        edit_json(write_run(tmp_path, "digits", seed=seed) / file, **values)
    write_run(tmp_path, "digits", seed=99, valid_accuracy=0.9)
    lines = []
    experiments = gather([tmp_path], None, lines.append)
    assert [result.seed for result in of(experiments, "digits").results] == [99]
    assert not any(each.own or each.changed for each in experiments)
    assert len(lines) == len(BAD_FILES)
    assert all("left out, it cannot be read: " in line and "\n" not in line for line in lines)


def test_an_unfinished_run_without_a_name_is_left_out(tmp_path, write_run, edit_json):
    edit_json(write_run(tmp_path, "digits", finished=False) / "recipe.json", name=5)
    lines = []
    assert not any(each.unfinished for each in gather([tmp_path], None, lines.append))
    assert "must hold an entry 'name' of type str" in lines[0]


@pytest.mark.parametrize(
    "values",
    [
        {"seed": "0"},
        {"seed": [0]},
        {"epochs": "10"},
        {"seconds": None},
        {"seconds": "5"},
        {"device_name": 5},
        {"settings": []},
        {"settings": None},
        {"measured": []},
        {"reported": {"nonsense": 1}},
        {"reported": {"source": "1", "test_accuracy": "x"}},
    ],
    ids=str,
)
def test_a_summary_with_a_value_of_another_kind_is_left_out_and_said(tmp_path, values):
    good = {"recipe": "a", "seed": 0, "measured": {}, "epochs": 1, "seconds": 1.0}
    (tmp_path / "a.json").write_text(json.dumps(good | values), encoding="utf-8")
    (tmp_path / "b.json").write_text(json.dumps(good), encoding="utf-8")
    lines = []
    (read,) = read_summaries(tmp_path, lines.append)
    assert read.recipe == "a"
    assert "a.json: left out, it cannot be read" in lines[0]


def test_what_a_run_names_is_never_imported(tmp_path, write_run, edit_json, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    path = write_run(tmp_path, "digits", valid_accuracy=0.98)
    (tmp_path / "surprise.py").write_text("raise RuntimeError('imported')\n")
    values = json.loads((path / "recipe.json").read_text())["flat"]
    edit_json(path / "recipe.json", flat=values | {"model": "surprise:Net()"})
    (result,) = of(gather([tmp_path]), "digits").changed
    assert result.changed["model"][1] == "surprise:Net()"


def test_a_run_directory_itself_and_a_folder_of_folders_are_both_read(tmp_path, write_run):
    run = write_run(tmp_path / "deep" / "er", "digits", valid_accuracy=0.98)
    for given in (run, tmp_path):
        assert len(of(gather([given]), "digits").results) == 1
    assert len(of(gather([run, tmp_path]), "digits").results) == 1


def test_a_folder_that_is_not_there_is_said(tmp_path):
    with pytest.raises(ValueError, match="must lie in a folder that exists"):
        gather([tmp_path / "nowhere"])


def test_results_without_runs_make_the_same_experiments(tmp_path, write_run):
    write_run(tmp_path, "digits", valid_accuracy=0.98)
    results = of(gather([tmp_path]), "digits").results
    shutil.rmtree(tmp_path / "digits")
    assert of(arrange(results), "digits").results == results


def test_weights_keep_the_path_that_was_given(tmp_path, monkeypatch, write_run):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "start.safetensors").touch()
    path = write_run(tmp_path / "runs", "transfer_resnet18", "model.weights=start.safetensors")
    settings = read_run(path, pytest.fail).settings
    assert settings["model.weights"] == "start.safetensors"


def test_a_folder_of_images_is_the_one_where_the_run_began(tmp_path, monkeypatch, write_run):
    monkeypatch.chdir(tmp_path)
    path = write_run(tmp_path / "runs", "digits", "data.source=ImageFolders(path='photos')")
    result = read_run(path, pytest.fail)
    assert result.settings["data.source.path"] == str(tmp_path / "photos")
    assert without_place(result).settings["data.source.path"] == "photos"
