"""What a run says of the code that trained it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from fastcv.experiment import environment

SOURCES = Path(environment.__file__).parents[2]


def git(folder, *arguments):
    env = os.environ | {
        f"GIT_{who}_{what}": "nobody"
        for who in ("AUTHOR", "COMMITTER")
        for what in ("NAME", "EMAIL")
    }
    command = ["git", "-C", str(folder), *arguments]
    done = subprocess.run(command, check=True, capture_output=True, text=True, env=env)
    return done.stdout.strip()


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    """Return a checkout that fastcv seems to have been imported from."""
    root = tmp_path / "checkout"
    (root / "fastcv/experiment").mkdir(parents=True)
    (root / "recipes").mkdir()
    git(root, "init", "-q")
    (root / "file").write_text("one")
    git(root, "add", "file")
    git(root, "commit", "-qm", "one")
    monkeypatch.setattr(environment, "__file__", str(root / "fastcv/experiment/environment.py"))
    monkeypatch.setattr("fastcv.catalogue.folder", lambda: root / "recipes")
    return root


def revision():
    return environment.environment("cpu", "fp32")["git_revision"]


def test_revision_is_the_commit_and_says_what_is_changed(checkout):
    commit = git(checkout, "rev-parse", "HEAD")
    assert revision() == commit
    (checkout / "file").write_text("two")
    assert revision() == f"{commit}-changed"


def test_recipes_of_another_checkout_have_no_revision(checkout, tmp_path, monkeypatch):
    monkeypatch.setattr("fastcv.catalogue.folder", lambda: tmp_path / "other/recipes")
    assert revision() is None


@pytest.mark.skipif(not (SOURCES / ".git").exists(), reason="fastcv is not run from a checkout")
def test_this_checkout_has_a_revision():
    command = "from fastcv.experiment.environment import environment as e; print(e('cpu', 'fp32'))"
    done = subprocess.run(
        [sys.executable, "-c", command], capture_output=True, text=True, check=True
    )
    assert git(SOURCES, "rev-parse", "HEAD") in done.stdout
