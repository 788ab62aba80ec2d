import io
from types import SimpleNamespace

import pytest

from fastcv import terminal
from fastcv.terminal import ERASE, Bar, aligned, doing, with_bar


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture(autouse=True)
def _ordinary(monkeypatch):
    monkeypatch.setenv("TERM", "xterm")


@pytest.fixture
def clock(monkeypatch):
    """A clock that stands still until it is set."""
    now = SimpleNamespace(seconds=100.0)
    monkeypatch.setattr(terminal, "time", SimpleNamespace(perf_counter=lambda: now.seconds))
    return now


def test_bar_is_due_ten_times_a_second_at_most(clock):
    bar, drawn = Bar(Terminal()), 0
    for step in range(1000):
        clock.seconds = 100 + step / 1000  # one second
        if bar.due:
            bar.draw("train", step / 1000)
            drawn += 1
    assert 9 <= drawn <= 10
    assert bar.stream.getvalue().count(ERASE) == drawn


def test_a_file_gets_a_line_after_a_minute_without_one(clock):
    bar, silent = Bar(io.StringIO()), Bar(io.StringIO(), silent=True)
    assert bar.width is None
    for second in range(1, 200):
        clock.seconds = 100 + second
        if second == 30:
            bar.line("epoch 1")
        if bar.due:
            bar.draw(f"{second} s", 0.5)
        assert not silent.due
    assert bar.stream.getvalue().splitlines() == ["epoch 1", "90 s", "150 s"]


def test_bar_is_not_drawn_where_lines_cannot_be_erased(monkeypatch):
    monkeypatch.setenv("TERM", "dumb")
    bar = Bar(Terminal())
    assert not bar.due
    bar.line("epoch 1")
    assert bar.stream.getvalue() == "epoch 1\n"


@pytest.mark.parametrize("columns", [5, 20, 30, 80])
def test_bar_stays_in_one_line_and_shows_its_fraction(monkeypatch, columns):
    monkeypatch.setenv("COLUMNS", str(columns))
    monkeypatch.setenv("NO_COLOR", "1")
    out = Terminal()
    Bar(out).draw("epoch 1/1  train  50%", 0.5)
    text = out.getvalue().removeprefix(ERASE)
    assert len(text) <= columns
    assert "\n" not in text
    if columns == 80:
        assert text == f"epoch 1/1  train  50% {'━' * 12}"


def test_line_replaces_the_bar_on_a_terminal():
    bar = Bar(Terminal())
    bar.draw("train", 0.5)
    bar.line("done")
    assert bar.stream.getvalue().rpartition(ERASE)[2] == "done\n"


def test_a_task_is_shown_as_long_as_it_runs_and_a_file_gets_a_line():
    out, file = Terminal(), io.StringIO()
    with doing("drawing figures", Bar(out)):
        assert out.getvalue() == f"{ERASE}drawing figures"
    assert out.getvalue() == f"{ERASE}drawing figures{ERASE}"
    with doing("drawing figures", Bar(file)):
        assert file.getvalue() == "drawing figures\n"
    assert file.getvalue() == "drawing figures\n"


def test_nothing_is_erased_where_nothing_was_drawn():
    bar = Bar(Terminal())
    bar.erase()
    bar.draw("done", 1.0)
    bar.line("done")
    bar.erase()
    assert bar.stream.getvalue().endswith("done\n")
    assert bar.stream.getvalue().count(ERASE) == 2


@pytest.mark.parametrize("live", [True, False])
def test_chunks_pass_with_a_line_at_the_end(monkeypatch, live):
    stream = Terminal() if live else io.StringIO()
    monkeypatch.setattr("sys.stderr", stream)
    assert list(with_bar(iter("abc"), 4, 10, "decoding")) == ["a", "b", "c"]
    text = stream.getvalue()
    assert text.endswith(" s\n")
    assert text.rpartition(ERASE)[2].startswith("decoding: 10 images, ")
    assert ("4/10 images" in text) == live


def test_aligned_columns_are_as_wide_as_their_widest_cell():
    assert aligned([("a", "bb", "c"), ("aaa", "b", "")]) == ["a    bb  c", "aaa  b"]
