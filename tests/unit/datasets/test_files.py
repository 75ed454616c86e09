"""Datasets from files."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from lepton_ai.datasets import splits_from
from lepton_ai.datasets.files import rows_from
from lepton_ai.datasets.writers import write_npz
from lepton_ai.errors import DataError, NotFoundError
from lepton_ai.splits import arrays_to_split

TABLE = pd.DataFrame({"area": [50, 60, 70], "rooms": [1.5, 2.0, 3.0], "price": [150, 190, 230]})


def images(folder: Path, size: tuple[int, int] = (6, 4), mode: str = "RGB") -> Path:
    for label, name in enumerate(("cat", "dog")):
        (folder / name).mkdir(parents=True)
        for number in range(3):
            Image.new(mode, size, 100 * label if mode == "L" else (100 * label, 0, 0)).save(
                folder / name / f"{number}.png"
            )
    return folder


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_a_table_with_a_label(tmp_path: Path, kind: str) -> None:
    path = tmp_path / f"houses.{kind}"
    if kind == "csv":
        TABLE.to_csv(path, index=False)
    else:
        TABLE.to_parquet(path)
    columns = splits_from(path, label="price")["train"]
    assert columns["x"].dtype == np.float32
    np.testing.assert_array_equal(columns["x"], [[50, 1.5], [60, 2.0], [70, 3.0]])
    np.testing.assert_array_equal(columns["y"], [150, 190, 230])
    assert columns["y"].dtype == np.int64


def test_a_table_without_a_label_keeps_its_columns(tmp_path: Path) -> None:
    pd.DataFrame({"n": [1, 2], "text": ["a", "ü"]}).to_csv(tmp_path / "t.csv", index=False)
    columns = splits_from(tmp_path / "t.csv")["train"]
    assert columns["n"].tolist() == [1, 2]
    assert columns["text"].tolist() == ["a", "ü"]
    arrays_to_split("train", columns)


def test_labels_that_are_texts_become_numbers_and_stay(tmp_path: Path) -> None:
    pd.DataFrame({"sms": ["hi", "win", "yo"], "kind": ["ham", "spam", "ham"]}).to_csv(
        tmp_path / "t.csv", index=False
    )
    columns = splits_from(tmp_path / "t.csv", label="kind")["train"]
    assert columns["x"].tolist() == ["hi", "win", "yo"]
    assert columns["y"].tolist() == [0, 1, 0]
    assert columns["label"].tolist() == ["ham", "spam", "ham"]


@pytest.mark.parametrize(
    ("content", "label", "error", "text"),
    [
        ("a,b\n1,2\n", "c", NotFoundError, "no column 'c'"),
        ("a,b\n1,\n", "", DataError, "empty cells"),
        ("a,b,c\n1,x,2\n", "c", DataError, "column 'b' has texts"),
        ("a\n1\n", "a", DataError, "no column but the label"),
        ("a,b\n", "", DataError, "no rows"),
        ("", "", DataError, "not a table"),
    ],
)
def test_a_table_that_cannot_be_a_dataset_is_said(
    tmp_path: Path, content: str, label: str, error: type[Exception], text: str
) -> None:
    (tmp_path / "t.csv").write_text(content)
    with pytest.raises(error, match=text):
        splits_from(tmp_path / "t.csv", label=label)


def test_arrays(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.arange(6).reshape(3, 2))
    assert splits_from(tmp_path / "a.npy")["train"]["x"].shape == (3, 2)
    np.savez(tmp_path / "a.npz", x=np.zeros(2), y=np.ones(2))
    assert set(splits_from(tmp_path / "a.npz")["train"]) == {"x", "y"}
    np.save(tmp_path / "bad.npy", np.array([{}]), allow_pickle=True)
    with pytest.raises(DataError, match="plain arrays"):
        splits_from(tmp_path / "bad.npy")


@pytest.mark.parametrize(("mode", "channels"), [("RGB", 3), ("L", 1)])
def test_a_folder_of_images(tmp_path: Path, mode: str, channels: int) -> None:
    columns = splits_from(images(tmp_path / "pets", mode=mode))["train"]
    assert columns["x"].shape == (6, 4, 6, channels)
    assert columns["x"][3:, ..., 0].tolist() == np.full((3, 4, 6), 100).tolist()
    assert columns["y"].tolist() == [0, 0, 0, 1, 1, 1]
    assert columns["label"].tolist() == ["cat"] * 3 + ["dog"] * 3
    scaled = splits_from(tmp_path / "pets", image_size=(2, 2))["train"]
    assert scaled["x"].shape == (6, 2, 2, channels)


def test_images_that_differ_are_said(tmp_path: Path) -> None:
    folder = images(tmp_path / "pets")
    Image.new("RGB", (9, 9)).save(folder / "dog/9.png")
    with pytest.raises(DataError, match=r"9\.png is 9x9 and others are 4x6"):
        splits_from(folder)
    (folder / "dog/9.png").write_bytes(b"no image")
    with pytest.raises(DataError, match=r"9\.png is not an image"):
        splits_from(folder)


def test_a_folder_of_splits(tmp_path: Path) -> None:
    images(tmp_path / "pets/train")
    images(tmp_path / "pets/test")
    assert set(splits_from(tmp_path / "pets")) == {"train", "test"}
    (tmp_path / "tables").mkdir()
    for name in ("train", "validation"):
        TABLE.to_csv(tmp_path / f"tables/{name}.csv", index=False)
    splits = splits_from(tmp_path / "tables", label="price")
    assert {name: len(columns["y"]) for name, columns in splits.items()} == {
        "train": 3,
        "validation": 3,
    }


@pytest.mark.parametrize("kind", ["zip", "gztar"])
def test_an_archive_of_any_of_them(tmp_path: Path, kind: str) -> None:
    images(tmp_path / "data/pets")
    packed = shutil.make_archive(str(tmp_path / "pets"), kind, tmp_path / "data")
    assert len(splits_from(packed)["train"]["y"]) == 6
    TABLE.to_csv(tmp_path / "houses.csv", index=False)
    (tmp_path / "one").mkdir()
    (tmp_path / "houses.csv").rename(tmp_path / "one/houses.csv")
    packed = shutil.make_archive(str(tmp_path / "houses"), kind, tmp_path / "one")
    assert splits_from(packed, label="price")["train"]["x"].shape == (3, 2)


def test_what_cannot_be_a_dataset_is_said(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError):
        splits_from(tmp_path / "none")
    (tmp_path / "a.txt").write_text("x")
    with pytest.raises(DataError, match="cannot be a dataset"):
        splits_from(tmp_path / "a.txt")
    with pytest.raises(DataError, match="no images"):
        splits_from(tmp_path)


def test_rows_to_ask_a_model_with(tmp_path: Path) -> None:
    pd.DataFrame({"a": [1, 2], "b": [0.5, 1.5]}).to_csv(tmp_path / "t.csv", index=False)
    assert rows_from(tmp_path / "t.csv", (2,)).tolist() == [[1, 0.5], [2, 1.5]]
    np.save(tmp_path / "a.npy", np.ones((3, 2)))
    assert rows_from(tmp_path / "a.npy", (2,)).shape == (3, 2)


@pytest.mark.parametrize("shape", [(6, 4), (6, 4, 1), (6, 4, 3)])
def test_an_image_becomes_what_the_model_takes(tmp_path: Path, shape: tuple[int, ...]) -> None:
    Image.new("RGB", (40, 60), (200, 200, 200)).save(tmp_path / "a.png")
    row = rows_from(tmp_path / "a.png", shape)
    assert row.shape == (1, *shape)
    assert set(row.flat) == {200}


def test_what_holds_no_rows_is_said(tmp_path: Path) -> None:
    Image.new("L", (4, 4)).save(tmp_path / "a.png")
    with pytest.raises(DataError, match="no images"):
        rows_from(tmp_path / "a.png", (784,))
    (tmp_path / "a.png").write_bytes(b"x")
    with pytest.raises(DataError, match="not an image"):
        rows_from(tmp_path / "a.png", (4, 4))
    with pytest.raises(NotFoundError):
        rows_from(tmp_path / "none.csv", (4,))
    (tmp_path / "a.txt").write_text("x")
    with pytest.raises(DataError, match="holds no rows"):
        rows_from(tmp_path / "a.txt", (4,))


def test_all_splits_number_classes_alike(tmp_path: Path) -> None:
    for split, classes in (("train", "abc"), ("test", "bc")):
        for name in classes:
            (tmp_path / f"pets/{split}/{name}").mkdir(parents=True)
            Image.new("L", (2, 2)).save(tmp_path / f"pets/{split}/{name}/1.png")
    splits = splits_from(tmp_path / "pets")
    assert splits["train"]["y"].tolist() == [0, 1, 2]
    assert splits["test"]["y"].tolist() == [1, 2]
    assert splits["test"]["label"].tolist() == ["b", "c"]


def test_images_of_all_splits_have_one_shape(tmp_path: Path) -> None:
    images(tmp_path / "pets/train", mode="L")
    images(tmp_path / "pets/test", mode="RGB")
    shapes = {columns["x"].shape for columns in splits_from(tmp_path / "pets").values()}
    assert shapes == {(6, 4, 6, 3)}


def test_all_splits_number_labels_and_order_columns_alike(tmp_path: Path) -> None:
    (tmp_path / "t").mkdir()
    (tmp_path / "t/train.csv").write_text("a,b,kind\n1,2,x\n3,4,y\n5,6,z\n")
    (tmp_path / "t/test.csv").write_text("kind,b,a\nz,8,7\ny,10,9\n")
    splits = splits_from(tmp_path / "t", label="kind")
    assert splits["test"]["x"].tolist() == [[7, 8], [9, 10]]
    assert splits["test"]["y"].tolist() == [2, 1]
    assert splits["train"]["y"].tolist() == [0, 1, 2]
    (tmp_path / "t/test.csv").write_text("kind,b,c\nz,8,7\n")
    with pytest.raises(DataError, match="other columns than 'train': a, c"):
        splits_from(tmp_path / "t", label="kind")


def test_splits_of_different_kinds_are_said(tmp_path: Path) -> None:
    images(tmp_path / "d/train")
    TABLE.to_csv(tmp_path / "d/test.csv", index=False)
    with pytest.raises(DataError, match="different kinds"):
        splits_from(tmp_path / "d")


def test_a_file_that_is_no_image_is_said(tmp_path: Path) -> None:
    folder = images(tmp_path / "pets")
    (folder / "cat/.hidden").write_text("x")
    (folder / "cat/scan.tiff").write_bytes(b"x")
    with pytest.raises(DataError, match=r"scan\.tiff is not an image"):
        splits_from(folder)


@pytest.mark.parametrize("number", ["1e300", "-1e39", "inf"])
def test_numbers_too_large_are_said(tmp_path: Path, number: str) -> None:
    (tmp_path / "t.csv").write_text(f"a,b\n{number},1\n2.5,2\n")
    with pytest.raises(DataError, match="column 'a' has numbers too large"):
        splits_from(tmp_path / "t.csv", label="b")


def test_a_damaged_npz_is_said(tmp_path: Path) -> None:
    np.savez_compressed(tmp_path / "a.npz", x=np.arange(10_000))
    data = (tmp_path / "a.npz").read_bytes()
    for damaged in (data[: len(data) // 2], data[:100] + b"xxxx" + data[104:], b""):
        (tmp_path / "a.npz").write_bytes(damaged)
        with pytest.raises(DataError, match="plain arrays"):
            splits_from(tmp_path / "a.npz")


def test_an_archive_with_one_class_has_that_class(tmp_path: Path) -> None:
    (tmp_path / "data/cat").mkdir(parents=True)
    Image.new("L", (2, 2)).save(tmp_path / "data/cat/1.png")
    packed = shutil.make_archive(str(tmp_path / "pets"), "zip", tmp_path / "data")
    assert splits_from(packed)["train"]["label"].tolist() == ["cat"]


def test_columns_of_any_name_are_written_and_read_back(tmp_path: Path) -> None:
    columns = {"file": np.arange(3), "allow_pickle": np.ones((3, 2), np.float32)}
    write_npz(tmp_path / "x.npz", columns)
    with np.load(tmp_path / "x.npz") as found:
        assert set(found) == set(columns)
        for name, column in columns.items():
            np.testing.assert_array_equal(found[name], column)
