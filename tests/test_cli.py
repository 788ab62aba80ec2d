import contextlib
import os
import re
import subprocess
import sys
import time

import pytest
import typer
from photos import make_photos
from typer.testing import CliRunner

from fastcv import ImageFolders, catalogue, cli
from fastcv.experiment.train import train

runner = CliRunner()


def invoke(*arguments):
    """Run the command line in this process as `main` does."""
    result = runner.invoke(cli.app, [str(each) for each in arguments])
    if isinstance(result.exception, ValueError | FloatingPointError):
        return 2, f"{result.output}fastcv: {result.exception}"
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.output


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--help"], "lr-find"),
        (["recipes"], "light_resnet_cifar10"),
        (["recipes", "--all"], "light_resnet_cifar10/one_cycle"),
        (["train", "light_resnet_cifar10"], "Did you mean 'recipe'?"),
        (["recipe", "transfer_resnet5"], "Did you mean 'transfer_resnet50'?"),
        (["recipe", "transfer_resnet5", "--all"], "Did you mean 'transfer_resnet50'?"),
        (["--version"], "0."),
    ],
)
def test_light_commands_import_nothing_heavy(arguments, said):
    code = (
        "import sys; from fastcv import cli\n"
        f"sys.argv[1:] = {arguments!r}\n"
        "try: cli.main()\n"
        "finally: print({'torch', 'fastai', 'numpy', 'matplotlib', 'wandb'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert said in done.stdout + done.stderr
    assert done.stdout.splitlines()[-1] == "set()"


def test_mistyped_recipe_is_one_sentence_and_exit_code_2():
    done = subprocess.run(
        [sys.executable, "-m", "fastcv.cli", "recipe", "transfer_resnet5"],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr == (
        "fastcv: no recipe is called 'transfer_resnet5'. Did you mean 'transfer_resnet50'?\n"
    )


def listed(*arguments):
    """Run `fastcv recipes`, and return its lines by the name that each starts with."""
    code, output = invoke("recipes", *arguments)
    assert code == 0
    return {line.split()[0]: line for line in output.splitlines()}


def test_recipes_lists_families_with_number_variants_and_summary():
    lines = listed()
    assert list(lines) == catalogue.names()
    line = lines["light_resnet_cifar10"]
    assert "91.47 % (Report 003, table 1, model 5)" in line
    assert "variants: 10" in line
    assert "A light ResNet" in line


def test_recipes_lists_every_variant_with_all():
    lines = listed("--all")
    assert list(lines) == [entry.name for entry in catalogue.entries()]
    assert "91.47 % (Report 003, table 1, model 5)" in lines["light_resnet_cifar10"]
    assert "38.34 %" in lines["transfer_resnet50/fixed_extractor"]


@pytest.mark.parametrize(
    ("pattern", "names"),
    [
        ("digits", ["digits"]),
        ("mnist_cnn", ["mnist_cnn", "mnist_cnn/regularized", "mnist_cnn/one_cycle"]),
        ("MNIST", ["mnist_cnn", "mnist_cnn/regularized", "mnist_cnn/one_cycle"]),
        ("resnet18_cifar10", ["resnet18_cifar10", "resnet18_cifar10/one_cycle"]),
        ("transfer_res", ["transfer_resnet18", "transfer_resnet18_crops", "transfer_resnet50"]),
        ("*/step1[45]", ["vgg_cifar100/step14", "vgg_cifar100/step15"]),
        ("fixed_rot", ["transfer_resnet18/fixed_rotation"]),
    ],
)
def test_recipes_filters_by_part_of_a_name_or_glob(pattern, names):
    assert list(listed(pattern)) == names


@pytest.mark.parametrize("arguments", [(), ("vgg_cifar100",)])
def test_recipes_fit_a_terminal_of_80_columns(monkeypatch, capsys, arguments):
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    with contextlib.suppress(SystemExit):
        cli.app(["recipes", *arguments])
    lines = re.sub(r"\x1b\[\d*m", "", capsys.readouterr().out).splitlines()
    assert 10 < len(lines) <= 40
    assert max(map(len, lines)) <= 80
    for name in arguments or catalogue.names():
        assert any(line.startswith(name) for line in lines)


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("train", "recipe"), ("run", "recipe"), ("fit", "recipe"), ("list", "recipes"),
        ("ls", "recipes"), ("find", "lr-find"), ("lrfind", "lr-find"), ("lr_find", "lr-find"),
        ("continue", "resume"), ("benchmark", "bench"), ("reciep", "recipe"), ("copi", "copy"),
    ],
)  # fmt: skip
def test_unknown_command_is_one_sentence_with_a_suggestion(typed, meant):
    code, output = invoke(typed, "digits")
    assert code == 2
    assert output == f"fastcv: no command is called {typed!r}. Did you mean {meant!r}?"


def test_models_are_listed_with_size_license_and_place(monkeypatch):
    monkeypatch.setattr("fastcv.learning.available.has_timm", lambda: False)
    code, said = invoke("models", "vit_b_16")
    assert code == 0
    assert "IMAGENET1K_SWAG_E2E_V1" in said
    assert "86,859,496" in said
    assert "cc-by-nc-4.0" in said
    assert "pip install 'fastcv[timm]'" in said


def test_known_commands_are_suggested_only_under_other_names():
    commands = set(typer.main.get_command(cli.app).commands)
    assert set(cli.SYNONYMS) <= commands
    assert not {each for synonyms in cli.SYNONYMS.values() for each in synonyms} & commands


def complete(typed, folder):
    """Ask for the completions of a command line, as bash does."""
    words = typed.split(" ")
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "fastcv.cli"],
        env=os.environ
        | {
            "_FASTCV_COMPLETE": "complete_bash",
            "COMP_WORDS": typed,
            "COMP_CWORD": str(len(words) - 1),
        },
        cwd=folder,
        capture_output=True,
        text=True,
    )
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert not {"torch", "fastai", "numpy", "matplotlib", "wandb"} & imported
    return done.stdout.split()


@pytest.mark.parametrize(
    ("typed", "offered"),
    [
        ("fastcv lr", ["lr-find"]),
        ("fastcv recipe transfer_resnet18", ["transfer_resnet18", "transfer_resnet18_crops"]),
        ("fastcv recipe mnist", ["mnist_cnn", "mnist_cnn/regularized", "mnist_cnn/one_cycle"]),
        ("fastcv bench transfer_resnet50/o", ["transfer_resnet50/one_cycle"]),
        ("fastcv copy dig", ["digits"]),
        ("fastcv recipe mi", ["mine.py", "mine.py/longer"]),
        ("fastcv recipe mine.py/l", ["mine.py/longer"]),
        ("fastcv recipe broken", ["broken.py"]),
        ("fastcv recipe nothing", []),
        ("fastcv nothing dig", []),
    ],
)
def test_shell_completes_commands_recipes_variants_and_files(tmp_path, typed, offered):
    (tmp_path / "mine.py").write_text("recipe = ...\nvariants = {'longer': recipe}\n")
    (tmp_path / "broken.py").write_text("recipe = (\n")
    assert complete(typed, tmp_path) == offered


def test_completion_of_nothing_offers_every_recipe(tmp_path):
    assert complete("fastcv recipe ", tmp_path) == catalogue.names()


def test_show_completion_prints_a_script_for_the_shell():
    done = subprocess.run(
        [sys.executable, "-m", "fastcv.cli", "--show-completion", "bash"],
        env=os.environ | {"_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0
    assert "_FASTCV_COMPLETE=complete_bash" in done.stdout


def test_recipe_runs_and_writes(tmp_path):
    code, output = invoke(
        "recipe", "digits", "--out", tmp_path, "--wandb", "off", "--device", "cpu",
        "--seed", "3", "--set", "schedule.0.epochs=1", "--set", "data.batch_size=64",
    )  # fmt: skip
    assert code == 0
    (run,) = (tmp_path / "digits").iterdir()
    assert run.name.endswith("-seed3")
    assert (run / "summary.json").is_file()
    assert output.count("epoch 1/1") == 1


@pytest.mark.parametrize(
    ("setting", "line"),
    [
        ("optimizer=SGD", "optimizer=fastcv.learning:SGD()"),
        ("model.net=LightResNet", "model.net=fastcv.nets:LightResNet"),
        (
            "data.augment=HorizontalFlip(), RandomCrop(padding=2)",
            "data.augment.1=fastcv.augment:RandomCrop()",
        ),
    ],
)
def test_public_names_are_settings(setting, line):
    code, output = invoke("recipe", "light_resnet_cifar10", "--dry-run", "--set", setting)
    assert code == 0
    assert line in output.splitlines()


@pytest.mark.parametrize(
    ("setting", "room", "names"),
    [
        ("optimizer=Sdg", "fastcv.learning", ("AdamW", "SGD")),
        ("model.net=LightResnt", "fastcv.nets", ("LightResNet", "VGG")),
        ("data.augment=HorizontalFlop()", "fastcv", ("HorizontalFlip", "RandomCrop")),
    ],
)
def test_wrong_public_name_is_answered_with_those_there_are(setting, room, names):
    code, output = invoke("recipe", "light_resnet_cifar10", "--dry-run", "--set", setting)
    assert code == 2
    assert f"must be a public name of {room} (" in output
    assert all(name in output for name in names)
    assert "Did you mean" in output


def test_dry_run_prints_every_setting_and_writes_nothing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, output = invoke("recipe", "digits", "--dry-run", "--set", "schedule.0.epochs=3")
    assert code == 0
    assert "schedule.0.epochs=3" in output.splitlines()
    assert list(tmp_path.iterdir()) == []


BROKEN = """

def broken(*arguments, **keywords):
    raise RuntimeError("it cannot be built")


variants = {"raises": Recipe(**vars(recipe) | {"model": broken})}
"""


def test_all_runs_every_variant_and_exits_with_1_where_one_failed(tmp_path, undrawn):
    file = tmp_path / "mine.py"
    invoke("copy", "digits", file)
    file.write_text(file.read_text() + BROKEN)
    out = tmp_path / "runs"
    asked = (
        "recipe", file, "--all", "--set", "schedule.0.epochs=1", "--out", out, "--wandb", "off",
        "--device", "cpu",
    )  # fmt: skip
    code, output = invoke(*asked)
    assert code == 1
    assert output.count("epoch 1/1") == 1
    assert "failed: mine/raises seed 0: RuntimeError: it cannot be built" in output.splitlines()
    assert {folder.name for folder in out.iterdir()} == {"mine"}

    code, output = invoke(*asked, "--dry-run")
    (run,) = (out / "mine").iterdir()
    said = [line.split(maxsplit=3) for line in output.splitlines()]
    assert said == [
        ["mine", "seed", "0", f"done before: {run}"],
        ["mine/raises", "seed", "0", "would run"],
    ]
    assert code == 0

    code, output = invoke(*asked)
    assert code == 1
    assert "epoch 1/1" not in output
    assert "1 done before" in output


def test_seeds_end_with_their_mean_and_again_runs_them_again(tmp_path, undrawn):
    asked = (
        "recipe", "digits", "--seeds", "2", "--seed", "1", "--set", "schedule.0.epochs=1", "--out",
        tmp_path, "--wandb", "off", "--device", "cpu",
    )  # fmt: skip
    code, output = invoke(*asked)
    runs = [run.name.rpartition("-")[2] for run in (tmp_path / "digits").iterdir()]
    assert code == 0
    assert sorted(runs) == ["seed1", "seed2"]
    assert "% (n = 2)" in output
    assert output.splitlines()[-2].endswith("2 run")
    assert invoke(*asked, "--dry-run")[1].count("done before") == 2
    assert invoke(*asked, "--dry-run", "--again")[1].count("would run") == 2


def test_all_smoke_runs_are_never_done(tmp_path):
    asked = ("recipe", "digits", "--all", "--smoke", "--out", tmp_path, "--wandb", "off")
    code, output = invoke(*asked)
    assert code == 0
    assert output.count("SMOKE RUN") == 3  # the run says so twice, the table once
    assert "would run" in invoke(*asked, "--dry-run")[1]
    assert "would run" in invoke("recipe", "digits", "--all", "--dry-run", "--out", tmp_path)[1]


def test_smoke_run_of_a_pretrained_recipe_needs_no_weights_and_no_data(tmp_path, short_finder):
    start = time.perf_counter()
    code, output = invoke(
        "recipe", "transfer_resnet50/one_cycle", "--smoke", "--out", tmp_path, "--wandb", "off",
        "--device", "cpu",
    )  # fmt: skip
    assert code == 0
    assert output.startswith("SMOKE RUN")
    assert time.perf_counter() - start < 120  # seconds, a bound against a full run
    (run,) = (tmp_path / "transfer_resnet50-one_cycle-smoke").iterdir()
    assert (run / "figures" / "lr_find.png").is_file()


def test_lr_find_writes_plot_and_table(tmp_path):
    code, output = invoke("lr-find", "digits", "--out", tmp_path, "--device", "cpu")
    assert code == 0
    for name in ("valley", "steep", "slide", "minimum", "largest"):
        assert name in output
    assert "the recipe takes" not in output  # its rate is a number
    assert (tmp_path / "lr_find.png").is_file()
    assert "the recipe's own rate is 3.00e-03" in output
    header, *rows = (tmp_path / "lr_find.csv").read_text().splitlines()
    assert header == "learning_rate,loss"
    assert len(rows) > 50


def test_copy_gives_a_file_that_runs(tmp_path, undrawn):
    file = tmp_path / "my_digits.py"
    code, output = invoke("copy", "digits", file)
    assert code == 0
    assert str(file) in output
    code, _ = invoke(
        "recipe", file, "--out", tmp_path, "--wandb", "off", "--device", "cpu",
        "--set", "schedule.0.epochs=1",
    )  # fmt: skip
    assert code == 0
    assert (tmp_path / "my_digits").is_dir()


def test_copy_says_a_command_that_can_be_given(tmp_path):
    file = tmp_path / "my own.py"
    code, output = invoke("copy", "mnist_cnn/one_cycle", file)
    assert code == 0
    assert output.endswith(f"run it with: fastcv recipe '{file}/one_cycle'\n")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["copy", "digit", "mine.py"], "no recipe is called 'digit'. Did you mean 'digits'?"),
        (["copy", "digits", "mine.txt"], "must end in .py"),
        (["copy", "digits", "nowhere/mine.py"], "a folder that exists"),
        (["copy", "digits", "taken.py"], "must not overwrite a file"),
        (["copy", "digits/nonsense", "mine.py"], "no variant of 'digits' is called 'nonsense'"),
        (["recipe", "digits", "--set", "sead=1"], "Did you mean 'seed'?"),
        (["recipe", "digits", "--wandb", "maybe"], "wandb must be one of"),
        (["recipe", "digits", "--seeds", "2", "--wandb", "maybe"], "wandb must be one of"),
        (["recipe", "digits", "--seeds", "0"], "--seeds must be 1 or more, got 0"),
        (["recipe", "digits", "--seeds", "2", "--jobs", "0"], "--jobs must be 1 or more, got 0"),
        (["recipe", "digits", "--jobs", "2"], "add --all, --seeds K or --folds K"),
        (["recipe", "digits", "--again"], "add --all, --seeds K or --folds K"),
        (["recipe", "digits", "--devices", "cpu,cpu"], "add --all, --seeds K or --folds K"),
        (["recipe", "digits", "--seeds", "2", "--devices", "cpu,cuda:99"], "device 'cuda:99'"),
        (["sweep", "digits", "schedule.0.lr=1..0"], "must begin below its end, got 1..0"),
        (["sweep", "digit", "schedule.0.lr=0..1"], "Did you mean 'digits'?"),
        (["sweep", "digits", "seed=1,2", "--storage", "sqlite:///a.db"], "SQLite"),
        (["recipe", "digits", "--all", "--set", "sead=1"], "Did you mean 'seed'?"),
        (["recipe", "mnist_cnn/one_cycle", "--all"], "leave /one_cycle out"),
        (["recipe", "mnist_cnn", "--data", "nowhere"], "nowhere"),
        (["resume", "nowhere"], "a run directory must hold recipe.json"),
    ],
)
def test_mistakes_are_one_sentence_and_leave_nothing(tmp_path, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "taken.py").write_text("mine\n")
    code, output = invoke(*arguments)
    assert code == 2
    assert message in output
    assert [file.name for file in tmp_path.iterdir()] == ["taken.py"]
    assert (tmp_path / "taken.py").read_text() == "mine\n"


def test_resume_goes_on_with_a_stopped_run(tmp_path, undrawn):
    invoke(
        "recipe", "digits", "--out", tmp_path, "--wandb", "off", "--device", "cpu",
        "--set", "schedule.0.epochs=2", "--keep-checkpoint",
    )  # fmt: skip
    (run,) = (tmp_path / "digits").iterdir()
    (run / "summary.json").unlink()
    code, output = invoke("resume", run, "--device", "nowhere")
    assert code == 2
    assert "device must be cpu, cuda, cuda:N or mps, got 'nowhere'" in output
    code, _ = invoke("resume", run)
    assert code == 0
    assert (run / "summary.json").is_file()


def test_new_writes_a_short_recipe_that_trains_on_the_photos(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = 'my "best" photos\\'
    make_photos(tmp_path / folder, classes=("cat", "dog"), count=6)
    code, output = invoke("new", "mine.py", "--data", folder)
    assert (code, "12 images of 2 classes" in output) == (0, True)
    assert len((tmp_path / "mine.py").read_text().splitlines()) <= 27
    recipe = catalogue.get_recipe("mine.py")
    assert recipe.data.source == ImageFolders(path=folder, valid=0.2, valid_most=2_000)
    run = train(recipe, out=tmp_path, wandb="off", device="cpu", smoke=True)
    assert run.summary["epochs"] == 2


@pytest.mark.parametrize(
    ("photos", "file", "said"),
    [
        ("nowhere", "mine.py", "does not exist"),
        ("photos", "mine.txt", "must end in .py"),
        ("photos", "taken.py", "must not overwrite"),
        ("photos", "nowhere/mine.py", "folder that exists"),
    ],
)
def test_new_refuses_what_it_cannot_write(tmp_path, monkeypatch, photos, file, said):
    monkeypatch.chdir(tmp_path)
    make_photos(tmp_path / "photos", classes=("cat", "dog"), count=2)
    (tmp_path / "taken.py").write_text("")
    code, output = invoke("new", file, "--data", photos)
    assert (code, said in output) == (2, True)
    assert not (tmp_path / "mine.py").exists()
