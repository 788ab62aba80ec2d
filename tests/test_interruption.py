"""Signals: what they leave behind, and the exit codes."""

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace

import pytest
from typer.testing import CliRunner

from fastcv import cli, interruption
from fastcv.experiment.directory import Run
from fastcv.experiment.series.processes import Task, run_tasks
from fastcv.experiment.train import resume, train
from fastcv.interruption import Checkpointed, Interrupted, handled
from fastcv.learning import OneCycle
from fastcv.learning.callbacks.history import History
from fastcv.recipes.digits import recipe as digits

pytestmark = pytest.mark.skipif(os.name != "posix", reason="signals of Unix")
RECIPE = replace(
    digits,
    data=replace(digits.data, train_per_class=16, batch_size=16),
    schedule=(OneCycle(epochs=2, lr=1e-3),),
)


@pytest.fixture(autouse=True)
def _signals_arrive():
    """Let signals arrive as in a terminal, also under nohup or in a shell's background."""
    usual = {"SIGINT": signal.default_int_handler, "SIGHUP": signal.SIG_DFL}
    numbers = {getattr(signal, name): handler for name, handler in usual.items()}
    before = {number: signal.signal(number, handler) for number, handler in numbers.items()}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture(autouse=True)
def _nothing_asked():
    yield
    interruption._asked.clear()


def signalled(monkeypatch, out, number, batch):
    """Train until a signal comes after a batch; return the exception and the runs that are left."""
    after_batch, seen = History.after_batch, 0

    def counted(self):
        nonlocal seen
        after_batch(self)
        seen += self.learn.training
        if seen == batch:
            os.kill(os.getpid(), number)

    monkeypatch.setattr(History, "after_batch", counted)
    with handled(), pytest.raises(KeyboardInterrupt) as caught:
        train(RECIPE, out=out, wandb="off", device="cpu", write=lambda line: None)
    monkeypatch.setattr(History, "after_batch", after_batch)
    return caught.value, [Run(path) for path in out.glob("digits/*")]


@pytest.mark.parametrize("name", ["SIGTERM", "SIGHUP", "SIGINT"])
@pytest.mark.parametrize("batch", [3, 13])  # of 10 an epoch
def test_a_signal_writes_what_ctrl_c_writes(tmp_path, monkeypatch, capsys, name, batch):
    number = getattr(signal, name)
    error, runs = signalled(monkeypatch, tmp_path / "runs", number, batch)
    assert name == "SIGINT" or error.code == 128 + number
    printed = capsys.readouterr().out
    if batch < 10:
        assert "nothing was kept" in printed
        assert not (tmp_path / "runs").exists()
        return
    (run,) = runs
    assert f"stopped; resume it with: fastcv resume {run.path}" in printed
    assert not (run.path / ".lock").exists()
    assert len(run.steps) == 10


def test_the_warning_of_a_scheduler_makes_a_checkpoint(tmp_path, monkeypatch, capsys):
    error, (run,) = signalled(monkeypatch, tmp_path, signal.SIGUSR1, 3)
    assert isinstance(error, Checkpointed)
    assert error.code == 85
    assert f"resume it with: fastcv resume {run.path}" in capsys.readouterr().out
    assert run.metrics == []  # it is resumed within its first epoch
    monkeypatch.setattr("fastcv.experiment.results.Results._draw", lambda self: None)
    assert len(resume(run.path, write=lambda line: None).metrics) == 2


def test_a_resumed_run_computes_with_the_threads_that_it_began_with(tmp_path, monkeypatch):
    import torch

    monkeypatch.setattr("fastcv.experiment.results.Results._draw", lambda self: None)
    written, used = [], []
    monkeypatch.setattr(History, "before_epoch", with_threads_noted(History.before_epoch, used))
    _, (run,) = signalled(monkeypatch, tmp_path, signal.SIGTERM, 13)
    began = run.environment["threads"]
    with pytest.raises(ValueError, match="threads must be at least 1, got 0"):
        resume(run.path, threads=0)
    resume(run.path, threads=began + 1, write=written.append)
    assert used[-1] == began + 1
    assert any(
        f"began with --threads {began}, and with {began + 1} it will equal" in each
        for each in written
    )
    assert torch.get_num_threads() == began
    assert run.environment["resumed"][0]["threads"] == began + 1


def with_threads_noted(before_epoch, used):
    def noted(self):
        import torch

        used.append(torch.get_num_threads())
        before_epoch(self)

    return noted


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (Checkpointed(), 85),
        (Interrupted(signal.SIGTERM), 143),
        (Interrupted(signal.SIGHUP), 129),
        (KeyboardInterrupt(), 130),
    ],
    ids=["checkpoint", "term", "hup", "ctrl-c"],
)
def test_the_command_line_ends_with_a_code_for_each(monkeypatch, error, code):
    def stopped(*arguments, **options):
        raise error

    monkeypatch.setattr("fastcv.experiment.train.train", stopped)
    monkeypatch.setattr("fastcv.experiment.series.running.train", stopped)
    for more in ([], ["--seeds", "1", "--again"]):
        ran = CliRunner().invoke(cli.app, ["recipe", "digits", "--smoke", "--wandb", "off", *more])
        assert ran.exit_code == code


def test_handlers_are_those_from_before_when_all_is_done():
    before = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGUSR1)]
    with handled():
        os.kill(os.getpid(), signal.SIGUSR1)
        assert interruption.is_asked()
    assert not interruption.is_asked()
    assert [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGUSR1)] == before


def test_tasks_are_asked_for_their_checkpoints_and_no_other_starts(tmp_path):
    code = (
        "import signal, sys, time\n"
        "signal.signal(signal.SIGUSR1, lambda number, frame: sys.exit(85))\n"
        "print('ready', flush=True)\ntime.sleep(60)"
    )
    tasks = [
        Task(command=(sys.executable, "-c", code), log=tmp_path / f"{name}.log") for name in "abc"
    ]
    ended = {}

    def watched(running):
        if all(task.log.read_text() == "ready\n" for task in tasks[:2]):
            interruption.ask()
        return ()

    waiting = iter(tasks)
    with pytest.raises(Checkpointed):
        run_tasks(
            lambda: next(waiting, None),
            2,
            started=lambda task: None,
            ended=lambda task, status: ended.update({task: status}),
            watched=watched,
        )
    assert ended == {tasks[0]: 85, tasks[1]: 85}


PARENT = """
import subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", sys.argv[1]], stdout=sys.stdout)
time.sleep(60)
"""
CHILD = """
import os, time
from fastcv import interruption
interruption.POLL_SECONDS = 0.05
interruption.end_with_parent(os.getppid())
with interruption.handled():
    try:
        print("ready", os.getpid(), flush=True)
        time.sleep(60)
    except KeyboardInterrupt as error:
        print(error, flush=True)
"""


def test_a_parent_that_is_killed_takes_its_children_with_it():
    command = [sys.executable, "-c", PARENT, CHILD]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as parent:
        ready, number = parent.stdout.readline().split()
        assert ready == "ready"
        parent.kill()
        assert parent.stdout.readline() == "SIGTERM\n"
    for _ in range(100):
        try:
            os.kill(int(number), 0)
        except ProcessLookupError:
            return
        time.sleep(0.05)
    pytest.fail("the child outlived its parent")


def test_an_output_that_nobody_reads_ends_quietly():
    read, write = os.pipe()
    os.close(read)
    ran = subprocess.run(
        [sys.executable, "-m", "fastcv.cli", "recipes"], stdout=write, stderr=subprocess.PIPE
    )
    os.close(write)
    assert (ran.returncode, ran.stderr) == (141, b"")


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
def test_an_output_that_is_full_is_one_sentence():
    with open("/dev/full", "w") as full:
        ran = subprocess.run(
            [sys.executable, "-m", "fastcv.cli", "recipes"], stdout=full, stderr=subprocess.PIPE
        )
    words = b"fastcv: the output cannot be written: No space left on device\n"
    assert (ran.returncode, ran.stderr) == (2, words)
