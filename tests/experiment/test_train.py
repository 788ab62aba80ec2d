import json
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file

from fastcv import catalogue
from fastcv.data import Toy
from fastcv.data.images import Images
from fastcv.experiment.building import learner
from fastcv.experiment.directory import Run
from fastcv.experiment.origin import changed
from fastcv.experiment.results import Results
from fastcv.experiment.train import train
from fastcv.files import lock
from fastcv.learning import PreviousLR, WithSize, with_augment
from fastcv.predict import evaluation
from fastcv.recipe import check
from fastcv.recipes.digits import recipe as digits

QUICK = replace(digits, schedule=(replace(digits.schedule[0], epochs=2),))
SMALL = replace(digits.data, train_per_class=32, batch_size=16)  # 20 batches an epoch


def run_quick(tmp_path, recipe=QUICK, **options):
    return train(recipe, out=tmp_path / "runs", wandb="off", device="cpu", **options)


@pytest.mark.usefixtures("undrawn")
def test_digits_passes_97_percent(tmp_path):
    run = run_quick(tmp_path, digits)
    assert run.summary["valid_accuracy"] >= 0.97
    assert run.summary["epochs"] == 10


def test_run_directory_holds_what_it_promises(tmp_path, capsys):
    run = run_quick(tmp_path)
    found = {str(file.relative_to(run.path)) for file in run.path.rglob("*") if file.is_file()}
    figures = (
        "activations",
        "confusion_matrix",
        "curves",
        "predictions",
        "reliability",
        "schedule",
        "top_losses",
    )
    assert found == {
        "recipe.json",
        "environment.json",
        "metrics.csv",
        "steps.csv",
        "summary.json",
        "model.safetensors",
        "classes.json",
        "model.json",
        "predictions.npz",
        "predictions.csv",
        "per_class.csv",
        "top_losses.csv",
        "split.json",
        *(f"figures/{name}.png" for name in figures),
    }
    assert run.path.parent == tmp_path / "runs" / "digits"
    assert run.path.name.endswith("-seed0")
    assert Run(run.path).recipe == QUICK
    assert [row["epoch"] for row in run.metrics] == [1, 2]
    assert len(run.steps) == 2 * (1438 // 32)
    assert json.loads((run.path / "classes.json").read_text()) == [str(n) for n in range(10)]
    split = json.loads((run.path / "split.json").read_text())
    assert {part: len(names) for part, names in split.items()} == {"train": 1438, "valid": 359}
    assert sorted(split["train"] + split["valid"]) == sorted(f"#{n}" for n in range(1797))
    assert run.environment["packages"]["torch"] == torch.__version__.partition("+")[0]
    printed = capsys.readouterr().out
    assert "digits: seed 0, on cpu in fp32\n1,438 train, 359 valid; 53,002 parameters\n" in printed
    assert str(run.path) in printed
    assert len([line for line in printed.splitlines() if line.startswith("epoch")]) == 2


@pytest.mark.usefixtures("undrawn")
def test_summary_is_what_the_saved_weights_give(tmp_path):
    run = run_quick(tmp_path)
    learn = learner(QUICK, device="cpu")
    learn.model.load_state_dict(load_file(run.path / "model.safetensors"))
    logits, targets = learn.get_preds(act=lambda x: x)
    right = (logits.argmax(1) == targets).float().mean().item()
    assert run.summary["valid_accuracy"] == pytest.approx(right)
    assert run.summary["valid_accuracy"] == pytest.approx(run.metrics[-1]["valid_accuracy"])


def same_weights(a, b):
    first, second = (load_file(run.path / "model.safetensors") for run in (a, b))
    return all(torch.equal(first[name], second[name]) for name in first)


def numbers(run):
    timed = ("seconds", "images_per_second")
    return [{k: v for k, v in row.items() if k not in timed} for row in run.metrics]


@pytest.mark.usefixtures("undrawn")
def test_same_seed_gives_the_same_numbers_bit_for_bit(tmp_path):
    small = replace(QUICK, data=SMALL)
    a, b = run_quick(tmp_path, small), run_quick(tmp_path, small)
    other = run_quick(tmp_path, replace(small, seed=1))
    assert a.path != b.path
    assert numbers(a) == numbers(b)
    assert a.steps == b.steps
    assert same_weights(a, b)
    assert not same_weights(a, other)


def test_lr_find_before_a_training_changes_nothing():
    small, histories = replace(QUICK, data=SMALL), []
    for look in (False, True):
        learn = learner(small, device="cpu")
        if look:
            learn.lr_find(show_plot=False)
        small.schedule[0](learn)
        histories.append(learn.history.steps)
    assert histories[0] == histories[1]


class Stop(Exception):
    pass


@pytest.mark.parametrize(
    "rates",
    [(3e-3,), (3e-3, 1e-3), (3e-3, "valley"), (3e-3, PreviousLR(divided_by=3))],
    ids=["one", "two", "found", "previous"],
)
def test_resumed_run_equals_one_never_stopped(tmp_path, short_finder, monkeypatch, rates):
    stages = len(rates)
    schedule = tuple(replace(digits.schedule[0], epochs=3, lr=rate) for rate in rates)
    recipe = replace(digits, data=SMALL, schedule=schedule)
    draw = Results._draw
    monkeypatch.setattr(Results, "_draw", lambda self: None)
    whole = run_quick(tmp_path, recipe)

    from fastcv.learning.callbacks.checkpoint import Checkpoint

    after_epoch = Checkpoint.after_epoch
    written = []

    def stop_late(self):
        after_epoch(self)
        if self.learn.borrowed:
            return
        written.append(self.path.parent)
        if len(written) == 3 * stages - 1:
            raise Stop("after an epoch")

    monkeypatch.setattr(Checkpoint, "after_epoch", stop_late)
    with pytest.raises(Stop):
        run_quick(tmp_path, recipe)
    monkeypatch.setattr(Checkpoint, "after_epoch", after_epoch)
    stopped = Run(written[-1])
    assert stopped.summary == {}
    assert len(stopped.metrics) == 3 * stages - 1

    files = {file: file.stat().st_mtime_ns for file in stopped.path.iterdir()}
    with lock(stopped.path), pytest.raises(ValueError, match="by one process at a time"):
        train(stopped.recipe, wandb="off", device="cpu", resume=stopped.path)
    assert {file: file.stat().st_mtime_ns for file in stopped.path.iterdir()} == files

    if "valley" in rates:  # of which there is a figure more
        monkeypatch.setattr(Results, "_draw", draw)
    resumed = train(stopped.recipe, wandb="off", device="cpu", resume=stopped.path)
    assert resumed.path == stopped.path
    assert numbers(resumed) == numbers(whole)
    assert resumed.steps == whole.steps
    assert same_weights(resumed, whole)
    assert ("valley" in rates) == (resumed.path / "figures" / "lr_find.png").is_file()
    chosen = resumed.summary["learning_rates"]
    assert chosen == whole.summary["learning_rates"]
    rules = ["recipe" if isinstance(rate, float) else str(rate) for rate in rates]
    assert [(each["stage"], each["rule"]) for each in chosen] == list(enumerate(rules))
    steps = len(resumed.steps) // stages
    for each in chosen:  # the top of the cycle
        stage = resumed.steps[steps * each["stage"] : steps * (each["stage"] + 1)]
        assert max(step["lr"] for step in stage) == pytest.approx(each["lr"], rel=1e-2)
    assert resumed.environment["command"] == stopped.environment["command"]
    assert len(resumed.environment["resumed"]) == 1
    with pytest.raises(ValueError, match="is finished"):
        train(recipe, wandb="off", device="cpu", resume=resumed.path)


def test_a_run_where_nothing_can_be_locked_is_trained(tmp_path, monkeypatch):
    def refuse(self, **options):
        raise NotImplementedError("FileSystem does not appear to support flock")

    monkeypatch.setattr("filelock.FileLock.acquire", refuse)
    with lock(tmp_path):
        (tmp_path / "weights").touch()
    assert [file.name for file in tmp_path.iterdir()] == ["weights"]


@pytest.mark.usefixtures("undrawn")
def test_early_stop_keeps_its_last_epoch_and_says_so(tmp_path, capsys):
    from fastcv.learning import Constant, EarlyStop

    stage = Constant(epochs=30, lr=1e-12, early_stop=EarlyStop(patience=2, monitor="train_loss"))
    run = run_quick(tmp_path, replace(QUICK, data=SMALL, schedule=(stage,)))
    printed = capsys.readouterr().out
    epochs = len(run.metrics)
    assert epochs < 30
    assert f"epoch {epochs:>2}/30" in printed
    assert "stopped early: train_loss has not improved for 2 epochs" in printed
    kept, last = run.metrics[-3], run.metrics[-1]
    assert f"the weights are those of epoch {epochs - 2}" in printed
    for name in ("train_loss", "train_accuracy"):  # of the weights that were kept, as all others
        assert run.summary[name] == pytest.approx(kept[name])
    assert run.summary["train_loss"] != pytest.approx(last["train_loss"])
    assert run.summary["valid_loss"] == pytest.approx(kept["valid_loss"], rel=1e-4)


@pytest.mark.usefixtures("undrawn")
def test_epoch_lines_are_printed_once_beside_a_test_set(tmp_path, capsys):
    from fastcv.data import Toy
    from fastcv.data.images import Images

    toy = Images(source=Toy(size=8, channels=1, valid=4), size=8, channels=1, batch_size=16)
    run = run_quick(tmp_path, replace(QUICK, data=toy))
    assert run.summary["images"] == [160, 40, 80]
    printed = capsys.readouterr().out
    assert [line[:9] for line in printed.splitlines() if line.startswith("epoch")] == [
        "epoch 1/2",
        "epoch 2/2",
    ]


@pytest.fixture
def untouched_test_set():
    """A recipe of two stages for which nothing validates."""
    from fastcv.data import Toy
    from fastcv.data.images import Images

    toy = Images(
        source=Toy(size=8, channels=1), size=8, channels=1, batch_size=16, test_validates=False
    )
    stage = QUICK.schedule[0]
    return replace(QUICK, data=toy, schedule=(stage, replace(stage, lr="valley")))


def test_test_set_that_must_not_validate_is_read_once_at_the_end(
    untouched_test_set, tmp_path, short_finder, capsys, monkeypatch
):
    from fastcv.data.loader import ImageDL

    read = []
    whole = ImageDL.__iter__

    def counted(self):
        read.append(len(self.dataset))
        return whole(self)

    monkeypatch.setattr(ImageDL, "__iter__", counted)
    run = run_quick(tmp_path, untouched_test_set)
    assert read.count(80) == 1
    assert read.index(80) > max(place for place, count in enumerate(read) if count == 160)
    assert "160 train, 80 test; " in capsys.readouterr().out
    assert run.summary["images"] == [160, 0, 80]
    assert not any("valid" in column for row in run.metrics for column in row)
    assert run.summary["test_accuracy"] >= 1 / 80
    assert run.summary.get("valid_accuracy") is None
    assert run.summary["best_valid_accuracy"] is None
    assert "best_test_accuracy" not in run.summary
    assert {file.stem for file in run.path.glob("figures/*.png")} >= {"curves", "lr_find"}

    data = replace(untouched_test_set.data, test_validates=True)
    learn = learner(replace(untouched_test_set, data=data), device="cpu")
    for stage in untouched_test_set.schedule:
        stage(learn)
    assert [row["train_loss"] for row in learn.history.rows] == [
        row["train_loss"] for row in run.metrics
    ]
    assert learn.history.row["valid_accuracy"] == pytest.approx(run.summary["test_accuracy"])


@pytest.mark.usefixtures("undrawn")
@pytest.mark.parametrize("monitor", ["valid_loss", "valid_accuracy"])
def test_monitor_without_validation_images_is_refused_before_training(
    untouched_test_set, tmp_path, monitor
):
    from fastcv.learning import Constant, EarlyStop, Plateau

    for stage in (
        Constant(epochs=2, lr=1e-3, early_stop=EarlyStop(monitor=monitor)),
        Plateau(epochs=2, lr=1e-3, monitor=monitor),
    ):
        with pytest.raises(ValueError, match=f"monitors {monitor} must have images") as error:
            run_quick(tmp_path, replace(untouched_test_set, schedule=(stage,)))
        assert "\n" not in str(error.value)
        assert list(tmp_path.iterdir()) == []
    stage = Plateau(epochs=2, lr=1e-3, monitor=monitor.replace("valid", "train"))
    run = run_quick(tmp_path, replace(untouched_test_set, schedule=(stage,)))
    assert len(run.metrics) == 2


def test_resuming_without_a_checkpoint_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"must hold environment\.json"):
        train(QUICK, wandb="off", resume=tmp_path)


def test_loss_that_is_not_finite_stops_with_epoch_and_batch(tmp_path):
    broken = replace(QUICK, schedule=(replace(QUICK.schedule[0], lr=1e30),))
    with pytest.raises(FloatingPointError, match=r"got (nan|inf) in epoch 1, batch \d+"):
        run_quick(tmp_path, broken)


def test_mistake_in_a_stage_leaves_nothing_behind(tmp_path):
    broken = replace(QUICK, schedule=(replace(QUICK.schedule[0], frozen=True),))
    with pytest.raises(ValueError, match="more than one parameter group"):
        run_quick(tmp_path, broken)
    assert list(tmp_path.iterdir()) == []


def test_smoke_run_says_so_everywhere(tmp_path, undrawn, capsys):
    run = run_quick(tmp_path, smoke=True)
    assert run.path.parent.name == "digits-smoke"
    assert run.summary["smoke"] is True
    assert run.started["smoke"] is True
    assert run.summary["verdicts"] == {}
    printed = capsys.readouterr().out.splitlines()
    assert sum(line.startswith("SMOKE RUN") for line in printed) == 2
    assert Run(run.path).recipe == QUICK  # the recipe that was tried, not its toy


@pytest.mark.usefixtures("undrawn")
def test_check_compares_a_run_with_its_report(tmp_path, capsys):
    from fastcv.recipe import Reported

    reported = Reported(source="000", valid_accuracy=0.99, parameters=53_002, tolerance=0.2)
    run = run_quick(tmp_path, replace(QUICK, reported=reported))
    assert [(row.metric, row.verdict) for row in check(run)] == [
        ("valid_accuracy", "within"),
        ("parameters", "within"),
    ]
    assert run.summary["reported"] == {"valid_accuracy": 0.99, "parameters": 53_002}
    assert run.summary["verdicts"] == {"valid_accuracy": "within", "parameters": "within"}
    said = "not the reported experiment; changed: schedule.0.epochs: 10 → 2"
    assert capsys.readouterr().out.splitlines()[-2:] == [said, str(run.path)]


@pytest.mark.usefixtures("undrawn")
def test_a_run_ends_with_its_accuracies_though_no_report_gives_one(tmp_path, capsys):
    source = Toy(size=8, channels=1, train=8, test=4)
    data = Images(source=source, size=8, channels=1, batch_size=8, holdout=2)
    summary = run_quick(tmp_path, replace(QUICK, data=data)).summary
    lines = capsys.readouterr().out.splitlines()
    accuracies = "accuracy: train {:.2%}, validation {:.2%}, test {:.2%}".format(
        *(summary[f"{part}_accuracy"] for part in ("train", "valid", "test"))
    )
    interval, weakest, use = lines[lines.index(accuracies) + 1 : -1]
    low, high = evaluation.wilson(round(40 * summary["test_accuracy"]), 40)
    assert f"{low:.1%} to {high:.1%} (test images)" in interval
    assert weakest.startswith("weakest classes: ")
    assert use.startswith("use it with: fastcv predict ")


def test_what_a_run_changed_is_known_by_the_file_of_its_recipe(tmp_path):
    shorter = {"schedule.0.epochs": (10, 2)}
    assert changed(QUICK) == shorter
    assert changed(replace(digits, seed=7, precision="bf16")) == {}
    assert changed(replace(QUICK, name="of a script")) == {}
    file = tmp_path / "changed_own.py"
    file.write_text(
        "from dataclasses import replace\n"
        "from fastcv.recipes.digits import recipe\n"
        "recipe = replace(recipe, seed=3)\n"
        "variants = {'large': replace(recipe, data=replace(recipe.data, batch_size=64))}\n"
    )
    for reference in (f"{file}", f"{file}/large"):
        own = catalogue.get_recipe(reference)
        assert changed(own) == {}
        assert changed(replace(own, schedule=QUICK.schedule)) == shorter


def test_learner_is_a_whole_fastai_learner():
    from fastai.learner import Learner

    learn = learner(QUICK, device="cpu")
    assert isinstance(learn, Learner)
    learn.fit_one_cycle(1, 3e-3)
    assert learn.recorder.values[0][2] == pytest.approx(learn.history.rows[0]["valid_accuracy"])
    assert learn.recorder.values[0][1] == pytest.approx(learn.history.rows[0]["valid_loss"])
    probabilities, targets = learn.get_preds()
    assert probabilities.shape == (359, 10)
    assert torch.allclose(probabilities.sum(1), torch.ones(359), atol=1e-5)
    assert (probabilities.argmax(1) == targets).float().mean() > 0.3
    name, index, scores = learn.predict(learn.dls.valid_ds.items[0].image)
    assert name == learn.dls.vocab[index] == learn.dls.vocab[scores.argmax()]
    assert learn.tta(n=1, use_max=False)[0].shape == (359, 10)
    assert len(learn.history.rows) == 1  # neither prediction nor tta counted as training


def test_interrupt_in_the_first_epoch_keeps_nothing(tmp_path, monkeypatch, capsys):
    from fastcv.learning.callbacks.history import History

    def interrupt(self):
        raise KeyboardInterrupt

    monkeypatch.setattr(History, "after_train", interrupt)
    with pytest.raises(KeyboardInterrupt):
        run_quick(tmp_path)
    assert "nothing was kept" in capsys.readouterr().out
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("changes", "options", "message"),
    [
        ({"seed": -1}, {}, "seed must be at least 0, got -1"),
        ({"schedule": ()}, {}, "at least one stage"),
        ({}, {"wandb": "maybe"}, "wandb must be one of auto, online, offline, off, got 'maybe'"),
        ({}, {"device": "bogus"}, "device must be cpu, cuda, cuda:N or mps, got 'bogus'"),
    ],
)
def test_mistakes_are_said_before_anything_is_written(tmp_path, changes, options, message):
    with pytest.raises(ValueError, match=message):
        train(replace(QUICK, **changes), out=tmp_path / "runs", **{"wandb": "off"} | options)
    assert list(tmp_path.iterdir()) == []


def test_runs_must_go_into_a_folder(tmp_path):
    (tmp_path / "runs").write_text("a file")
    with pytest.raises(ValueError, match=r"must be writable|must go into a folder"):
        run_quick(tmp_path)


@pytest.mark.usefixtures("undrawn")
def test_own_file_with_a_callable_of_its_own_can_be_rebuilt(tmp_path):
    from fastcv import catalogue

    own_loss = "def my_loss():\n    return CrossEntropy()()\n\n\n"
    file = tmp_path / "my-own.py"
    source = catalogue.source_file("digits").read_text()
    file.write_text(
        source.replace("loss=CrossEntropy()", "loss=my_loss")
        .replace("epochs=10", "epochs=1")
        .replace("recipe = Recipe(", f"{own_loss}recipe = Recipe(")
    )
    run = run_quick(tmp_path, catalogue.get_recipe(str(file)))
    assert run.path.parent.name == "my-own"
    assert Run(run.path, trust=True).recipe.loss.__name__ == "my_loss"


def test_device_without_hardware_is_refused():
    if torch.cuda.is_available():
        pytest.skip("there is a CUDA device")
    with pytest.raises(ValueError, match="needs a GPU and a build of torch for it"):
        learner(QUICK, device="cuda")


@pytest.mark.usefixtures("undrawn")
def test_rates_of_stages_within_others_are_recorded(tmp_path):
    found = replace(QUICK.schedule[0], epochs=1, lr="valley")
    stages = (WithSize(stage=with_augment(found), size=8), replace(found, lr=1e-3))
    run = run_quick(tmp_path, replace(QUICK, schedule=stages))
    chosen = run.summary["learning_rates"]
    assert [(each["stage"], each["rule"]) for each in chosen] == [(0, "valley"), (1, "recipe")]
    first = [step["lr"] for step in run.steps[: len(run.steps) // 2]]
    assert max(first) == pytest.approx(chosen[0]["lr"], rel=1e-2)
    assert run.summary["images_per_second"] == pytest.approx(run.metrics[-1]["images_per_second"])
