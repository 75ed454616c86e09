"""Cleaning, scaling, augmenting, splitting and tokenising data.

`MinMaxScaler`, `StandardScaler`, `Tokenizer` and `Augmentation` can be given to a model: they are
fitted with it, saved with it and exported with it, so that a served model takes raw data.
"""

from lepton_ai.preprocessing.cleaning import (
    clip_outliers,
    drop_duplicates,
    drop_missing,
    fill_missing,
)
from lepton_ai.preprocessing.splitting import Split, train_validation_test_split
from lepton_ai.preprocessing.steps import (
    Augmentation,
    MinMaxScaler,
    StandardScaler,
    Tokenizer,
)

__all__ = [
    "Augmentation",
    "MinMaxScaler",
    "Split",
    "StandardScaler",
    "Tokenizer",
    "clip_outliers",
    "drop_duplicates",
    "drop_missing",
    "fill_missing",
    "train_validation_test_split",
]
