"""Loaders and readers: found, downloaded, resumed, checked, refused."""

import gzip
import hashlib
import io
import socket
import tarfile
import time
import zipfile
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from lepton_ai import datasets
from lepton_ai.datasets import download, loaders
from lepton_ai.datasets.sources import Source
from lepton_ai.errors import (
    DataCorruptError,
    DataError,
    InvalidArgumentError,
    NotFoundError,
    UnavailableError,
)

CONTENT = bytes(range(256)) * 1000
SOURCE = Source(
    "set/file.bin",
    ("https://first.example/file.bin", "https://second.example/file.bin"),
    f"sha256:{hashlib.sha256(CONTENT).hexdigest()}",
    limit_bytes=1 << 20,
)


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv(download.FOLDER_VARIABLE, raising=False)
    return tmp_path / "cache/lepton/datasets"


class Response(io.BytesIO):
    """What urlopen gives: a body that may break off, and the length it promised."""

    def __init__(self, body, length):
        super().__init__(body)
        self.length = length


class Publisher:
    """An address that serves `content`, breaking off after so many bytes at each call."""

    def __init__(self, content, breaks=()):
        self.content = content
        self.breaks = list(breaks)
        self.asked = []

    def __call__(self, url, offset, timeout_s):
        self.asked.append((url, offset))
        rest = self.content[offset:]
        return Response(rest[: self.breaks.pop(0)] if self.breaks else rest, len(rest)), True


def test_a_file_is_downloaded_once(cache):
    publisher = Publisher(CONTENT)
    path = download.locate(SOURCE, publisher)
    assert path.read_bytes() == CONTENT
    assert download.locate(SOURCE, publisher) == path == cache / "set/file.bin"
    assert len(publisher.asked) == 1
    assert list(path.parent.iterdir()) == [path]


def test_a_broken_download_goes_on_where_it_broke():
    publisher = Publisher(CONTENT, breaks=[1000, 5000])
    with pytest.raises(UnavailableError, match="broke off after 1000 of 256000 bytes"):
        download.locate(SOURCE, publisher)
    assert download.locate(SOURCE, publisher).read_bytes() == CONTENT
    assert [offset for _, offset in publisher.asked] == [0, 1000, 6000]


def test_a_publisher_that_cannot_resume_starts_afresh(cache):
    part = cache / "set/file.bin.part"
    part.parent.mkdir(parents=True)
    part.write_bytes(b"old")
    path = download.locate(SOURCE, lambda *_: (Response(CONTENT, len(CONTENT)), False))
    assert path.read_bytes() == CONTENT


def test_wrong_bytes_are_refused_and_not_kept(cache):
    with pytest.raises(DataCorruptError, match="sha256 digest"):
        download.locate(SOURCE, Publisher(b"something else"))
    assert not list((cache / "set").iterdir())


def test_an_endless_download_is_cut_off():
    with pytest.raises(DataCorruptError, match="more than 1000 bytes"):
        download.locate(replace(SOURCE, limit_bytes=1000), Publisher(CONTENT))


def test_an_archive_gives_its_member():
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("inside", CONTENT)
    path = download.locate(replace(SOURCE, member="inside"), Publisher(archive.getvalue()))
    assert path.read_bytes() == CONTENT
    path.unlink()
    with pytest.raises(DataCorruptError, match="does not hold other"):
        download.locate(replace(SOURCE, member="other"), Publisher(archive.getvalue()))


def test_offline_fails_soon_and_says_where_to_put_the_file(monkeypatch):
    def no_network(*_, **__):
        raise OSError("no route to host")

    monkeypatch.setattr(socket, "getaddrinfo", no_network)
    start = time.monotonic()
    with pytest.raises(
        UnavailableError, match=r"put the file at mnist/train-images.*LEPTON_DATASETS"
    ):
        datasets.load_mnist("train")
    assert time.monotonic() - start < 5


def test_a_name_that_never_resolves_is_given_up_on(monkeypatch):
    release = __import__("threading").Event()
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: release.wait() and [])
    with pytest.raises(TimeoutError):
        download.open_url("http://never.example/", 0, 0.05)
    release.set()


def idx(array):
    header = bytes([0, 0, 8, array.ndim]) + b"".join(n.to_bytes(4, "big") for n in array.shape)
    return gzip.compress(header + array.tobytes())


def test_idx_files_become_images_and_labels(tmp_path, monkeypatch):
    images, labels = np.arange(24, dtype=np.uint8).reshape(2, 3, 4), np.array([7, 1], np.uint8)
    sources = []
    for name, array in (("images", images), ("labels", labels)):
        (tmp_path / name).write_bytes(idx(array))
        digest = hashlib.md5(gzip.decompress(idx(array))).hexdigest()
        sources.append(Source(name, (), f"gunzip:md5:{digest}", 1000))
    monkeypatch.setenv(download.FOLDER_VARIABLE, str(tmp_path))
    monkeypatch.setattr(loaders, "MNIST", {"test": tuple(sources)})
    found_images, found_labels = datasets.load_mnist("test")
    assert np.array_equal(found_images, images)
    assert found_labels.tolist() == [7, 1]
    assert found_labels.dtype == np.int64
    (tmp_path / "images").write_bytes(b"damaged")
    with pytest.raises(DataCorruptError, match="md5 digest"):
        datasets.load_mnist("test")


def test_housing_is_read_from_its_archive(tmp_path, monkeypatch):
    rows = [[-122.23, 37.88, 41, 880, 129, 322, 126, 8.3252, 452600]] * 10
    table = "\n".join(",".join(map(str, row)) for row in rows).encode()
    with tarfile.open(tmp_path / "housing.tgz", "w:gz") as archive:
        member = tarfile.TarInfo("CaliforniaHousing/cal_housing.data")
        member.size = len(table)
        archive.addfile(member, io.BytesIO(table))
    digest = hashlib.sha256((tmp_path / "housing.tgz").read_bytes()).hexdigest()
    source = Source("housing.tgz", (), f"sha256:{digest}", 10_000)
    monkeypatch.setattr(loaders, "HOUSING", source)
    monkeypatch.setenv(download.FOLDER_VARIABLE, str(tmp_path))
    x, y = datasets.load_housing("train")
    assert x.shape == (8, len(datasets.HOUSING_FEATURES))
    assert x[0] == pytest.approx([8.3252, 41, 880 / 126, 129 / 126, 322, 322 / 126, 37.88, -122.23])
    assert y[0] == pytest.approx(4.526)
    assert len(datasets.load_housing("test")[1]) == 2


def test_spam_is_split_with_its_share_of_spam(tmp_path, monkeypatch):
    text = "".join(f"{'spam' if n % 5 == 0 else 'ham'}\tmessage\u2028{n}\n" for n in range(50))
    (tmp_path / "sms").write_text(text, "utf-8")
    source = Source("sms", (), f"sha256:{hashlib.sha256(text.encode()).hexdigest()}", 10_000)
    monkeypatch.setattr(loaders, "SMS_SPAM", source)
    monkeypatch.setenv(download.FOLDER_VARIABLE, str(tmp_path))
    train, test = datasets.load_sms_spam("train"), datasets.load_sms_spam("test")
    assert (train[1].sum(), test[1].sum()) == (8, 2)
    assert not set(train[0]) & set(test[0])


def test_digits_ship_with_the_library():
    (x, y), (test_x, _) = datasets.load_digits("train"), datasets.load_digits("test")
    assert x.dtype == np.uint8
    assert x.max() == 16
    assert len(x) + len(test_x) == 1797
    assert set(y) == set(range(10))


@pytest.mark.parametrize("name", ["mnist", "fashion_mnist", "digits", "sms_spam", "housing"])
def test_there_are_two_splits(name):
    with pytest.raises(InvalidArgumentError, match="'train' or 'test'"):
        getattr(datasets, f"load_{name}")("validation")


def test_tables(tmp_path):
    table = pd.DataFrame({"area": [1.0, 2.0], "price": [3, 4]})
    table.to_csv(tmp_path / "t.csv", index=False)
    table.to_parquet(tmp_path / "t.parquet")
    for read, name in ((datasets.read_csv, "t.csv"), (datasets.read_parquet, "t.parquet")):
        x, y = read(tmp_path / name, label="price")
        assert (list(x), y.tolist()) == (["area"], [3, 4])
        with pytest.raises(NotFoundError, match="did you mean 'price'"):
            read(tmp_path / name, label="prize")
        with pytest.raises(NotFoundError, match="there is no"):
            read(tmp_path / "nowhere", label="price")
    with pytest.raises(DataError, match="not a table"):
        datasets.read_parquet(tmp_path / "t.csv", label="price")


def test_numpy_files_hold_no_pickles(tmp_path):
    np.savez(tmp_path / "a.npz", x=np.ones(3), y=np.zeros(3))
    x, y = datasets.read_numpy(tmp_path / "a.npz")
    assert (x.sum(), y.sum()) == (3, 0)
    with pytest.raises(NotFoundError, match="has no 'labels'"):
        datasets.read_numpy(tmp_path / "a.npz", y="labels")
    np.savez(tmp_path / "b.npz", x=np.array([{}], dtype=object), y=np.zeros(1))
    with pytest.raises(DataError, match="plain arrays"):
        datasets.read_numpy(tmp_path / "b.npz")


def test_image_folders(tmp_path):
    for name, colour in (("cat", (255, 0, 0)), ("dog", (0, 0, 255))):
        (tmp_path / "pets" / name).mkdir(parents=True)
        Image.new("RGB", (5, 7), colour).save(tmp_path / "pets" / name / "1.png")
    images, labels, classes = datasets.read_images(tmp_path / "pets", size=(4, 6))
    assert images.shape == (2, 4, 6, 3)
    assert images[0, 0, 0].tolist() == [255, 0, 0]
    assert (labels.tolist(), classes) == ([0, 1], ["cat", "dog"])
    assert datasets.read_images(tmp_path / "pets", size=(4, 6), channels=1)[0].shape == (2, 4, 6, 1)
    (tmp_path / "pets/cat/2.jpg").write_bytes(b"no image")
    with pytest.raises(DataError, match="is not an image"):
        datasets.read_images(tmp_path / "pets", size=(4, 6))
    with pytest.raises(DataError, match="has no images"):
        datasets.read_images(tmp_path, size=(4, 6))
