import json

import pytest
from typer.testing import CliRunner

from fastcv import cli
from fastcv.report import as_text, committed, gather, readme
from fastcv.report.read import read_summary

runner = CliRunner()


def invoke(*arguments):
    result = runner.invoke(cli.app, ["report", *(str(each) for each in arguments)])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.output


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_report_reads_runs_and_writes_markdown_and_a_page(here, write_run):
    write_run(here / "runs", "mnist_cnn/regularized", test_accuracy=0.9911, train_accuracy=0.9967)
    write_run(here / "runs", "digits", "schedule.0.epochs=2", valid_accuracy=0.5)
    write_run(here / "runs", "light_resnet_cifar10/model0", test_accuracy=0.9)
    stopped = write_run(here / "runs", "mnist_cnn", finished=False, epochs=7)
    broken = write_run(here / "runs", "digits", seed=9)
    (broken / "summary.json").write_text("not JSON")
    output = invoke()
    (row,) = (line for line in output.splitlines() if line.startswith("mnist_cnn/regularized  "))
    assert "98.23 %" in row
    assert "99.11 %" in row
    assert "yes" in row
    assert "  digits: 50.00 % validation; 2 epochs; 60 s; schedule.0.epochs: 10 → 2" in output
    assert f"  {stopped.relative_to(here)}: 7 of 250 epochs" in output
    assert f"warning: {broken.relative_to(here)}: left out" in output
    assert " transfer_resnet50/one_cycle," in output.partition("not run (")[2]
    assert output.endswith("report/report.md\nreport/report.html\n")
    markdown = (here / "report" / "report.md").read_text(encoding="utf-8")
    assert (
        "| `mnist_cnn/regularized` | test accuracy | 98.23 % | 99.11 % | yes | 15 | 60 s |"
        in markdown
    )
    assert "|  | train accuracy | 99 % | 99.67 % | yes |" in markdown
    (line,) = (line for line in markdown.splitlines() if line.startswith("Not run in full ("))
    assert ", transfer_resnet50," in line
    assert "mnist_cnn/regularized" not in line
    assert "`schedule.0.epochs: 10 → 2`" in markdown
    assert f"`{stopped.relative_to(here)}`" in markdown
    assert str(broken.relative_to(here)) in markdown.partition("## Left out")[2]
    for picture in ("differences", "light_resnet_cifar10-ladder"):
        assert f"(figures/{picture}.png)" in markdown
        assert (here / "report" / "figures" / f"{picture}.png").stat().st_size > 5000


def test_without_runs_everything_is_not_run(here):
    text = as_text(gather([]))
    assert text.startswith("no experiment was run in full\n\nnot run (")
    assert " mnist_cnn/regularized," in text
    assert invoke("--save-results", "results") == ""


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere"], "runs to report must lie in a folder that exists"),
        (["--results", "nowhere"], "saved summaries must lie in a folder that exists"),
        (["--out", "taken"], "a report must go into a folder"),
        (["--save-results", "taken"], "summaries must go into a folder"),
        (["--readme"], "needs a file to stand in"),
    ],
)
def test_mistakes_are_one_sentence(here, arguments, message):
    (here / "taken").write_text("mine\n")
    with pytest.raises(ValueError, match=message):
        invoke(*arguments)
    assert (here / "taken").read_text() == "mine\n"


def test_saved_results_are_the_runs_and_the_readme_is_written_from_them(here, write_run):
    write_run(here / "runs", "digits", seed=1, valid_accuracy=0.98, parameters=12)
    write_run(here / "runs", "mnist_cnn/one_cycle", "schedule.0.epochs=1", test_accuracy=0.7)
    (here / "README.md").write_text(f"{readme.BEGIN}\n{readme.END}\n", encoding="utf-8")
    output = invoke("--save-results", "results", "--readme")
    assert output.splitlines() == [
        "results/digits-seed1.json",
        "results/mnist_cnn-one_cycle-seed0-changed.json",
        "README.md: written",
    ]
    assert not (here / "report").exists()
    saved = json.loads((here / "results" / "digits-seed1.json").read_text(encoding="utf-8"))
    assert saved["command"] == "fastcv recipe digits --seed 1"
    assert saved["packages"]["torch"] == "2.15.0"
    assert saved["measured"] == {"valid_accuracy": 0.98, "parameters": 12}
    assert "path" not in saved
    assert saved["history"]["epoch"] == list(range(1, 11))
    assert saved["history"]["train_loss"][2] == pytest.approx(1 / 3, rel=1e-4)
    assert saved["history"]["valid_loss"] == [None] * 10
    file = here / "results" / "mnist_cnn-one_cycle-seed0-changed.json"
    assert json.loads(file.read_text(encoding="utf-8"))["changed"] == {"schedule.0.epochs": [5, 1]}
    text = (here / "README.md").read_text(encoding="utf-8")
    assert "| `digits` | none | 98.00 % validation |  | 10 | 60 s | A, fp32 | 1 | 0123abc |" in text
    assert invoke("--readme", "--results", "results") == "README.md: is up to date\n"


def test_the_readme_refers_to_all_results_where_they_have_a_file(here, write_run):
    write_run(here / "runs", "digits", valid_accuracy=0.98)
    (here / "docs").mkdir()
    for file in ("README.md", "docs/results.md"):
        (here / file).write_text(f"{readme.BEGIN}\n{readme.END}\n", encoding="utf-8")
    output = invoke("--save-results", "results", "--readme")
    assert output.splitlines()[1:] == ["docs/results.md: written", "README.md: written"]
    assert "(docs/results.md)" in (here / "README.md").read_text(encoding="utf-8")
    assert "| `digits` |" in (here / "docs" / "results.md").read_text(encoding="utf-8")


def test_saved_summaries_are_reported_as_the_runs_are(here, write_run):
    write_run(here / "runs", "digits", "schedule.0.epochs=1", valid_accuracy=0.5)
    write_run(here / "runs", "mnist_cnn/regularized", test_accuracy=0.98)
    experiments = gather(["runs"])
    committed.save(experiments, here / "results")
    from_files = gather([], here / "results")
    for ran, read in zip(experiments, from_files, strict=True):
        assert len(ran.results) == len(read.results)
        assert len(ran.changed) == len(read.changed)
        for one, other in zip(
            (*ran.results, *ran.changed), (*read.results, *read.changed), strict=True
        ):
            assert (one.measured, one.seconds, one.changed) == (
                other.measured,
                other.seconds,
                other.changed,
            )
    both = gather(["runs"], here / "results")  # a summary saved from a run is that run
    assert [len(each.results) for each in both] == [len(each.results) for each in experiments]


def test_a_summary_that_cannot_be_read_is_named_and_not_replaced(here, write_run):
    write_run(here / "runs", "digits", valid_accuracy=0.98)
    (here / "results").mkdir()
    (here / "results" / "digits-seed0.json").write_text("{}")
    with pytest.raises(ValueError, match=r"'results/digits-seed0.json' cannot: it has no"):
        invoke("--save-results", "results")
    assert (here / "results" / "digits-seed0.json").read_text() == "{}"


def test_a_history_of_other_epochs_is_refused(here, write_run):
    write_run(here / "runs", "digits", valid_accuracy=0.98)
    (file,) = committed.save(gather(["runs"]), here / "results")
    summary = json.loads(file.read_text())
    summary["history"]["train_loss"] = [0.5]
    file.write_text(json.dumps(summary))
    with pytest.raises(ValueError, match="a number for each epoch, train_loss does not"):
        read_summary(file)


def test_saving_again_replaces_and_another_device_gets_a_file_of_its_own(here, write_run):
    write_run(here / "a", "digits", valid_accuracy=0.97)
    write_run(here / "b", "digits", valid_accuracy=0.98)
    write_run(here / "c", "digits", device_name="Another", valid_accuracy=0.99)
    for folder in "abc":
        committed.save(gather([folder]), here / "results")
    read = {
        file.name: json.loads(file.read_text(encoding="utf-8"))["measured"]["valid_accuracy"]
        for file in (here / "results").iterdir()
    }
    assert read == {"digits-seed0.json": 0.98, "digits-seed0-2.json": 0.99}


def test_a_saved_summary_does_not_say_where_photos_lie(here, write_run):
    write_run(here / "runs", "finetune", "data.path=/home/somebody/photos", valid_accuracy=0.9)
    (file,) = committed.save(gather(["runs"]), here / "results")
    assert json.loads(file.read_text())["settings"]["data.path"] == "photos"
    assert "somebody" not in file.read_text()
    assert committed.save(gather(["runs"]), here / "results") == [file]
    for folders in (["runs"], []):
        found = gather(folders, here / "results")
        (experiment,) = (each for each in found if each.name == "finetune")
        assert len(experiment.results) == 1  # a run and its summary are one


def test_saving_again_replaces_a_summary_of_before_a_setting_was_there(here, write_run):
    without = ("data.drop_last", "data.test_per_class")
    write_run(here / "old", "digits", without=without, valid_accuracy=0.1)
    file, *_ = committed.save(gather([here / "old"]), here / "results")
    summary = json.loads(file.read_text())
    for key in without:
        summary["settings"].pop(key, None)
    file.write_text(json.dumps(summary))
    write_run(here / "new", "digits", valid_accuracy=0.9)
    experiments = gather([here / "new"], here / "results")
    assert committed.save(experiments, here / "results") == [file]
    assert [each.name for each in (here / "results").iterdir()] == [file.name]
    assert json.loads(file.read_text())["measured"]["valid_accuracy"] == 0.9
