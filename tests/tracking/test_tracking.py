import base64
import gc
import hashlib
import json
import os
import signal
import struct
import subprocess
import sys
import threading
import time
from importlib import import_module
from pathlib import Path
from threading import Event
from types import SimpleNamespace

import pytest
from loopback import JsonServer
from PIL import Image

from fastcv import tracking

KEY = "k" * 40  # of the form that W&B accepts
CONFIG = {
    "seed": 42,
    "schedule.0.epochs": 2,
    "schedule.0.lr": (1e-5, 1e-3),
    "data.root": Path("/d"),
}
STEPS = 3  # of an epoch


def isolate(patch, home):
    """Give W&B an empty home and no environment, and put the current directory there."""
    for name in [n for n in os.environ if n.startswith("WANDB_")]:
        patch.delenv(name)
    for name in ("NETRC", "XDG_CONFIG_HOME", "XDG_CACHE_HOME", "XDG_DATA_HOME"):
        patch.delenv(name, raising=False)
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        patch.delenv(name, raising=False)
    patch.setenv("HOME", str(home))
    patch.chdir(home)


@pytest.fixture(autouse=True)
def _isolated(monkeypatch, tmp_path):
    home = tmp_path / "home"
    home.mkdir()
    isolate(monkeypatch, home)


def epoch(tracker, number, steps=STEPS):
    row = {
        "epoch": number,
        "stage": 0,
        "train_loss": 1 / number,
        "train_accuracy": 0.5,
        "valid_loss": 2 / number,
        "valid_accuracy": 0.25 * number,
        "valid_macro_f1": 0.2 * number,
        "lr": 0.1,
        "momentum": None,
        "seconds": 1.5,
        "images_per_second": 100.0,
    }
    first = (number - 1) * STEPS + 1
    batches = [
        {"step": first + i, "loss": 10.0 * (first + i), "lr": 0.1, "momentum": 0.9}
        for i in range(steps)
    ]
    tracker.epoch(row, batches)


def finish(tracker, directory):
    figure = directory / "loss.png"
    Image.new("RGB", (60, 40), (0, 128, 255)).save(figure)
    (directory / "model.safetensors").write_bytes(b"weights" * 100)
    (directory / "classes.json").write_text('["cat", "dog"]')
    predictions = [
        {
            "image": Image.new("RGB", (8, 8), (50 * i, 0, 0)),
            "predicted": "cat",
            "true": "dog" if i else "cat",
            "confidence": 0.75,
            "loss": 0.5 + i,
        }
        for i in range(3)
    ]
    tracker.finish(
        {"test_accuracy": 0.9, "epochs": 2, "images_per_second": 100.0},
        {"test_accuracy": 0.88, "train_accuracy": 0.99, "source": "002"},
        {"loss": figure},
        predictions,
        [directory / "model.safetensors", directory / "classes.json"],
    )


def wandb_records(path):
    """Read a .wandb file: a 7-byte header, then LevelDB's log of serialized records.

    Written by hand, because wandb moved its own reader more than once.
    """
    pb = import_module("wandb.proto.wandb_internal_pb2")
    data, at, whole = path.read_bytes(), 7, b""
    assert data[:4] == b":W&B"
    while at < len(data):
        left = 32768 - at % 32768  # a chunk never crosses a block
        length, kind = struct.unpack("<HB", data[at + 4 : at + 7]) if left >= 7 else (0, 0)
        if kind == 0:  # padding up to the next block
            at += left
            continue
        chunk = data[at + 7 : at + 7 + length]
        at += 7 + length
        whole = chunk if kind in (1, 2) else whole + chunk  # 1 full, 2 first, 3 middle, 4 last
        if kind in (1, 4):
            record = pb.Record()
            record.ParseFromString(whole)
            yield record


def read_back(directory, run_id, after=None):
    """Gather what the run's .wandb file holds, newest values last; `after`: but in this folder."""
    paths = directory.glob(f"wandb/*run-*-{run_id}/run-{run_id}.wandb")
    [path] = [each for each in paths if each.parent != after]
    found = SimpleNamespace(
        folder=path.parent, kinds=set(), history=[], summary={}, metrics={}, artifacts=[]
    )
    for record in wandb_records(path):
        kind = record.WhichOneof("record_type")
        found.kinds.add(kind)
        if kind == "run":
            found.run = record.run
            found.config = {u.key: json.loads(u.value_json) for u in record.run.config.update}
        elif kind == "history":
            items = record.history.item
            row = {i.key or "/".join(i.nested_key): json.loads(i.value_json) for i in items}
            found.history.append(row)
        elif kind == "summary":
            for item in record.summary.update:
                key = item.key or "/".join(item.nested_key)
                found.summary[key] = json.loads(item.value_json)
        elif kind == "metric":
            metric = record.metric
            found.metrics[metric.name or metric.glob_name] = metric.step_metric
        elif kind == "artifact":
            found.artifacts.append(record.artifact)
        elif kind == "exit":
            found.exit_code = record.exit.exit_code
    return found


@pytest.fixture(scope="module")
def offline(tmp_path_factory):
    """One offline run, finished and read back; shared, because wandb takes its second to start."""
    home = tmp_path_factory.mktemp("home")
    directory = tmp_path_factory.mktemp("run")
    before = set(threading.enumerate()), sys.exit, sys.excepthook
    with pytest.MonkeyPatch.context() as patch:
        isolate(patch, home)
        environment = dict(os.environ)
        tracker = tracking.start(
            "offline", directory=directory, name="light_resnet_cifar10/one_cycle", config=CONFIG
        )
        epoch(tracker, 1)
        epoch(tracker, 2)
        epoch(tracker, 2)  # as a resumed run repeats what its checkpoint lacks
        finish(tracker, directory)
        left = {
            "environment": {k: v for k, v in os.environ.items() if environment.get(k) != v},
            "files": [p for p in home.rglob("*") if p.is_file()],
            "threads": set(threading.enumerate()) - before[0],
            "hooks": (sys.exit, sys.excepthook) == before[1:],
        }
    found = read_back(directory, tracker.id)
    return SimpleNamespace(tracker=tracker, directory=directory, left=left, found=found)


def test_offline_run_names_itself(offline):
    run = offline.found.run
    assert run.project == "fastcv"
    assert run.display_name == "light_resnet_cifar10/one_cycle seed 42"
    assert (run.run_group, run.job_type) == ("light_resnet_cifar10", "train")
    assert set(run.tags) == {"light_resnet_cifar10", "one_cycle", "seed42"}
    assert offline.found.exit_code == 0


def test_offline_run_holds_the_flat_recipe(offline):
    config = {k: v for k, v in offline.found.config.items() if k != "_wandb"}
    expected = CONFIG | {"schedule.0.lr": [1e-5, 1e-3], "data.root": "/d"}
    assert config == expected


def test_offline_run_holds_every_step_once_and_in_order(offline):
    rows = [row for row in offline.found.history if "step/loss" in row]
    assert [row["step"] for row in rows] == [1, 2, 3, 4, 5, 6]
    assert [row["step/loss"] for row in rows] == [10, 20, 30, 40, 50, 60]
    assert all(row["step/lr"] == 0.1 and row["step/momentum"] == 0.9 for row in rows)
    # W&B drops rows whose own step does not increase.
    own = [row["_step"] for row in offline.found.history]
    assert own == sorted(set(own))


def test_offline_run_holds_every_epoch_on_its_last_step(offline):
    rows = [row for row in offline.found.history if "epoch" in row]
    assert [(row["epoch"], row["step"]) for row in rows] == [(1, 3), (2, 6)]
    assert [row["train/loss"] for row in rows] == [1.0, 0.5]
    assert [row["valid/accuracy"] for row in rows] == [0.25, 0.5]
    assert [row["valid/macro_f1"] for row in rows] == [0.2, 0.4]
    assert rows[1]["images_per_second"] == 100.0
    assert "momentum" not in rows[0]  # None


def test_offline_run_plots_over_epochs_and_steps(offline):
    axes = offline.found.metrics
    assert axes["step/*"] == "step"
    assert axes["train/*"] == axes["valid/*"] == axes["images_per_second"] == "epoch"


def test_offline_run_has_reported_beside_measured(offline):
    summary = offline.found.summary
    assert summary["test_accuracy"] == summary["measured/test_accuracy"] == 0.9
    assert summary["reported/test_accuracy"] == 0.88
    assert summary["difference/test_accuracy"] == pytest.approx(0.02)
    # What was reported but not measured, or is no number, has no difference.
    assert summary["reported/train_accuracy"] == 0.99
    assert summary["reported/source"] == "002"
    assert not {"difference/train_accuracy", "measured/train_accuracy"} & set(summary)


def test_offline_run_holds_figures_and_predictions(offline):
    found = offline.found
    figure = found.folder / "files" / found.summary["figures/loss/path"]
    assert figure.read_bytes() == (offline.directory / "loss.png").read_bytes()
    assert found.summary["predictions/nrows"] == 3
    # The table travels as an artifact, from a folder inside the run directory.
    [artifact] = [a for a in found.artifacts if a.type == "run_table"]
    staged = {e.path: Path(e.local_path) for e in artifact.manifest.contents}
    table = json.loads(staged["predictions.table.json"].read_text())
    assert table["columns"] == ["image", "true", "predicted", "correct", "confidence", "loss"]
    assert [row[1:] for row in table["data"]] == [
        ["cat", "cat", True, 0.75, 0.5],
        ["dog", "cat", False, 0.75, 1.5],
        ["dog", "cat", False, 0.75, 2.5],
    ]
    for i, row in enumerate(table["data"]):
        with Image.open(staged[row[0]["path"]]) as image:
            assert image.convert("RGB").getpixel((0, 0)) == (50 * i, 0, 0)
        assert staged[row[0]["path"]].is_relative_to(offline.directory / "wandb")


def test_offline_run_holds_the_model_where_it_lies(offline):
    [artifact] = [a for a in offline.found.artifacts if a.type == "model"]
    assert artifact.name == "light_resnet_cifar10-one_cycle"
    entries = {e.path: e for e in artifact.manifest.contents}
    assert set(entries) == {"model.safetensors", "classes.json"}
    for name, entry in entries.items():
        path = offline.directory / name
        assert Path(entry.local_path) == path
        assert base64.b64decode(entry.digest) == hashlib.md5(path.read_bytes()).digest()


def test_offline_run_sends_nothing_unasked(offline):
    # "environment" would be command line, program, host and hardware; "output" the console.
    assert {"run", "history", "summary", "artifact", "exit"} <= offline.found.kinds
    assert not {"environment", "output", "output_raw"} & offline.found.kinds
    assert not offline.found.run.HasField("git")
    names = {p.name for p in offline.found.folder.rglob("*") if p.is_file()}
    assert not {"requirements.txt", "diff.patch", "wandb-metadata.json", "output.log"} & names
    assert [a.type for a in offline.found.artifacts].count("code") == 0


def test_offline_run_leaves_nothing_behind(offline):
    assert offline.left == {"environment": {}, "files": [], "threads": set(), "hooks": True}


def test_offline_run_says_how_to_sync(offline):
    assert offline.tracker.sync_hint == f"wandb sync {offline.found.folder}"


def test_resumed_smoke_run_is_quiet_and_syncs_both_parts(tmp_path, capfd):
    first = tracking.start("auto", directory=tmp_path, name="digits", config={}, smoke=True)
    epoch(first, 1, steps=0)
    first.close()
    first.close()  # harmless
    assert read_back(tmp_path, first.id).exit_code == 1
    assert [r["_step"] for r in read_back(tmp_path, first.id).history] == [1]
    [part] = tmp_path.glob("wandb/offline-run-*")
    earlier = part.rename(part.with_name(f"offline-run-20200101_000000-{first.id}"))

    second = tracking.start(
        "auto", directory=tmp_path, name="digits", config={}, smoke=True, resume_id=first.id
    )
    assert second.id == first.id
    epoch(second, 2, steps=0)
    second.finish({}, {}, {}, [], [])
    [later] = set(tmp_path.glob("wandb/offline-run-*")) - {earlier}
    assert second.sync_hint == f"wandb sync {earlier} {later}"
    [path] = later.glob("*.wandb")
    runs = [r.run for r in wandb_records(path) if r.WhichOneof("record_type") == "run"]
    assert "smoke" in runs[0].tags
    assert runs[0].job_type == "smoke"
    assert runs[0].display_name.endswith("(smoke)")
    assert capfd.readouterr() == ("", "")


OFF = """
import os, sys
from pathlib import Path
from fastcv import tracking
for mode, name, value in [("off", "A", "b"), ("auto", "WANDB_MODE", "disabled"),
                          ("auto", "WANDB_DISABLED", "true")]:
    os.environ[name] = value
    tracker = tracking.start(mode, directory=Path("run"), name="digits", config={})
    tracker.epoch({"epoch": 1}, [{"step": 1, "loss": 1.0}])
    tracker.finish({}, {}, {}, [], [])
    tracker.close()
    assert tracker.id is None and tracker.sync_hint is None
    del os.environ[name]
assert "wandb" not in sys.modules, "imported"
assert not os.listdir(), os.listdir()
"""


def test_off_imports_no_wandb_and_writes_nothing():
    root = Path(tracking.__file__).parents[2]
    env = os.environ | {"PYTHONPATH": str(root), "PYTHONDONTWRITEBYTECODE": "1"}
    ran = subprocess.run([sys.executable, "-c", OFF], env=env, capture_output=True, text=True)
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, "", "")


def whole_run(mode, directory):
    tracker = tracking.start(mode, directory=directory, name="digits", config={"seed": 1})
    epoch(tracker, 1)
    epoch(tracker, 2)
    finish(tracker, directory)
    return tracker


def only_message(capfd):
    out, err = capfd.readouterr()
    assert out == ""
    assert err.startswith("W&B: ")
    assert err.count("\n") == 1
    return err


def test_missing_wandb_is_said_once(monkeypatch, tmp_path, capfd):
    monkeypatch.setitem(sys.modules, "wandb", None)
    tracker = whole_run("offline", tmp_path)
    assert "training continues without it" in only_message(capfd)
    assert tracker.id is None


def test_unwritable_folder_is_said_once(tmp_path, capfd):
    (tmp_path / "wandb").write_text("in the way")
    whole_run("offline", tmp_path)
    assert "File exists" in only_message(capfd)


def test_missing_figure_is_said_once_and_keeps_the_summary(tmp_path, capfd):
    tracker = tracking.start("offline", directory=tmp_path, name="digits", config={})
    epoch(tracker, 1)
    tracker.finish({"test_accuracy": 0.5}, {}, {"loss": tmp_path / "none.png"}, [], [])
    message = only_message(capfd)
    assert "none.png" in message
    assert tracker.sync_hint in message
    found = read_back(tmp_path, tracker.id)
    assert found.summary["test_accuracy"] == 0.5
    assert found.exit_code == 0  # the training itself went well


def running():
    """Find the processes that this one has started and not waited for, whoever holds them."""
    return [p for p in gc.get_objects() if type(p) is subprocess.Popen and p.returncode is None]


def test_crashed_service_is_said_once_and_the_next_run_works(tmp_path, capfd):
    tracker = tracking.start("offline", directory=tmp_path, name="digits", config={})
    [service] = [p for p in running() if "wandb-core" in p.args[0]]
    os.kill(service.pid, signal.SIGKILL)
    time.sleep(0.2)
    epoch(tracker, 1)
    epoch(tracker, 2)
    finish(tracker, tmp_path)
    assert "training continues without it" in only_message(capfd)
    assert service.returncode == -signal.SIGKILL  # waited for: no zombie
    again = whole_run("offline", tmp_path)
    assert read_back(tmp_path, again.id).exit_code == 0
    assert capfd.readouterr() == ("", "")


def test_hanging_service_is_killed_and_said_once(tmp_path, monkeypatch, capfd):
    for bound in ("GRACE", "FINISH_TIMEOUT", "TEARDOWN_TIMEOUT"):
        monkeypatch.setattr(tracking.service, bound, 0.5)
    tracker = tracking.start("offline", directory=tmp_path, name="digits", config={})
    [service] = [p for p in running() if "wandb-core" in p.args[0]]
    service.send_signal(signal.SIGSTOP)
    epoch(tracker, 1)
    began = time.monotonic()
    tracker.finish({"test_accuracy": 0.5}, {}, {}, [], [])
    assert time.monotonic() - began < 5
    assert "no answer within" in only_message(capfd)
    assert service.returncode == -signal.SIGKILL
    assert "WANDB_SERVICE" not in os.environ


class Server(JsonServer):
    """W&B's server as far as a run without media needs it."""

    def answer(self, path, body):
        if "UpsertBucket" in body:
            project = {"id": "p", "name": "fastcv", "entity": {"id": "e", "name": "someone"}}
            name = json.loads(body)["variables"]["name"]
            bucket = {"id": "b", "name": name, "displayName": name, "project": project}
            return {"data": {"upsertBucket": {"bucket": bucket, "inserted": True}}}
        if "CreateRunFiles" in body:
            names = json.loads(body)["variables"]["files"]
            files = [{"name": n, "uploadUrl": f"{self.url}/put"} for n in names]
            created = {"runID": "b", "uploadHeaders": [], "files": files}
            return {"data": {"createRunFiles": created}}
        return {}


@pytest.mark.parametrize("status", [None, 401, 500, 0], ids=["dead", "401", "500", "silent"])
def test_unreachable_server_is_given_up_and_logged_offline(status, tmp_path, monkeypatch, capfd):
    monkeypatch.setattr(tracking.service, "INIT_TIMEOUT", 0.5)
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    with Server(status) as server:
        url = server.url if status is not None else "http://127.0.0.1:9"  # nobody listens there
        monkeypatch.setenv("WANDB_BASE_URL", url)
        began = time.monotonic()
        tracker = whole_run("auto", tmp_path)
        assert time.monotonic() - began < 15
        assert bool(server.posts) == (status is not None)
    message = only_message(capfd)
    assert url in message
    assert "logged offline" in message
    found = read_back(tmp_path, tracker.id)
    assert [row["epoch"] for row in found.history if "epoch" in row] == [1, 2]
    assert tracker.sync_hint == f"wandb sync {found.folder}"


def test_online_run_reaches_the_server_with_the_stored_key(tmp_path, monkeypatch, capfd):
    with Server() as server:
        host = f"127.0.0.1:{server.server_port}"
        Path("~/.netrc").expanduser().write_text(f"machine {host}\n login user\n password {KEY}\n")
        monkeypatch.setenv("WANDB_BASE_URL", server.url)
        tracker = tracking.start("auto", directory=tmp_path, name="digits", config=CONFIG)
        assert tracker.sync_hint is None
        epoch(tracker, 1)
        epoch(tracker, 2)
        tracker.finish({"test_accuracy": 0.9}, {"test_accuracy": 0.8}, {}, [], [])
    assert capfd.readouterr() == ("", "")
    secret = base64.b64encode(f"api:{KEY}".encode()).decode()
    assert {sent for _, sent, _ in server.posts} == {f"Basic {secret}"}
    streamed = "".join(body for path, _, body in server.posts if path.endswith("file_stream"))
    assert "valid/accuracy" in streamed
    assert "difference/test_accuracy" in streamed
    first = next(body for _, _, body in server.posts if "UpsertBucket" in body)
    assert json.loads(json.loads(first)["variables"]["config"])["schedule.0.epochs"]["value"] == 2
    assert tracker.sync_hint is None


def test_server_lost_in_training_bounds_the_end(tmp_path, monkeypatch, capfd):
    monkeypatch.setattr(tracking.service, "FINISH_TIMEOUT", 1.0)
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    with Server() as server:
        monkeypatch.setenv("WANDB_BASE_URL", server.url)
        tracker = tracking.start("online", directory=tmp_path, name="digits", config={})
        server.status = 500
        epoch(tracker, 1)
        began = time.monotonic()
        tracker.finish({"test_accuracy": 0.9}, {}, {}, [], [])
        assert time.monotonic() - began < 10
    message = only_message(capfd)
    assert tracker.sync_hint in message
    assert read_back(tmp_path, tracker.id).summary["test_accuracy"] == 0.9


@pytest.mark.parametrize(
    ("key", "complaint"), [(None, "no API key is configured"), ("short", "40")], ids=str
)
def test_online_without_a_good_key_asks_nobody(key, complaint, tmp_path, monkeypatch, capfd):
    if key:
        monkeypatch.setenv("WANDB_API_KEY", key)
    monkeypatch.setattr("builtins.input", lambda *a: pytest.fail("asked for a key"))
    monkeypatch.setattr("getpass.getpass", lambda *a: pytest.fail("asked for a key"))
    with Server(401) as server:
        monkeypatch.setenv("WANDB_BASE_URL", server.url)
        tracker = tracking.start("online", directory=tmp_path, name="digits", config={})
        tracker.close(0)
        assert server.posts == []
    assert complaint in only_message(capfd)
    assert "offline-run" in tracker.sync_hint


@pytest.mark.parametrize("where", ["WANDB_MODE", "settings"])
def test_auto_stays_offline_where_told_so_despite_a_key(where, tmp_path, monkeypatch, capfd):
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    if where == "settings":
        settings = Path("~/.config/wandb/settings").expanduser()
        settings.parent.mkdir(parents=True)
        settings.write_text("[default]\nmode = offline\n")
    else:
        monkeypatch.setenv("WANDB_MODE", "offline")
    with Server(401) as server:
        monkeypatch.setenv("WANDB_BASE_URL", server.url)
        tracker = tracking.start("auto", directory=tmp_path, name="digits", config={})
        tracker.close(0)
        assert server.posts == []
    assert "offline-run" in tracker.sync_hint
    assert capfd.readouterr() == ("", "")


def test_another_run_in_this_process_survives(tmp_path):
    theirs = tracking.start("offline", directory=tmp_path / "theirs", name="theirs", config={})
    ours = tracking.start("offline", directory=tmp_path / "ours", name="ours", config={})
    ours.close(0)
    epoch(theirs, 1)
    theirs.close(0)
    assert "WANDB_SERVICE" not in os.environ
    assert read_back(tmp_path / "theirs", theirs.id).summary["train/loss"] == 1.0


def test_figures_are_added_to_a_run_that_has_ended(offline, monkeypatch, tmp_path, capfd):
    figure = tmp_path / "cam.png"
    Image.new("RGB", (30, 20)).save(figure)
    folder = tmp_path / "run"
    given = {"directory": folder, "name": "light_resnet_cifar10/one_cycle", "config": CONFIG}
    hint = tracking.add_figures(
        {"explain/grad_cam": figure}, to=offline.tracker.id, after=6, mode="offline", **given
    )
    found = read_back(folder, offline.tracker.id)
    assert hint == f"wandb sync {found.folder}"
    assert found.run.run_id == offline.tracker.id
    assert found.run.display_name == offline.found.run.display_name
    (row,) = found.history
    last = max(row["_step"] for row in offline.found.history)
    assert row["_step"] == 7 > last
    assert (found.folder / "files" / row["explain/grad_cam/path"]).is_file()
    assert found.exit_code == 0
    assert tracking.add_figures({}, to="abc", after=6, mode="off", **given) is None
    monkeypatch.setenv("WANDB_MODE", "disabled")
    assert tracking.add_figures({}, to="abc", after=6, **given) is None
    assert len(list(folder.glob("wandb/*run-*"))) == 1
    assert capfd.readouterr() == ("", "")


def test_a_run_of_train_is_whole_in_the_offline_file(tmp_path):
    """The lines above test the tracker; this one that `train` and `explain` hand it everything."""
    from dataclasses import replace

    from fastcv.experiment.train import train
    from fastcv.recipe import Reported, flat
    from fastcv.recipes.digits import recipe
    from fastcv.report import wandb_report
    from fastcv.report.explain import explain

    short = replace(
        recipe,
        schedule=(replace(recipe.schedule[0], epochs=2),),
        reported=Reported(source="000", valid_accuracy=0.5),
    )
    run = train(short, out=tmp_path, wandb="offline", device="cpu", write=lambda line: None)
    found = read_back(run.path, run.environment["wandb_id"])
    assert {key: found.config[key] for key in flat(short)} == flat(short)
    rows = [row for row in found.history if "step/loss" in row]
    assert [row["step/loss"] for row in rows] == pytest.approx([s["loss"] for s in run.steps])
    assert [row["step/lr"] for row in rows] == pytest.approx([s["lr"] for s in run.steps])
    assert [row["step/momentum"] for row in rows] == pytest.approx(
        [s["momentum"] for s in run.steps]
    )
    epochs = [row for row in found.history if "valid/accuracy" in row]
    measured = [row["valid_accuracy"] for row in run.metrics]
    assert [row["valid/accuracy"] for row in epochs] == pytest.approx(measured)
    assert all(row["images_per_second"] > 0 for row in epochs)
    assert found.summary["reported/valid_accuracy"] == 0.5
    assert found.summary["measured/valid_accuracy"] == run.summary["valid_accuracy"]
    media = {item.name for item in found.folder.rglob("*.png")}
    for figure in run.path.glob("figures/*.png"):
        assert any(figure.stem in name for name in media), figure.name
    # What the W&B Report draws is there, by the names that it draws it by.
    for _, axis, metrics in wandb_report.LINES:
        for metric in metrics:
            assert [row for row in found.history if axis in row and metric in row], metric
    assert found.config["name"] == "digits"
    for key in wandb_report.FIGURES:
        if (run.path / f"{key}.png").is_file():
            assert f"{key}/path" in found.summary
    assert {"figures/confusion_matrix", "figures/predictions"} <= {*wandb_report.FIGURES}
    assert any("predictions" in key for key in found.summary)
    assert [artifact.type for artifact in found.artifacts if artifact.type == "model"]

    Image.new("L", (8, 8), 200).save(tmp_path / "digit.png")
    lines = []
    explain(run.path, [tmp_path / "digit.png"], device="cpu", write=lines.append)
    added = read_back(run.path, run.environment["wandb_id"], after=found.folder)
    (row,) = added.history
    assert row["_step"] == run.steps[-1]["step"] + 1
    keys = {key for key in row if key.startswith("explain/") and key.endswith("/path")}
    assert keys == {f"explain/{file.stem}/path" for file in run.path.glob("explain/*.png")}
    assert lines[-1].startswith("to upload them to Weights & Biases: wandb sync ")
    assert str(added.folder) in lines[-1]
    assert str(found.folder) in lines[-1]


def test_a_full_disk_is_named_by_its_folder():
    from fastcv.tracking.service import reason

    error = OSError(28, "No space left on device", "curves.png", None, "wandb/media/curves.png")
    assert reason(error) == "there is no room in 'wandb/media': No space left on device"


def test_training_goes_on_while_an_epoch_is_logged(tmp_path, monkeypatch):
    logged, gate = [], Event()

    def log(self, row, steps):
        assert gate.wait(10)
        logged.append(row["epoch"])

    tracker = tracking.Tracker(tmp_path, "digits", False)
    tracker._run = "a run"
    monkeypatch.setattr(tracking.Tracker, "_log_epoch", log)
    monkeypatch.setattr(tracking.Tracker, "_end", lambda self, run, code: logged.append("end"))
    tracker.epoch({"epoch": 1}, [])
    assert logged == []
    gate.set()
    tracker.epoch({"epoch": 2}, [])
    assert logged[0] == 1
    tracker.close(0)
    assert logged == [1, 2, "end"]
