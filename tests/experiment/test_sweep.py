"""Sweeps: what they search, their trials, and two processes of which one is killed."""

import json
import math
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import optuna
import pytest

from fastcv import catalogue, files, tracking
from fastcv.experiment import directory
from fastcv.experiment.results import Results
from fastcv.experiment.series import running
from fastcv.experiment.series.processes import Task
from fastcv.experiment.sweep import Sweep, Trial, storage, sweep
from fastcv.experiment.sweep.space import Choice, Range, Space, parse
from fastcv.experiment.sweep.summary import read
from fastcv.experiment.train import train
from fastcv.recipe import diff, flat

RATE = "schedule.0.lr=1e-4..1e-1:log"
SERVER = next(iter(sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)), None)


def accuracy_of(recipe):
    """The accuracy that `trained` measures: the best rate is 0.01."""
    return 0.9 - 0.1 * abs(math.log10(recipe.schedule[0].lr) + 2)


def trained(recipe, *, out, smoke, resume, write, on_epoch, sweep=None, epochs=4, **options):
    """Leave what `train` leaves, without training."""
    settings = {"device": None, "wandb": "off", "file": None, "sweep": sweep}
    run = resume or directory.create(
        recipe.name, flat(recipe), Path(out), smoke=smoke, settings=settings
    )
    rows = run.metrics
    for epoch in range(len(rows) + 1, epochs + 1):
        measured = accuracy_of(recipe) * epoch / epochs
        rows.append({"epoch": epoch, "valid_accuracy": measured, "seconds": 0.5})
        files.write_csv(run.path / "metrics.csv", rows)
        on_epoch(run)
    summary = {"images": [1438, 359]}
    summary |= {f"{part}_accuracy": accuracy_of(recipe) for part in ("valid", "test")}
    summary |= {"epochs": len(rows), "seconds": 0.5 * len(rows), "seed": recipe.seed}
    files.write_json(run.path / "summary.json", summary)
    return run


@pytest.fixture
def untrained(monkeypatch):
    monkeypatch.setattr(running, "train", trained)


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    monkeypatch.setattr(running, "_forget", lambda: None)  # there is nothing to collect
    monkeypatch.setattr(os, "fsync", lambda file: None)  # and no power cut to outlive


def search(tmp_path, *parts, lines=None, **how):
    options = {"out": tmp_path, "wandb": "off", "device": "cpu"} | how
    options.setdefault("write", (lambda line: None) if lines is None else lines.append)
    return sweep("digits", parts or [RATE], **options)


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("a.b=1e-4..1e-1:log", Range(key="a.b", low=1e-4, high=0.1, log=True)),
        ("a= -1 .. 2.5", Range(key="a", low=-1, high=2.5)),
        ("a=1..8", Range(key="a", low=1, high=8, whole=True)),
        ("a=1,2,3", Choice(key="a", options=("1", "2", "3"))),
        ("o=SGD(momentum=0.9, nesterov=True),Adam",
         Choice(key="o", options=("SGD(momentum=0.9, nesterov=True)", "Adam"))),
        ("w=(4,4),(8,8)", Choice(key="w", options=("(4,4)", "(8,8)"))),
        ("data.path=../a,'b,c'", Choice(key="data.path", options=("../a", "'b,c'"))),
    ],
)  # fmt: skip
def test_a_range_and_choices_are_read(text, part):
    assert parse(text) == part
    assert parse(str(part)) == part


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        (["lr"], "what a sweep searches must read KEY=LOW..HIGH, KEY=LOW..HIGH:log or KEY=A,B,C"),
        (["lr="], "what a sweep searches must read"),
        (["lr=1e-3"], "lr must have two or more values .* or fix it with --set lr=1e-3"),
        (["lr=1,,2"], "the values of lr must be there and differ"),
        (["lr=1,1"], "the values of lr must be there and differ"),
        (["lr=1..two"], "the range of lr must lie between two numbers, got '1..two'"),
        (["lr=2..1"], "the range of lr must begin below its end, got 2..1"),
        (["lr=0..1:log"], "the range of lr must begin above 0 for :log, got 0..1"),
        (["lr=1..2:lin"], "the range of lr may end in :log alone, got ':lin'"),
        (["lr=1..inf"], "the range of lr must be finite"),
        (["lr=(1,2"], "the brackets and quotes of lr must close"),
        ([], "a sweep must have something to search"),
        (["schedule.0.lr=1..2", "schedule.0.lr=3..4"], "search each setting once"),
        (["variant=1..2"], "variant must be names of variants"),
        (["schedule.0.rl=1e-3..1"], "no setting is called 'schedule.0.rl'"),
        (["schedule.0.lr=-1..1"], "lr must be above 0, got -1.0"),
        (["data.batch_size=1.5..2.5"], "data.batch_size must be int, got '1.5'"),
        (["optimizer=Adam,Bdam"], "optimizer must be a public name .*Did you mean 'Adam'"),
        (["data.cache=1..2"], "cache must be one of auto"),
    ],
)
def test_what_cannot_be_searched_is_one_sentence_before_any_trial(tmp_path, texts, message):
    with pytest.raises(ValueError, match=message) as error:
        sweep("digits", texts, out=tmp_path)
    assert "\n" not in str(error.value)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"grid": True}, "--grid needs values to choose from, schedule.0.lr has a range"),
        ({"trials": 0}, "--trials must be at least 1"),
        ({"minutes": -1.0}, "--minutes must be above 0"),
        ({"prune": "asha"}, "--prune must be median or none, got 'asha'"),
        ({"monitor": "accuracy"}, "monitor must be train_ or valid_"),
        ({"monitor": "valid_f1"}, "--monitor must be one of train_loss, .* got 'valid_f1'"),
        ({"storage": "sqlite:///a.db"}, "must not be kept in SQLite"),
        ({"storage": "redis://me:secret@a"}, r"--storage must read .* got 'redis://a'"),
        ({"name": "../a"}, "a sweep's name must be letters"),
        ({"device": None, "devices": ["cpu", "cuda:7"]}, "device 'cuda:7'"),
    ],
)
def test_an_option_that_does_not_fit_is_one_sentence(tmp_path, asked, message):
    with pytest.raises(ValueError, match=message):
        search(tmp_path, **asked)
    assert not list(tmp_path.rglob("trials"))


def test_without_optuna_a_sentence_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(ValueError, match=r"pip install 'fastcv\[sweep\]'"):
        search(tmp_path)


TOYS = '''"""Toys, of which some validate and some test, or the test ones do both."""

from fastcv import Images, named, replace
from fastcv.data import Toy
from fastcv.learning import TTA
from fastcv.recipes.digits import recipe as digits

toys = Images(source=Toy(classes=3, size=8, train=4, valid=2, test=2), size=8, batch_size=4)
recipe = replace(digits, name="toys", data=toys)
recipe = replace(recipe, schedule=(replace(digits.schedule[0], epochs=1, callbacks=(TTA(),)),))
variants = named(
    recipe,
    on_test=replace(recipe, data=replace(toys, source=Toy(classes=3, size=8, train=4, valid=0))),
)
'''


def test_a_recipe_that_validates_on_test_images_needs_a_word(tmp_path, untrained):
    (tmp_path / "toys.py").write_text(TOYS)
    name, options = str(tmp_path / "toys.py/on_test"), {"out": tmp_path, "write": lambda line: None}
    with pytest.raises(ValueError, match=r"must choose on validation images, .* add --on-test"):
        sweep(name, [RATE], **options)
    found = sweep(name, [RATE], trials=1, on_test=True, device="cpu", **options)
    assert found.on_test
    assert found.final == "test_accuracy"
    assert "359 test images" in found.result
    assert "judge it on new images" in found.caution


def test_a_trial_leaves_test_images_alone(tmp_path, monkeypatch):
    monkeypatch.setattr(Results, "_draw", lambda self: None)
    (tmp_path / "toys.py").write_text(TOYS)
    recipe = catalogue.get_recipe(str(tmp_path / "toys.py"))
    options = {"out": tmp_path, "wandb": "off", "device": "cpu", "write": lambda line: None}
    summary = train(recipe, **options).summary
    assert summary["images"] == [12, 6, 6]
    assert summary["test_accuracy"] is not None
    started, start = {}, tracking.start

    def starts(mode, **how):
        started.update(how)
        return start(mode, **how)

    monkeypatch.setattr(tracking, "start", starts)
    trial = train(recipe, sweep="some", **options)
    assert started["group"] == "some"
    assert trial.summary["images"] == [12, 6]
    assert not [name for name in trial.summary if name.startswith("test_")]
    assert trial.summary["valid_accuracy"] == summary["valid_accuracy"]
    assert trial.summary["tta_accuracy"] is not None  # of the validation images
    assert trial.started["settings"]["sweep"] == "some"


def test_report_003s_table_is_part_of_one_grid():
    """Every row but model 4, which only tests in other batches."""
    name = "light_resnet_cifar10"
    space = Space.of(name, [], [
        "variant=model1,model5,model8",
        "data.batch_size=128,256,512",
        "optimizer=Adam,SGD(momentum=0.9, weight_decay=1e-4)",
        "schedule.0.lr=0.001,0.01,0.1",
    ])  # fmt: skip
    grid = [flat(space.recipe(texts)) for texts in space.grid()]
    assert len(grid) == 54
    for row in (0, 1, 2, 3, 5, 6, 7, 8):
        wanted = flat(catalogue.get_recipe(f"{name}/model{row}"))
        assert sum(not diff(wanted, found) for found in grid) == 1, row


def test_the_best_settings_are_found_and_written_down(tmp_path, untrained):
    lines = []
    found = search(tmp_path, RATE, "data.batch_size=32,64", trials=25, prune="none", lines=lines)
    assert found.counts == "25 finished"
    best = found.best
    assert best.value == max(trial.value for trial in found.trials)
    rate = float(best.settings["schedule.0.lr"])
    assert abs(math.log10(rate) + 2) < 0.3
    assert found.importances["schedule.0.lr"] > 0.8  # the batch size decides nothing
    low, high = found.interval
    assert low < best.value < high
    folder = tmp_path / "sweeps/digits"
    assert read(folder) == found
    kept = json.loads((folder / "sweep.json").read_text())["best"]
    assert kept["command"] == found.command
    assert lines[-2] == f"run it again with: {found.command}"
    words = found.command.split()
    assert words[:3] == ["fastcv", "recipe", "digits"]
    # The command makes the recipe that the best trial ran.
    again = Space.of("digits", [], [RATE]).recipe({"schedule.0.lr": best.settings["schedule.0.lr"]})
    ran = directory.Run(folder / best.run)
    assert not diff(
        flat(replace(again, data=replace(again.data, batch_size=int(words[-1].split("=")[1])))),
        ran.started["flat"],
    )
    assert ran.started["settings"]["sweep"] == "sweep-digits"


def test_the_same_command_goes_on_and_draws_the_same(tmp_path, untrained):
    whole = search(tmp_path / "a", trials=14)
    for trials in (3, 8, 14):
        parts = search(tmp_path / "b", trials=trials)
        assert len(parts.trials) == trials
    settings = [trial.settings for trial in whole.trials]
    assert [trial.settings for trial in parts.trials] == settings
    assert len({str(each) for each in settings}) == 14
    with pytest.raises(ValueError, match=r"has another search, .* with --name"):
        search(tmp_path / "b", "schedule.0.lr=1e-4..1:log")
    other = search(tmp_path / "b", "schedule.0.lr=1e-4..1:log", name="other", trials=1)
    assert len(other.trials) == 1


def test_two_processes_try_each_combination_of_a_grid_once(tmp_path, monkeypatch):
    """The second sweep runs within the trials of the first."""
    inside = []

    def nested(recipe, **options):
        if not inside:
            inside.append(True)
            search(tmp_path, *parts, grid=True, trials=3)
        return trained(recipe, **options)

    parts = ["schedule.0.lr=1e-3,1e-2,1e-1", "data.batch_size=32,64"]
    monkeypatch.setattr(running, "train", nested)
    search(tmp_path, *parts, grid=True, trials=5)
    found = search(tmp_path, *parts, grid=True)
    tried = [tuple(trial.settings.values()) for trial in found.trials]
    assert sorted(tried) == sorted(
        (rate, size) for rate in ("1e-3", "1e-2", "1e-1") for size in ("32", "64")
    )
    assert found.counts == "6 finished"
    assert found.best.settings["schedule.0.lr"] == "1e-2"


def test_few_choices_are_tried_once_each(tmp_path, untrained):
    found = search(tmp_path, "schedule.0.lr=1e-3,1e-2", trials=9)
    assert found.grid
    assert len(found.trials) == 2


def test_a_trial_below_the_median_is_pruned_and_its_checkpoint_removed(tmp_path, monkeypatch):
    def kept(recipe, *, on_epoch, **options):
        def after(run):
            (run.path / "last.ckpt").touch()
            on_epoch(run)

        return trained(recipe, on_epoch=after, **options)

    monkeypatch.setattr(running, "train", kept)
    found = search(tmp_path, trials=20, settings=["schedule.0.epochs=4"])
    pruned = [trial for trial in found.trials if trial.state == "pruned"]
    assert pruned
    for trial in pruned:
        assert trial.value is None
        assert trial.epochs < 4
        assert "is below the median" in trial.reason
        assert not (tmp_path / "sweeps/digits" / trial.run / "last.ckpt").exists()
    # Optuna's rule, counted again: worse than the median of those before it at that epoch.
    with storage.connected(None, tmp_path / "sweeps/digits") as journal:
        study = optuna.load_study(study_name="sweep-digits", storage=journal)
    trial = next(each for each in study.trials if each.state.name == "PRUNED")
    at = max(trial.intermediate_values)
    before = [
        max(value for epoch, value in each.intermediate_values.items() if epoch <= at)
        for each in study.trials[: trial.number]
        if each.state.name == "COMPLETE" and at in each.intermediate_values
    ]
    assert max(trial.intermediate_values.values()) < sorted(before)[len(before) // 2]


def test_a_failed_trial_is_recorded_and_the_sweep_goes_on(tmp_path, monkeypatch):
    def fails(recipe, **options):
        if recipe.data.batch_size == 64:
            raise FloatingPointError("the loss must stay finite, got nan")
        return trained(recipe, **options)

    monkeypatch.setattr(running, "train", fails)
    sizes = "data.batch_size=32,64,16"
    found = search(tmp_path, sizes, grid=True, settings=["schedule.0.lr=0.01"])
    assert [trial.state for trial in found.trials] == ["finished", "failed", "finished"]
    assert found.trials[1].reason == "the loss must stay finite, got nan"

    def memory(recipe, **options):
        raise RuntimeError("CUDA out of memory")

    monkeypatch.setattr(running, "train", memory)
    message = "the first 3 trials of a sweep must not all fail, .* CUDA out of memory"
    with pytest.raises(ValueError, match=message):
        search(tmp_path, name="hopeless")
    assert read(tmp_path / "sweeps/hopeless").counts == "3 failed"


def test_a_value_that_is_not_finite_fails_the_trial(tmp_path, monkeypatch):
    def nan(recipe, **options):
        run = trained(recipe, **options)
        files.write_json(run.path / "summary.json", {"valid_accuracy": None, "seconds": 1.0})
        return run

    monkeypatch.setattr(running, "train", nan)
    with pytest.raises(ValueError, match="valid_accuracy must be a finite number in the end"):
        search(tmp_path)


def test_a_stopped_trial_is_resumed_first_and_a_finished_one_is_told(tmp_path, monkeypatch):
    resumed = []

    def stops(recipe, *, on_epoch, resume, **options):
        resumed.append(resume and resume.path)

        def after(run):
            (run.path / "last.ckpt").touch()
            on_epoch(run)
            if len(run.metrics) == 2 and resume is None:
                raise KeyboardInterrupt

        return trained(recipe, on_epoch=after, resume=resume, **options)

    monkeypatch.setattr(running, "train", stops)
    monkeypatch.setattr("fastcv.experiment.series.jobs.checkpoint.read", lambda path: {})
    lines = []
    with pytest.raises(KeyboardInterrupt):
        search(tmp_path, trials=2, lines=lines)
    assert "stopped; the same command goes on" in lines
    left = read(tmp_path / "sweeps/digits")
    assert left.counts == "1 running"
    with pytest.raises(KeyboardInterrupt):  # the second trial
        search(tmp_path, trials=2)
    assert resumed[1].name == resumed[1].name
    (first,) = (tmp_path / "sweeps/digits/trials/0000/digits").iterdir()
    assert resumed == [None, first, None]
    # A process that is killed between the end of a run and what it tells of it.
    (second,) = (tmp_path / "sweeps/digits/trials/0001/digits").iterdir()
    summary = {"valid_accuracy": 0.5, "seconds": 2.0, "images": [9, 10]}
    files.write_json(second / "summary.json", summary)
    found = search(tmp_path, trials=2)
    assert found.counts == "2 finished"
    assert found.trials[1].value == 0.5
    assert len(resumed) == 3


def test_a_trial_that_kills_its_process_again_and_again_is_given_up(tmp_path, monkeypatch):
    class Killed(BaseException):
        """Ends the sweep without a word, as SIGKILL does."""

    def kills(recipe, **options):
        raise Killed

    monkeypatch.setattr(running, "train", kills)
    for _ in range(3):
        with pytest.raises(Killed):
            search(tmp_path, trials=1)
    found = search(tmp_path, trials=1)
    assert found.counts == "1 failed"
    assert found.trials[0].reason == "its process was killed 3 times in the same epoch"


def test_a_trial_in_its_own_process_is_pruned_by_a_signal(tmp_path, monkeypatch):
    """The process only writes what a training writes."""
    code = (
        "import json, sys, time\nfrom pathlib import Path\n"
        "from fastcv.files import write_json, write_text\n"
        "job = json.loads(sys.argv[1])\nrun = Path(job['run'])\n"
        "def record(**what):\n    write_json(Path(job['record']), what)\n"
        "try:\n"
        "    for epoch in (1, 2, 3, 4):\n"
        "        rows = [f'{n},{job[\"value\"]},0.5' for n in range(1, epoch + 1)]\n"
        "        text = '\\n'.join(['epoch,valid_accuracy,seconds', *rows, ''])\n"
        "        write_text(run / 'metrics.csv', text)\n"
        "        record(epoch=epoch, epochs=4, run=str(run))\n"
        "        time.sleep(0.05 if job['value'] > 0.5 else 60)\n"
        "except KeyboardInterrupt:\n    record(stopped=str(run), resume=None)\n    sys.exit(130)\n"
        "seconds = {'valid_accuracy': job['value'], 'seconds': 2.0}\n"
        "write_json(run / 'summary.json', seconds)\nrecord(finished=str(run))\n"
    )
    taken = []

    def task(job, options, folder):
        taken.append((job.title, options["device"]))
        run = directory.create(
            job.name, flat(job.recipe), Path(job.options["out"]), smoke=False, settings={}
        )
        log = folder / f"{len(taken)}.log"
        value = 0.9 if len(taken) < 8 else 0.1
        work = {"run": str(run.path), "value": value, "record": str(log.with_suffix(".json"))}
        return Task(command=(sys.executable, "-c", code, json.dumps(work)), log=log)

    monkeypatch.setattr(running, "_task", task)
    lines = []
    found = search(
        tmp_path, trials=8, device=None, devices=["cpu", "cpu:0"], lines=lines,
        settings=["schedule.0.epochs=4"],
    )  # fmt: skip
    assert found.counts == "7 finished, 1 pruned"
    assert {device for _, device in taken} == {"cpu", "cpu:0"}
    assert found.trials[7].reason.startswith("valid_accuracy 0.1 after epoch 1 is below")
    assert any("[8/8] trial 7" in line and "pruned:" in line for line in lines)


MINE = '''"""Few digits, in epochs that may be held."""

import os
import time

from fastai.callback.core import Callback

from fastcv import replace
from fastcv.learning import OneCycle
from fastcv.recipes.digits import recipe as digits


class Hold(Callback):
    order = 200  # after the checkpoint

    def after_epoch(self):
        if os.environ.get("HOLD") and self.epoch == 1:
            time.sleep(600)


recipe = replace(
    digits,
    name="mine",
    data=replace(digits.data, train_per_class=6, batch_size=16),
    schedule=(OneCycle(epochs=4, lr=3e-3),),
    callbacks=(Hold,),
    precision="fp32",
)
'''


def test_a_killed_workers_trial_is_resumed_by_another(tmp_path, monkeypatch):
    """Real trainings on one journal: a process that is killed, and this one."""
    monkeypatch.setattr(Results, "_draw", lambda self: None)  # figures take most of the time
    file = tmp_path / "mine.py"
    file.write_text(MINE)
    command = [sys.executable, "-m", "fastcv.cli", "sweep", str(file), RATE, "--trials", "3"]
    command += ["--out", str(tmp_path), "--wandb", "off", "--device", "cpu", "--threads", "1"]
    folder = tmp_path / "sweeps/mine"
    environment = os.environ | {"HOLD": "1"}
    options = {"out": tmp_path, "wandb": "off", "device": "cpu", "threads": 1}
    with subprocess.Popen(
        command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    ) as worker:
        try:
            last = time.monotonic() + 300
            held = folder / "trials/0000/mine"
            while not any(len(directory.Run(run).metrics) == 2 for run in held.glob("*")):
                assert worker.poll() is None, worker.stderr.read()
                assert time.monotonic() < last
                time.sleep(0.1)
            beside = sweep(str(file), [RATE], trials=2, **options, write=lambda line: None)
            assert [trial.state for trial in beside.trials] == ["running", "finished"]
        finally:
            worker.send_signal(signal.SIGKILL)
    lines = []
    found = sweep(str(file), [RATE], trials=3, **options, write=lines.append)
    assert found.counts == "3 finished"
    (run,) = (folder / "trials/0000/mine").iterdir()
    assert f"resuming {run}" in lines
    killed = directory.Run(run)
    assert len(killed.environment["resumed"]) == 1
    assert [row["epoch"] for row in killed.metrics] == [1, 2, 3, 4]
    assert found.trials[0].value == killed.summary["valid_accuracy"]
    # What the killed process drew is what an undisturbed sweep draws, and measures the same.
    alone = sweep(str(file), [RATE], trials=1, name="alone", **options, write=lambda line: None)
    assert alone.trials[0].settings == found.trials[0].settings
    assert alone.trials[0].value == found.trials[0].value


def test_a_line_that_was_half_written_does_not_end_a_sweep(tmp_path, untrained):
    search(tmp_path, trials=2)
    with (tmp_path / "sweeps/digits/journal.log").open("a") as journal:
        journal.write('{"op_code": 4, "worker')
    assert search(tmp_path, trials=3).counts == "3 finished"


@pytest.fixture(scope="module")
def postgresql(tmp_path_factory):
    """A PostgreSQL server of our own, on a socket in a folder; gives its address."""
    if SERVER is None:
        pytest.skip("needs a PostgreSQL server: apt-get install postgresql")
    short = Path("/tmp") if os.name == "posix" else tmp_path_factory.getbasetemp()
    home = Path(
        subprocess.check_output(["mktemp", "-d", str(short / "pgXXXXXX")], text=True).strip()
    )
    user = "postgres" if os.getuid() == 0 else None  # a server refuses to run as root
    if user:
        shutil.chown(home, user)

    def server(program, *arguments):
        command = [str(SERVER / program), *arguments]
        subprocess.run(command, cwd=home, user=user, check=True, capture_output=True, timeout=120)

    data = home / "data"
    server("initdb", "-D", str(data), "-A", "trust", "-U", "fastcv", "--no-sync")
    options = f"-c listen_addresses= -c unix_socket_directories={home} -c fsync=off"
    log = str(home / "log")
    server("pg_ctl", "-D", str(data), "-l", log, "-w", "-o", options, "start")
    try:
        yield f"postgresql://fastcv@/postgres?host={home}"
    finally:
        server("pg_ctl", "-D", str(data), "-m", "immediate", "stop")
        shutil.rmtree(home)


def test_a_sweep_in_postgresql_is_shared_between_folders(tmp_path, postgresql, monkeypatch):
    """Two machines with folders of their own: one is stopped, and leaves its trial to itself."""
    inside = []

    def nested(recipe, **options):
        if not inside:
            inside.append(True)
            search(tmp_path / "b", storage=postgresql, trials=3)
            raise KeyboardInterrupt
        return trained(recipe, **options)

    monkeypatch.setattr(running, "train", nested)
    with pytest.raises(KeyboardInterrupt):
        search(tmp_path / "a", storage=postgresql, trials=3)
    found = search(tmp_path / "b", storage=postgresql, trials=4)
    assert found.counts == "3 finished, 1 running"
    found = search(tmp_path / "a", storage=postgresql, trials=4)
    assert found.counts == "4 finished"
    assert {trial.number for trial in found.trials} == {0, 1, 2, 3}
    with pytest.raises(ValueError, match="has another search"):
        search(tmp_path / "a", "data.batch_size=1..3", storage=postgresql)


def test_a_data_base_that_does_not_answer_is_one_sentence(tmp_path):
    url = f"postgresql://me:secret@/postgres?host={tmp_path}"
    with pytest.raises(ValueError, match="the data base of a sweep must answer") as error:
        search(tmp_path, storage=url)
    assert "secret" not in str(error.value)


def test_a_damaged_sweep_is_one_sentence(tmp_path):
    trial = Trial(number=0, state="finished", settings={}, value=float("nan"))
    with pytest.raises(ValueError, match="a sweep must hold texts, and trials with finite values"):
        Sweep(
            name="a", recipe="digits", settings=(), search=(), monitor="valid_loss",
            final="valid_loss", grid=False, smoke=False, trials=(trial,), importances={},
        )  # fmt: skip
