"""Public data sets, and readers for one's own.

Public ones are looked for in the folder that the environment variable ``LEPTON_DATASETS`` names,
then in ``~/.cache/lepton/datasets``, and are else downloaded there and checked.
"""

from lepton_ai.datasets.files import splits_from
from lepton_ai.datasets.loaders import (
    HOUSING_FEATURES,
    load_digits,
    load_fashion_mnist,
    load_housing,
    load_mnist,
    load_sms_spam,
)
from lepton_ai.datasets.readers import read_csv, read_images, read_numpy, read_parquet

__all__ = [
    "HOUSING_FEATURES",
    "load_digits",
    "load_fashion_mnist",
    "load_housing",
    "load_mnist",
    "load_sms_spam",
    "read_csv",
    "read_images",
    "read_numpy",
    "read_parquet",
    "splits_from",
]
