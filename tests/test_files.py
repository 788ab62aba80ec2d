import os

import pytest

from fastcv import files


def test_a_file_that_is_not_complete_changes_nothing(tmp_path):
    file = tmp_path / "report.md"
    files.write_text(file, "before\n")

    def half_way():
        with files.atomic(file) as opened:
            opened.write(b"aft")
            raise RuntimeError("half way")

    with pytest.raises(RuntimeError, match="half way"):
        half_way()
    assert file.read_text() == "before\n"
    assert list(tmp_path.iterdir()) == [file]


def test_a_file_has_the_permissions_of_any_other(tmp_path):
    files.write_bytes(tmp_path / "ours", b"")
    (tmp_path / "theirs").touch()
    assert (tmp_path / "ours").stat().st_mode == (tmp_path / "theirs").stat().st_mode


def test_what_a_killed_process_left_is_replaced(tmp_path):
    (tmp_path / f".a.json.{os.getpid()}.part").write_text("torn")
    files.write_json(tmp_path / "a.json", {"größe": 1})
    assert (tmp_path / "a.json").read_text(encoding="utf-8") == '{\n  "größe": 1\n}\n'
    assert len(list(tmp_path.iterdir())) == 1


def test_rows_come_back_as_they_were_written(tmp_path):
    rows = [{"epoch": 1, "loss": 0.25}, {"epoch": 2, "name": "a, b\nc"}]
    files.write_csv(tmp_path / "rows.csv", rows)
    assert files.read_csv(tmp_path / "rows.csv") == [
        {"epoch": 1, "loss": 0.25, "name": None},
        {"epoch": 2, "loss": None, "name": "a, b\nc"},
    ]
    assert files.read_csv(tmp_path / "none.csv") == []


@pytest.mark.parametrize("content", ["a,b\n1\n", "a\n1,2,3\n"])
def test_ragged_rows_are_refused(tmp_path, content):
    (tmp_path / "rows.csv").write_text(content)
    with pytest.raises(ValueError, match=r"every row of '.*rows.csv' must have all its columns"):
        files.read_csv(tmp_path / "rows.csv")


@pytest.mark.parametrize("content", [b"\xff\n", b"a\n" + b"x" * 200_000])
def test_what_is_no_csv_is_one_sentence(tmp_path, content):
    (tmp_path / "rows.csv").write_bytes(content)
    with pytest.raises(ValueError, match=r"rows.csv' must be CSV in UTF-8"):
        files.read_csv(tmp_path / "rows.csv")


def test_the_folder_of_a_file_is_made_or_refused_in_one_sentence(tmp_path):
    files.make_way(tmp_path / "new" / "folder" / "numbers.json", "the numbers")
    assert (tmp_path / "new" / "folder").is_dir()
    with pytest.raises(ValueError, match=r"the numbers must be a file, '.*new' is a folder: name"):
        files.make_way(tmp_path / "new", "the numbers")
    (tmp_path / "taken").touch()
    said = r"^the numbers must go into a folder that can be written to, '.*taken' cannot be: "
    with pytest.raises(ValueError, match=said):
        files.make_way(tmp_path / "taken" / "numbers.json", "the numbers")
