"""The public data sets Lepton knows: where they are published and what their bytes hash to."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["FASHION_MNIST", "HOUSING", "MNIST", "SMS_SPAM", "Source"]


@dataclass(frozen=True)
class Source:
    """One file of a data set.

    Attributes:
        path: Where it lies below a data folder.
        urls: Where it is published, tried in turn.
        digest: ``algorithm:hex`` of the file; with ``gunzip:`` before it, of what gzip holds,
            because mirrors wrap the same content differently.
        limit_bytes: More than this is not downloaded.
        member: Its name in the zip archive that `urls` give, or empty when they give it as it is.
    """

    path: str
    urls: tuple[str, ...]
    digest: str
    limit_bytes: int
    member: str = ""


def _mnist(name: str, md5: str) -> Source:
    mirrors = (
        "https://ossci-datasets.s3.amazonaws.com/mnist",
        "https://storage.googleapis.com/cvdf-datasets/mnist",
    )
    urls = tuple(f"{mirror}/{name}" for mirror in mirrors)
    return Source(f"mnist/{name}", urls, f"gunzip:md5:{md5}", 16 << 20)


def _fashion(name: str, md5: str) -> Source:
    url = f"http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/{name}"
    return Source(f"fashion-mnist/{name}", (url,), f"md5:{md5}", 32 << 20)


MNIST = {
    "train": (
        _mnist("train-images-idx3-ubyte.gz", "6bbc9ace898e44ae57da46a324031adb"),
        _mnist("train-labels-idx1-ubyte.gz", "a25bea736e30d166cdddb491f175f624"),
    ),
    "test": (
        _mnist("t10k-images-idx3-ubyte.gz", "2646ac647ad5339dbf082846283269ea"),
        _mnist("t10k-labels-idx1-ubyte.gz", "27ae3e4e09519cfbb04c329615203637"),
    ),
}
"""Images and labels of each split."""

FASHION_MNIST = {
    "train": (
        _fashion("train-images-idx3-ubyte.gz", "8d4fb7e6c68d591d4c3dfef9ec88bf0d"),
        _fashion("train-labels-idx1-ubyte.gz", "25c81989df183df01b3e8a0aad5dffbe"),
    ),
    "test": (
        _fashion("t10k-images-idx3-ubyte.gz", "bef4ecab320f06d8554ea6380940ec79"),
        _fashion("t10k-labels-idx1-ubyte.gz", "bb300cfdad3c16e7a12a480ee83cd310"),
    ),
}
"""Images and labels of each split."""

SMS_SPAM = Source(
    "sms-spam/SMSSpamCollection",
    ("https://archive.ics.uci.edu/static/public/228/sms+spam+collection.zip",),
    "sha256:7d039a24a6083ed9ef0f806ebad56bbb976e3aeb8de05669173bfdc4996c239d",
    4 << 20,
    member="SMSSpamCollection",
)

HOUSING = Source(
    "housing/cal_housing.tgz",
    ("https://ndownloader.figshare.com/files/5976036",),
    "sha256:aaa5c9a6afe2225cc2aed2723682ae403280c4a3695a2ddda4ffb5d8215ea681",
    4 << 20,
)
