"""Images that a CSV file or a DataFrame lists."""

import os

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from fastcv.data import Images, Table
from fastcv.recipe import flat, replace
from fastcv.recipes.digits import recipe as digits


@pytest.fixture
def photos(tmp_path):
    """A folder with 12 photos."""
    for number in range(12):
        path = tmp_path / "photos" / f"{number:02d}.png"
        path.parent.mkdir(exist_ok=True)
        Image.new("RGB", (9, 9), (20 * number, 0, 0)).save(path)
    return tmp_path / "photos"


def write(photos, lines, name="labels.csv", encoding="utf-8"):
    file = photos / name
    file.write_text("\n".join(lines) + "\n", encoding=encoding)
    return file


def twelve(*, header="image,label", row="{n:02d}.png,{label}"):
    return [header, *(row.format(n=n, label="cat" if n % 2 else "dog") for n in range(12))]


def names(samples):
    return [(sample.image.name, sample.label) for sample in samples]


def test_images_and_labels_are_read_by_the_names_of_their_columns(photos):
    lines = twelve(header="nr,species,file", row="{n},{label},{n:02d}.png")
    samples = Table(write(photos, lines), image="file", label="species", valid=0)()
    assert names(samples.train) == [(f"{n:02d}.png", "cat" if n % 2 else "dog") for n in range(12)]
    assert (samples.valid, samples.test, samples.classes) == ([], [], ("cat", "dog"))
    assert samples.root == photos
    assert all(sample.image.is_absolute() for sample in samples.train)


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_delimiter_is_found(photos, delimiter, encoding):
    lines = twelve(
        header=delimiter.join(['"file, name"', " label ", "remark"]),
        row=delimiter.join(["{n:02d}.png", " {label} ", '"a, b; c"']),
    )
    file = write(photos, [*lines, "", delimiter * 2], encoding=encoding)
    samples = Table(file, image="file, name", valid=0)()
    assert len(samples.train) == 12
    assert samples.classes == ("cat", "dog")


def test_validation_images_are_held_out_as_of_folders(photos):
    table = Table(write(photos, twelve()), valid=2)
    samples = table()
    assert sorted(label for _, label in samples.valid) == ["cat", "cat", "dog", "dog"]
    assert sorted(names(samples.train) + names(samples.valid)) == sorted(
        names(replace(table, valid=0)().train)
    )
    assert names(replace(table, seed=1)().valid) != names(samples.valid)
    assert len(replace(table, valid=0.5)().valid) == 6
    bounded = replace(table, valid=0.5, valid_most=4)()
    assert (len(bounded.train), len(bounded.valid)) == (8, 4)
    with pytest.raises(ValueError, match="valid_most must be at least 1, got 0"):
        replace(table, valid_most=0)


def test_parts_are_those_of_the_table(photos):
    parts = ["train", "Training", "val", "VALID", "test", "testing"] * 2
    lines = [f"{line},{part}" for line, part in zip(twelve()[1:], parts, strict=True)]
    samples = Table(write(photos, ["image,label,part", *lines]), split="part")()
    assert [len(part) for part in samples[:3]] == [4, 4, 4]
    assert names(samples.test)[0] == ("04.png", "dog")
    lines = [line.replace("VALID", "dev") for line in lines]
    with pytest.raises(ValueError, match=r"train, valid or test, got 'dev' in line 5 of '.*'\."):
        Table(write(photos, ["image,label,part", *lines]), split="part")()


def test_parts_without_validation_hold_some_out(photos):
    lines = [f"{line},{'test' if n > 8 else 'train'}" for n, line in enumerate(twelve()[1:])]
    samples = Table(write(photos, ["image,label,split", *lines]), split="split", valid=1)()
    assert [len(part) for part in samples[:3]] == [7, 2, 3]


@pytest.mark.parametrize("kind", ["csv", "frame"])
def test_whole_numbers_are_one_class_however_they_are_written(photos, kind):
    labels = ["1", "1.0", "2", "2.00", "-3", "-3.0", "1.5", "1.50", "01", "1.0.0", "NA", "nan"]
    frame = pd.DataFrame({"image": [f"{n:02d}.png" for n in range(12)], "label": labels})
    file = photos / "labels.csv"
    frame.to_csv(file, index=False)
    found = Table(file, valid=0) if kind == "csv" else Table(frame, root=photos, valid=0)
    expected = ["1", "1", "2", "2", "-3", "-3", "1.5", "1.50", "01", "1.0.0", "NA", "nan"]
    assert [sample.label for sample in found().train] == expected


def test_numbers_of_a_data_frame_with_gaps_are_those_without(photos):
    frame = pd.DataFrame({"image": [f"{n:02d}.png" for n in range(12)], "label": [0, 1, 2] * 4})
    whole = Table(frame, root=photos, valid=0)()
    frame.loc[12] = ["00.png", None]  # turns the column into fractions
    assert frame["label"].dtype == float
    with pytest.raises(ValueError, match="row 12 of the DataFrame has none"):
        Table(frame, root=photos)()
    again = Table(frame.dropna(), root=photos, valid=0)()
    assert again.train == whole.train
    assert again.classes == ("0", "1", "2")


def test_groups_are_never_split(photos):
    lines = [f"{line},{n // 4 if n < 10 else ''}" for n, line in enumerate(twelve()[1:])]
    file = write(photos, ["image,label,animal", *lines])
    samples = Table(file, group="animal", valid=0.3)()
    group = {file: samples.groups.get(file) for file in sorted(photos.glob("*.png"))}
    assert list(group.values()) == [*"000011112", "2", None, None]
    held = {group[sample.image] for sample in samples.valid}
    rest = {group[sample.image] for sample in samples.train}
    assert not held & rest - {None}
    assert samples.valid

    data = Images(source=Table(file, group="animal", valid=0), size=8, batch_size=2)
    with pytest.raises(ValueError, match=r"a fraction of at most 0\.5, got 1"):
        replace(data, holdout=1)("cpu")
    validated = []
    for fold in ((1, 3), (2, 3), (3, 3)):
        dls = replace(data, fold=fold)("cpu")
        train, valid = ({dls.groups.get(name, name) for name in part} for part in dls.names)
        assert not train & valid
        validated += dls.names[1]
    assert sorted(validated) == [f"{n:02d}.png" for n in range(12)]


def test_group_in_two_parts_is_refused(photos):
    lines = [
        f"{line},{n % 3},{'test' if n > 8 else 'train'}" for n, line in enumerate(twelve()[1:])
    ]
    file = write(photos, ["image,label,animal,split", *lines])
    said = r"has group '0' in train \(line 2\) and test \(line 11\): move them"
    with pytest.raises(ValueError, match=said):
        Table(file, group="animal", split="split")()


def test_paths_start_from_the_root(photos):
    file = write(photos.parent, twelve(row="{n:02d},{label}"))
    assert len(Table(file, root=photos, suffix=".png", valid=0)().train) == 12
    with pytest.raises(ValueError, match=r"'00' \(line 2\) is not there, nor are 11 others"):
        Table(file, root=photos)()
    (photos / "03.png").unlink()
    with pytest.raises(ValueError, match=r"'03\.png' \(line 5\) is not there: add what is missing"):
        Table(file, root=photos, suffix=".png")()


def test_path_of_a_call_comes_first(photos, monkeypatch):
    file = write(photos, twelve())
    assert Table("elsewhere.csv", valid=0)(file).train == Table(file, valid=0)().train
    monkeypatch.chdir(photos.parent)
    assert Table("photos/labels.csv", valid=0)().train == Table(file, valid=0)().train


@pytest.mark.parametrize("path", ["../secret.png", "a/../../secret.png", "/secret.png", "link.png",
                                  "folder/secret.png"])  # fmt: skip
def test_paths_out_of_the_root_are_refused(photos, path):
    outside = photos.parent / "outside"
    outside.mkdir()
    for place in (photos.parent / "secret.png", outside / "secret.png"):
        Image.new("RGB", (9, 9)).save(place)
    (photos / "link.png").symlink_to(outside / "secret.png")
    (photos / "folder").symlink_to(outside)
    path = str(photos.parent / path[1:]) if path.startswith("/") else path
    file = write(photos, ["image,label", "00.png,cat", "01.png,dog", f"{path},cat"])
    with pytest.raises(ValueError, match=r"line 4 of '.*labels\.csv' has '.*secret|link\.png'"):
        Table(file)()


def test_paths_inside_of_the_root_may_be_absolute_or_links(photos):
    (photos / "link.png").symlink_to("02.png")
    file = write(photos, ["image,label", f"{photos / '00.png'},cat", "link.png,dog"])
    assert len(Table(file, valid=0)().train) == 2
    moved = photos.parent / "linked"
    moved.symlink_to(photos)
    assert len(Table(moved / "labels.csv", valid=0)().train) == 2


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        (
            ["image,lable", "00.png,cat"],
            r"no column of '.*' is called 'label'. Did you mean 'lable'",
        ),
        (["image,label,label", "00.png,a,b"], "several are called 'label': rename them"),
        (["image,label", "00.png,cat", "01.png,"], "column 'label', but line 3 of '.*' has none"),
        (["image,label", ",cat"], "column 'image', but line 2 of '.*' has none"),
        (["image,label", "00.png,cat,1"], "2 columns, but line 2 of '.*' has 3"),
        (["image,label", "00.png,a", "01.png,b", "00.png,b"], "00.png' in line 2 and line 4"),
        (["image,label", '"00', '.png",cat', "x.png,"], "line 4 of '.*' has none"),
        (["image,label", '00.png,"cat'], "must be a CSV file in UTF-8"),
        (["image,label", "00.png,cat"], "at least two images, got one"),
        (["image,label", "00.png,cat", "01.png,cat"], "two classes"),
        ([""], "no column of '.*' is called 'image'. There are none"),
    ],
)
def test_tables_that_do_not_fit_are_refused_in_a_sentence(photos, lines, said):
    with pytest.raises(ValueError, match=said) as error:
        Table(write(photos, lines))()
    assert "\n" not in str(error.value).replace("'00\n.png'", "")


def test_what_is_no_table_is_refused(photos):
    with pytest.raises(ValueError, match="pass --data FILE"):
        Table()()
    with pytest.raises(ValueError, match=r"photos' is a folder: pass another path"):
        Table(photos)()
    with pytest.raises(ValueError, match=r"labels\.csv' does not exist"):
        Table(photos / "labels.csv")()
    with pytest.raises(ValueError, match="a pandas DataFrame, got dict"):
        Table({"image": []})()
    (photos / "labels.csv").write_bytes("image,label\n00.png,Bär\n".encode("latin-1"))
    with pytest.raises(ValueError, match="CSV file in UTF-8"):
        Table(photos / "labels.csv")()
    with pytest.raises(ValueError, match="is none: set root="):
        Table(write(photos, twelve()), root=photos / "nowhere")()
    with pytest.raises(ValueError, match="no column of the DataFrame is called 'label'"):
        Table(pd.DataFrame({"image": ["a"]}))()


def test_a_table_is_saved_with_a_run_by_its_path(photos):
    source = Table(write(photos, twelve()), group="animal")
    recipe = replace(digits, data=Images(source=source, size=8, batch_size=4))
    values = flat(recipe)
    assert values["data.source"] == "fastcv.data:Table()"
    assert values["data.source.path"] == os.fspath(photos / "labels.csv")
    from fastcv.recipe import unflat

    assert flat(unflat(values)) == values


def test_a_data_frame_trains_but_is_not_saved(photos):
    frame = pd.DataFrame({"image": [f"{n:02d}.png" for n in range(12)], "label": [*"ab"] * 6})
    data = Images(source=Table(frame, root=photos), size=8, batch_size=4)
    dls = data("cpu")
    assert np.isclose(dls.one_batch()[0].shape[0], 4)
    with pytest.raises(ValueError, match=r"got DataFrame at 'data.source.path': write it to a CSV"):
        flat(replace(digits, data=data))
