import json
import os
import signal
import statistics
import sys
import time
from dataclasses import replace

import pytest

from fastcv import catalogue, files
from fastcv.experiment import directory
from fastcv.experiment.building import find_device
from fastcv.experiment.environment import _without_password
from fastcv.experiment.series import (
    Job,
    Stopped,
    child,
    listing,
    plan,
    processes,
    record,
    run,
    running,
    table,
)
from fastcv.experiment.series.processes import Task, run_tasks
from fastcv.recipe import flat, override

# Two good experiments, one of them twice, and two that fail while they run.
FILE = '''"""Digits, and what goes wrong."""

from dataclasses import replace

from fastcv.learning.optimizers import SGD
from fastcv.learning import OneCycle
from fastcv.recipe import Reported, named
from fastcv.recipes.digits import recipe as digits


def broken(*arguments, **keywords):
    raise RuntimeError("a net that\\n cannot be built")


short = (OneCycle(epochs=1, lr=3e-3),)
recipe = replace(
    digits, schedule=short, reported=Reported(source="nowhere", valid_accuracy=0.8, tolerance=0.05)
)
variants = named(
    recipe,
    again=recipe,
    raises=replace(recipe, model=broken),
    infinite=replace(recipe, optimizer=SGD(), schedule=(OneCycle(epochs=1, lr=1e9),)),
    one_cycle=replace(recipe, schedule=(OneCycle(epochs=2, lr=3e-3),)),
)
'''

UNDRAWN = """
from fastcv.experiment.results import Results

Results._draw = lambda self: None
"""


@pytest.fixture
def mine(tmp_path):
    file = tmp_path / "mine.py"
    file.write_text(FILE)
    return str(file)


def names(jobs):
    return [(job.name, job.recipe.seed) for job in jobs]


def put_run(out, recipe, *, smoke=False, summary=None, **measured):
    """A run directory as `train` leaves it, with numbers of ours."""
    settings = {"device": None, "wandb": "off", "file": None}
    put = directory.create(recipe.name, flat(recipe), out, smoke=smoke, settings=settings)
    if summary is None:
        measured = {"epochs": 1, "seconds": 2.0, "valid_accuracy": 0.8} | measured
        summary = {"recipe": recipe.name, "seed": recipe.seed, "smoke": smoke, **measured}
    if summary:
        files.write_json(put.path / "summary.json", summary)
    return put


def test_a_series_is_the_recipe_and_its_variants_each_experiment_once(mine, tmp_path):
    jobs = plan(mine, every=True, out=tmp_path / "runs")
    assert names(jobs) == [("mine", 0), ("mine/raises", 0), ("mine/infinite", 0),
                           ("mine/one_cycle", 0)]  # fmt: skip
    assert [job.reference for job in jobs][:2] == [mine, f"{mine}/raises"]
    assert jobs[0].aliases == ("mine/again",)
    assert not any(job.changed for job in jobs)
    assert "mine (also mine/again)" in listing(jobs)


def test_settings_that_make_two_variants_one_experiment_run_it_once(mine, tmp_path):
    jobs = plan(mine, every=True, settings=["schedule.0.epochs=1"], out=tmp_path / "runs")
    assert jobs[0].aliases == ("mine/again", "mine/one_cycle")
    assert not jobs[0].changed
    (longer, *_) = plan(mine, every=True, settings=["schedule.0.epochs=3"], out=tmp_path / "runs")
    assert longer.changed


@pytest.mark.parametrize(
    ("asked", "expected"),
    [({}, [0, 1, 2]), ({"seed": 5}, [5, 6, 7]), ({"settings": ["seed=9"]}, [9, 10, 11])],
    ids=["own", "seed", "set"],
)
def test_seeds_go_up_from_the_first(tmp_path, asked, expected):
    jobs = plan("digits", seeds=3, out=tmp_path, **asked)
    assert [job.recipe.seed for job in jobs] == expected
    assert {job.recipe.name for job in jobs} == {"digits"}


def test_folds_are_the_jobs_of_each_seed(tmp_path):
    jobs = plan("digits", seeds=2, folds=3, out=tmp_path)
    assert [job.label for job in jobs] == [
        f"digits seed {seed} fold {fold}/3" for seed in (0, 1) for fold in (1, 2, 3)
    ]
    assert [job.recipe.data.fold for job in jobs[:3]] == [(1, 3), (2, 3), (3, 3)]
    assert [setting for job in jobs[:2] for setting in job.fold_settings] == [
        "data.fold=1,3",
        "data.fold=2,3",
    ]
    for job in jobs[:4]:
        put_run(tmp_path, job.recipe, valid_accuracy=0.5 + job.recipe.data.fold[0] / 10)
    put_run(tmp_path, catalogue.get_recipe("digits"))  # without folds, which is another experiment
    again = plan("digits", seeds=2, folds=3, out=tmp_path)
    assert [job.before for job in again] == [True] * 4 + [False] * 2
    assert {job.run.path.name[-11:] for job in again[:3]} == {f"seed0-fold{k}" for k in (1, 2, 3)}
    header, row, *notes = table(again).splitlines()
    assert header.split()[1:3] == ["seeds", "folds"]
    assert row.split()[1:6] == ["0,", "1", "3", "of", "3"]
    spread = 100 * statistics.stdev([0.6, 0.7, 0.8, 0.6])
    assert f"validation 67.50 ± {spread:.2f} % (n = 4)" in row
    assert "folds share training images" in "".join(notes)
    assert "folds" not in table(plan("digits", out=tmp_path))
    assert not any(job.before for job in plan("digits", folds=4, out=tmp_path))
    with pytest.raises(ValueError, match="--folds must be 2 or more, got 1"):
        plan("digits", folds=1, out=tmp_path)


def test_folds_of_data_that_has_none_fail(tmp_path):
    file = tmp_path / "mine.py"
    file.write_text(FILE + "\nrecipe = replace(recipe, data=broken)\n")
    jobs = plan(str(file), folds=2, out=tmp_path)
    assert all("--folds needs data that can be cut into folds" in job.failure for job in jobs)


def test_a_fold_in_its_own_process_has_its_own_log_and_setting(tmp_path):
    (job, _) = plan("digits", folds=2, settings=["schedule.0.epochs=1"], out=tmp_path)
    task = running._task(job, {"out": str(tmp_path)}, tmp_path)
    assert task.log.name == "digits-seed0-fold1.log"
    work = json.loads(task.command[-1])
    assert work["settings"] == ["schedule.0.epochs=1", "data.fold=1,2", "seed=0"]
    assert override(catalogue.get_recipe("digits"), *work["settings"]).data.fold == (1, 2)
    assert "--set=data.fold=1,2" in work["command"]


def test_a_setting_that_one_variant_lacks_is_its_failure_alone(mine, tmp_path):
    setting = "model.settings.dropout=0.1"  # a named function has no settings
    jobs = plan(mine, every=True, settings=[setting], seeds=2, out=tmp_path / "runs")
    failed = [job for job in jobs if job.failure]
    assert [job.name for job in failed] == ["mine/raises"]
    assert "no setting is called 'model.settings.dropout'" in failed[0].failure
    assert names(job for job in jobs if job.waits)[:2] == [("mine", 0), ("mine", 1)]


def test_a_setting_that_all_variants_lack_fails_at_once(mine, tmp_path):
    with pytest.raises(ValueError, match=r"Did you mean 'seed'\?"):
        plan(mine, every=True, settings=["sead=1"], out=tmp_path)


def test_only_a_finished_run_of_the_same_experiment_and_seed_is_done(tmp_path):
    digits = catalogue.get_recipe("digits")

    def done(*settings):
        jobs = plan("digits", settings=settings, seeds=2, seed=0, out=tmp_path)
        return [job.before for job in jobs]

    put_run(tmp_path, digits, smoke=True)
    put_run(tmp_path, digits, summary={})
    put_run(tmp_path, replace(digits, seed=2))
    put_run(tmp_path, override(digits, "schedule.0.epochs=3"))
    (tmp_path / "digits" / "strange").mkdir()
    (tmp_path / "digits" / "strange" / "summary.json").write_text("{}")
    assert done() == [False, False]
    put_run(tmp_path, override(digits, "precision=fp32", "data.path=elsewhere", "seed=1"))
    assert done() == [False, True]
    assert done("precision=fp32", "data.path=here") == [False, True]
    assert done("precision=bf16") == done("step.compile=True") == [False, False]
    put_run(tmp_path, replace(digits, name="another_name"))
    assert done() == [True, True]

    (changed, _) = plan("digits", settings=["schedule.0.epochs=3"], seeds=2, out=tmp_path)
    assert changed.before
    assert not any(job.before for job in plan("digits", seeds=2, out=tmp_path, again=True))
    assert not any(job.before for job in plan("digits", seeds=2, out=tmp_path, smoke=True))


def test_a_run_older_than_a_setting_is_done_where_its_default_is_asked_for(tmp_path):
    put = put_run(tmp_path, catalogue.get_recipe("digits"))

    def done_without(key):
        written = {**put.started, "flat": flat(catalogue.get_recipe("digits"))}
        del written["flat"][key]
        files.write_json(put.path / "recipe.json", written)
        return plan("digits", out=tmp_path)[0].before

    assert done_without("loss.label_smoothing")  # 0 without
    assert not done_without("data.batch_size")  # what it was cannot be known
    assert done_without("precision")
    assert plan("digits", settings=["precision=auto"], out=tmp_path)[0].before
    assert not plan("digits", settings=["precision=bf16"], out=tmp_path)[0].before


def test_a_run_on_another_folder_of_the_same_relative_path_is_not_done(tmp_path, monkeypatch):
    def planned(place):
        (tmp_path / place).mkdir(exist_ok=True)
        monkeypatch.chdir(tmp_path / place)
        settings = ["data.source=ImageFolders(path='photos')"]
        return plan("digits", settings=settings, out=tmp_path)[0]

    recipe = planned("a").recipe
    place = str(tmp_path / "a")
    settings = {"device": "cpu", "wandb": "off", "file": None, "cwd": place}
    run = directory.create("digits", flat(recipe), tmp_path, smoke=False, settings=settings)
    files.write_json(run.path / "summary.json", {"seed": 0, "epochs": 1, "seconds": 1.0})
    assert planned("a").run == run
    assert planned("b").run is None


def test_of_several_runs_the_newest_counts(tmp_path):
    digits = catalogue.get_recipe("digits")
    first, second = put_run(tmp_path, digits), put_run(tmp_path, digits)
    os.utime(first.path / "summary.json", (time.time() + 9, time.time() + 9))
    assert plan("digits", out=tmp_path)[0].run == first
    os.utime(second.path / "summary.json", (time.time() + 99, time.time() + 99))
    assert plan("digits", out=tmp_path)[0].run == second


@pytest.mark.parametrize(
    ("reference", "asked", "message"),
    [
        ("digits", {"seeds": 0}, "--seeds must be 1 or more, got 0"),
        ("mnist_cnn/one_cycle", {"every": True}, "leave /one_cycle out"),
        ("digit", {"every": True}, "Did you mean 'digits'?"),
    ],
)
def test_what_cannot_be_planned_is_one_sentence(tmp_path, reference, asked, message):
    with pytest.raises(ValueError, match=message):
        plan(reference, out=tmp_path, **asked)


@pytest.mark.usefixtures("undrawn")
def test_a_failed_run_is_reported_and_the_rest_continue(mine, tmp_path, capsys):
    out, said = tmp_path / "runs", []
    jobs = plan(mine, every=True, out=out)
    done = run(jobs, out=out, wandb="off", device="cpu", write=said.append)
    assert [bool(job.run) for job in done] == [True, False, False, True]
    assert done[1].failure == "RuntimeError: a net that cannot be built"
    assert "the loss must stay finite" in done[2].failure
    assert "[2/4] mine/raises seed 0: failed: RuntimeError: a net that cannot be built" in said
    assert any(line.startswith("[4/4] mine/one_cycle seed 0: done: validation ") for line in said)
    assert done[3].run.summary["epochs"] == 2

    shown = table(done).splitlines()
    assert [line.split()[0] for line in shown[1:5]] == [job.name for job in jobs]
    assert "1 failed" in shown[2]
    assert "failed: mine/raises seed 0: RuntimeError: a net that cannot be built" in shown
    planned = plan(mine, every=True, out=out)
    assert [job.before for job in planned] == [True, False, False, True]
    assert planned[0].run == done[0].run
    assert "epoch 2/2" in capsys.readouterr().out


def test_stopping_stops_them_all_and_keeps_what_is_done(tmp_path, monkeypatch):
    def train(recipe, **options):
        if recipe.seed == 1:
            raise KeyboardInterrupt
        return put_run(tmp_path, recipe)

    monkeypatch.setattr(running, "train", train)
    jobs = plan("digits", seeds=3, out=tmp_path)
    with pytest.raises(Stopped) as stopped:
        run(jobs, out=tmp_path, write=lambda line: None)
    assert [bool(job.run) for job in stopped.value.jobs] == [True, False, False]
    shown = table(stopped.value.jobs)
    assert "1 run, 2 not run" in shown
    assert "not run: digits seed 1, digits seed 2" in shown


def measured_jobs(tmp_path, recipe, rows, **more):
    """Finished jobs whose runs measured `rows`, a seed each."""
    jobs = []
    for seed, row in enumerate(rows):
        seeded = replace(recipe, seed=seed)
        put = put_run(tmp_path, seeded, **row)
        jobs.append(Job(reference=recipe.name, name=recipe.name, recipe=seeded, run=put, **more))
    return jobs


def test_table_gives_mean_and_sample_deviation_over_the_seeds(mine, tmp_path):
    accuracies, seconds, warmups = [0.80, 0.83, 0.87], [10.0, 12.5, 11.0], [3.0, 4.0, 5.0]
    rows = [
        {"valid_accuracy": a, "seconds": s, "warmup_seconds": w, "epochs": e}
        for a, s, w, e in zip(accuracies, seconds, warmups, [1, 3, 2], strict=True)
    ]
    jobs = measured_jobs(tmp_path, catalogue.get_recipe(mine), rows)
    header, row, *rest = table([replace(jobs[0], before=True), *jobs[1:]]).splitlines()
    column = {
        name: header.index(name)
        for name in (
            "seeds",
            "reported",
            "measured",
            "within",
            "epochs",
            "seconds",
            "warm-up",
            "runs",
        )
    }
    starts = [*column.values(), None]
    cells = {name: row[starts[i] : starts[i + 1]].strip() for i, name in enumerate(column)}
    mean, spread = statistics.mean(accuracies) * 100, statistics.stdev(accuracies) * 100
    assert cells["seeds"] == "0, 1, 2"
    assert cells["reported"] == "validation 80 %"
    assert cells["measured"] == f"validation {mean:.2f} ± {spread:.2f} % (n = 3)"
    assert cells["within"] == "yes"
    assert cells["epochs"] == "1-3"
    assert cells["seconds"] == (f"{statistics.mean(seconds):.1f} ± {statistics.stdev(seconds):.1f}")
    assert cells["warm-up"] == "4.0 ± 1.0"
    assert cells["runs"] == "2 run, 1 done before"
    assert rest == []


def test_table_shows_views_and_plain_where_nothing_is_reported(tmp_path):
    rows = [{"tta_accuracy": 0.94, "test_accuracy": 0.93}] * 2
    jobs = measured_jobs(tmp_path, replace(catalogue.get_recipe("digits"), name="speed"), rows)
    shown = table(jobs)
    assert "with TTA 94.00 ± 0.00 %, test 93.00 ± 0.00 % (n = 2)" in shown
    assert shown.splitlines()[1].split()[-3:] == ["-", "2", "run"]  # no warm-up was taken


def test_table_says_that_runs_trained_on_unlike_images(tmp_path):
    recipe = catalogue.get_recipe("digits")
    rows = [{"valid_accuracy": 0.9, "images": [27, 9]}, {"valid_accuracy": 0.8, "images": [27, 9]}]
    assert "--again" not in table(measured_jobs(tmp_path, recipe, rows))
    rows.append({"valid_accuracy": 0.7, "images": [1045, 15]})
    said = table(measured_jobs(tmp_path, recipe, rows))
    assert "the runs of digits trained on 27 and 1,045 images: to train all" in said


def test_table_says_what_is_changed_and_what_only_smoke(mine, tmp_path):
    recipe = catalogue.get_recipe(mine)
    changed = table(measured_jobs(tmp_path, recipe, [{}], changed=True))
    assert "changed" in changed.splitlines()[1]
    assert "another experiment" in changed
    smoke = table(measured_jobs(tmp_path, recipe, [{}], smoke=True))
    assert "80.00 %" not in smoke
    assert "SMOKE RUN" in smoke


def task(tmp_path, code, name="job"):
    return Task(command=(sys.executable, "-c", code), log=tmp_path / f"{name}.log")


def test_tasks_run_so_many_at_a_time_and_each_is_heard_of(tmp_path):
    tasks = [task(tmp_path, f"import sys; print({n}); sys.exit({n})", f"{n}") for n in range(5)]
    at_once, started, ended = [], [], {}

    def start(each):
        started.append(each)
        at_once.append(len(started) - len(ended))

    waiting = iter(tasks)
    take = lambda: next(waiting, None)  # noqa: E731
    run_tasks(take, 2, started=start, ended=lambda each, status: ended.update({each: status}))
    assert started == tasks
    assert max(at_once) == 2
    assert [ended[each] for each in tasks] == [0, 1, 2, 3, 4]
    assert [each.log.read_text() for each in tasks] == [f"{n}\n" for n in range(5)]


def test_threads_are_divided_unless_the_user_said_how_many(tmp_path, monkeypatch):
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    told = "import os; print(os.environ['OMP_NUM_THREADS'])"

    def threads(tasks, at_once):
        waiting = iter(tasks)
        run_tasks(
            lambda: next(waiting, None),
            at_once,
            started=lambda each: None,
            ended=lambda each, status: None,
        )
        return {each.log.read_text().strip() for each in tasks}

    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    two = [task(tmp_path, told, "a"), task(tmp_path, told, "b")]
    assert threads(two, 2) == {str(max(1, cores // 2))}
    assert threads(two[:1], 1) == {str(cores)}  # nothing to share with
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    assert threads(two, 2) == {"7"}


def interrupted(tmp_path, code, by):
    """Start two tasks, call `by` once both are ready; give their logs and process numbers."""
    tasks = [task(tmp_path, f"import os; print(os.getpid(), flush=True)\n{code}", n) for n in "ab"]

    def watched(running):
        if all(each.log.read_text().endswith("ready\n") for each in tasks):
            by()
        return ()

    waiting = iter(tasks)
    with pytest.raises(KeyboardInterrupt):
        run_tasks(
            lambda: next(waiting, None),
            2,
            started=lambda each: None,
            ended=lambda each, status: None,
            watched=watched,
        )
    logs = [each.log.read_text().split() for each in tasks]
    return logs, [int(log[0]) for log in logs]


def gone(number):
    try:
        os.kill(number, 0)
    except ProcessLookupError:
        return True
    return False


LISTENS = """
import time
try:
    print("ready", flush=True)
    time.sleep(60)
except KeyboardInterrupt:
    time.sleep(0.3)
    print("written", flush=True)
"""
DEAF = """
import signal, time
signal.signal(signal.SIGINT, signal.SIG_IGN)
print("ready", flush=True)
time.sleep(60)
"""


def ctrl_c():
    raise KeyboardInterrupt


def terminate():
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(5)  # the signal ends it


@pytest.mark.parametrize("by", [ctrl_c, terminate])
def test_children_are_interrupted_once_and_waited_for(tmp_path, by):
    before = signal.getsignal(signal.SIGTERM)
    logs, numbers = interrupted(tmp_path, LISTENS, by)
    assert [log[1:] for log in logs] == [["ready", "written"]] * 2
    assert all(gone(number) for number in numbers)
    assert signal.getsignal(signal.SIGTERM) == before


def test_children_that_do_not_hear_are_killed(tmp_path, monkeypatch):
    monkeypatch.setattr(processes, "STOP_SECONDS", 0.5)
    _, numbers = interrupted(tmp_path, DEAF, ctrl_c)
    assert all(gone(number) for number in numbers)


def test_children_hear_though_the_series_began_in_the_background(tmp_path):
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        logs, _ = interrupted(tmp_path, LISTENS, terminate)
    finally:
        signal.signal(signal.SIGINT, before)
    assert [log[1:] for log in logs] == [["ready", "written"]] * 2


@pytest.mark.parametrize(
    ("found", "status", "reason"),
    [
        ({"failed": "the loss was bad"}, 2, "the loss was bad"),
        ({"epoch": 1, "epochs": 2, "run": "here"}, -signal.SIGKILL,
         "SIGKILL ended its process: is there enough memory for --jobs?"),
        ({}, -signal.SIGSEGV, "SIGSEGV ended its process"),
        ({"stopped": "here", "resume": "fastcv resume here"}, 130,
         "interrupted; resume it with: fastcv resume here"),
        ({"stopped": None, "resume": None}, 130, "interrupted; nothing was kept"),
        ({"epoch": 1, "epochs": 2, "run": "here"}, 3, "its process ended with status 3"),
    ],
)  # fmt: skip
def test_the_reason_of_a_failed_process_is_what_it_recorded_or_its_end(found, status, reason):
    assert record.failure(found, status) == reason


def worked(tmp_path, monkeypatch, trained):
    """Do a job as its process would, with another `train`; give its status and its record."""
    monkeypatch.setattr(sys, "argv", ["child"])
    monkeypatch.setattr(child, "train", trained)
    options = {"out": str(tmp_path), "wandb": "off", "device": "cpu", "smoke": False}
    job = {
        "command": ["fastcv", "recipe", "digits"], "record": str(tmp_path / "digits.json"),
        "reference": "digits", "settings": ["seed=3"], "options": options,
    }  # fmt: skip
    status = child.work(job)
    assert sys.argv == job["command"]
    return status, record.read(tmp_path / "digits.json")


def test_a_process_records_how_far_it_is_and_what_it_finished(tmp_path, monkeypatch):
    seen = []

    def trained(recipe, on_epoch, **options):
        put = put_run(tmp_path, recipe)
        for epoch in (1, 2):
            files.write_csv(put.path / "metrics.csv", [{"epoch": n + 1} for n in range(epoch)])
            on_epoch(put)
            seen.append(record.read(tmp_path / "digits.json"))
        return put

    status, found = worked(tmp_path, monkeypatch, trained)
    run = str(next((tmp_path / "digits").iterdir()))
    assert run.endswith("seed3")
    assert (status, found) == (0, {"finished": run})
    assert seen == [{"epoch": n, "epochs": 10, "run": run} for n in (1, 2)]
    assert [record.progress(each) for each in ({}, *seen)] == [
        "starting", "epoch 1/10", "epoch 2/10"
    ]  # fmt: skip


@pytest.mark.parametrize("kept", [True, False])
def test_a_process_that_is_interrupted_records_how_to_go_on(tmp_path, monkeypatch, kept):
    def trained(recipe, on_epoch, **options):
        put = put_run(tmp_path, recipe, summary={})
        if kept:
            on_epoch(put)
            (put.path / "last.ckpt").touch()
        raise KeyboardInterrupt

    status, found = worked(tmp_path, monkeypatch, trained)
    run = str(next((tmp_path / "digits").iterdir()))
    stopped = {"stopped": run, "resume": f"fastcv resume {run}"}
    assert (status, found) == (130, stopped if kept else {"stopped": None, "resume": None})


def test_a_process_that_fails_records_why_and_logs_it(tmp_path, monkeypatch, capsys):
    def mistaken(recipe, **options):
        raise ValueError("the sentence\n for a user")

    def faulty(recipe, **options):
        raise ZeroDivisionError("division by zero")

    assert worked(tmp_path, monkeypatch, mistaken) == (2, {"failed": "the sentence for a user"})
    assert capsys.readouterr().err == "fastcv: the sentence for a user\n"
    with pytest.raises(ZeroDivisionError):  # its traceback goes to the log
        worked(tmp_path, monkeypatch, faulty)
    assert record.read(tmp_path / "digits.json") == {
        "failed": "ZeroDivisionError: division by zero"
    }


def test_jobs_run_in_processes_of_their_own(mine, tmp_path, undrawn):
    """Real trainings, one of which fails: what each says is in its log."""
    with open(mine, "a") as file:  # in this process, `undrawn` puts back what it changes
        file.write(UNDRAWN)
    out, said = tmp_path / "runs", []
    jobs = plan(mine, every=True, seed=4, settings=["data.batch_size=64"], out=out)
    jobs = [job for job in jobs if job.name in ("mine", "mine/raises")]
    done = run(jobs, out=out, wandb="off", devices=["cpu", "cpu"], write=said.append)
    (stamp,) = (out / "logs").iterdir()
    good, bad = done
    assert good.run.path.parent == out / "mine"
    assert good.run.started["flat"]["data.batch_size"] == 64
    assert good.run.summary["seed"] == 4
    assert good.run.environment["command"].startswith(f"fastcv recipe {mine} --seed 4 ")
    assert "epoch 1/1" in (stamp / "mine-seed4.log").read_text()
    log = stamp / "mine-raises-seed4.log"
    assert bad.failure == f"RuntimeError: a net that cannot be built (log {log})"
    assert "Traceback" in log.read_text()
    assert record.read(stamp / "mine-seed4.json") == {"finished": str(good.run.path)}
    assert f"[1/2] mine seed 4: running on cpu, log {stamp / 'mine-seed4.log'}" in said
    assert any(line.startswith("[1/2] mine seed 4: done: validation ") for line in said)
    assert "shared this machine" in table(done, at_once=2)


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"at_once": 0}, "--jobs must be 1 or more, got 0"),
        ({"wandb": "yes"}, "wandb must be one"),
        ({"devices": ["cpu", "cuda:9"]}, "device 'cuda:9'"),
        ({"devices": ["cpu", "nowhere"]}, "device must be cpu, cuda, cuda:N or mps"),
        ({"devices": ["cpu"], "device": "cpu"}, "leave --device out"),
    ],
)
def test_what_no_job_can_run_with_is_said_once(tmp_path, asked, message):
    jobs = plan("digits", seeds=2, out=tmp_path)
    with pytest.raises(ValueError, match=message):
        run(jobs, out=tmp_path, **asked)


def test_logs_cannot_go_where_runs_cannot(tmp_path):
    file = tmp_path / "taken"
    file.write_text("mine")
    jobs = plan("digits", seeds=2, out=file)
    with pytest.raises(ValueError, match="runs"):
        run(jobs, out=file, wandb="off", at_once=2)


def test_seeds_of_a_recipe_share_what_is_compiled(mine, tmp_path, monkeypatch):
    """The compiler is reset between two recipes and after a failure, not between two seeds."""
    heard = []

    def trained(recipe, **options):
        heard.append(recipe.name.rpartition("/")[2])
        if recipe.name.endswith("raises"):
            raise RuntimeError("a net that cannot be built")

    monkeypatch.setattr(running, "train", trained)
    monkeypatch.setattr(running._Series, "done", lambda self, number, run: "")
    monkeypatch.setattr(running, "_forget_compiled", lambda: heard.append("reset"))
    jobs = [
        job
        for name in ("one_cycle", "raises")
        for job in plan(f"{mine}/{name}", seeds=2, out=tmp_path)
    ]
    run(jobs, out=tmp_path, wandb="off", device="cpu", write=lambda line: None)
    assert heard == ["one_cycle", "one_cycle", "reset", "raises", "reset", "raises", "reset"]


def put_stopped(out, recipe):
    """A run directory as a killed `train` leaves it, with a checkpoint that says nothing."""
    put = put_run(out, recipe, summary={})
    (put.path / "last.ckpt").touch()
    return put


def test_a_stopped_run_of_the_same_experiment_is_resumed(tmp_path, monkeypatch):
    digits, resumed = catalogue.get_recipe("digits"), []

    def trained(recipe, *, resume, **options):
        resumed.append(resume and resume.path)
        if resume is None:
            return put_run(tmp_path, recipe)
        summary = {"epochs": 2, "seconds": 1.0, "seed": recipe.seed}
        files.write_json(resume.path / "summary.json", summary)
        return resume

    monkeypatch.setattr(running, "train", trained)
    monkeypatch.setattr("fastcv.experiment.series.jobs.checkpoint.read", lambda path: {})
    put_stopped(tmp_path, override(digits, "schedule.0.epochs=3"))  # another experiment
    old, stopped = put_stopped(tmp_path, digits), put_stopped(tmp_path, digits)
    os.utime(old.path / "last.ckpt", (1, 1))
    (first, second) = plan("digits", seeds=2, out=tmp_path)
    assert (first.stopped, second.stopped) == (stopped, None)
    assert f"would resume: {stopped.path}" in listing([first])
    assert plan("digits", again=True, out=tmp_path)[0].stopped is None
    task = running._task(first, {"out": str(tmp_path)}, tmp_path)
    assert json.loads(task.command[-1])["resume"] == str(stopped.path)
    said = []
    done = run([first, second], out=tmp_path, wandb="off", device="cpu", write=said.append)
    assert resumed == [stopped.path, None]
    assert done[0].run == stopped
    assert f"resuming {stopped.path}" in said
    assert [job.before for job in plan("digits", seeds=2, out=tmp_path)] == [True, True]


def test_a_run_that_is_still_trained_is_not_resumed(tmp_path):
    stopped = put_stopped(tmp_path, catalogue.get_recipe("digits"))
    with files.lock(stopped.path):
        assert files.is_locked(stopped.path)
        assert plan("digits", out=tmp_path)[0].stopped is None
    assert not files.is_locked(stopped.path)
    assert plan("digits", out=tmp_path)[0].stopped == stopped


def test_a_checkpoint_that_cannot_be_read_starts_the_job_over(tmp_path, monkeypatch):
    put_stopped(tmp_path, catalogue.get_recipe("digits"))
    monkeypatch.setattr(
        running, "train", lambda recipe, *, resume, **options: put_run(tmp_path, recipe)
    )
    said = []
    (job,) = run(plan("digits", out=tmp_path), out=tmp_path, device="cpu", write=said.append)
    assert job.run is not None
    assert any(line.startswith("starting over: a checkpoint must be whole") for line in said)


@pytest.mark.parametrize(
    ("asked", "devices"),
    [
        ((None, (), None), [None]),
        (("cpu", (), 3), ["cpu"] * 3),
        ((None, ("cpu", "cpu:0"), None), ["cpu", "cpu:0"]),
        ((None, ("cpu", "cpu:0"), 3), ["cpu", "cpu:0", "cpu"]),
        ((None, ("cpu", "cpu:0"), 1), ["cpu"]),
    ],
)
def test_jobs_share_the_devices_in_turn(asked, devices):
    assert running.shared(*asked) == (devices, len(devices))


def test_a_gpu_beyond_those_there_is_one_sentence(monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    assert str(find_device("cuda:1")) == "cuda:1"
    with pytest.raises(
        ValueError, match="'cuda:2' must be one of the 2 GPUs here, cuda:0 to cuda:1"
    ):
        find_device("cuda:2")


def test_a_password_is_not_written_down():
    command = "fastcv sweep digits --storage postgresql://me:se:cr%40et@host/name"
    assert _without_password(command).endswith("--storage postgresql://me:***@host/name")
    assert _without_password("fastcv recipe a:b@c") == "fastcv recipe a:b@c"
