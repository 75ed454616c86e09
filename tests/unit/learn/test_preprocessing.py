"""Cleaning, scaling, augmenting, splitting, tokenising."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn import preprocessing as reference

from lepton_ai.errors import DataError, InvalidArgumentError, NotFittedError
from lepton_ai.preprocessing import (
    Augmentation,
    MinMaxScaler,
    StandardScaler,
    Tokenizer,
    clip_outliers,
    drop_duplicates,
    drop_missing,
    fill_missing,
    train_validation_test_split,
)

TABLE = np.random.default_rng(0).normal(5, 3, (50, 3))


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (MinMaxScaler(), reference.MinMaxScaler()),
        (MinMaxScaler(low=-1), reference.MinMaxScaler((-1, 1))),
        (StandardScaler(), reference.StandardScaler()),
    ],
)
def test_scalers_agree_with_scikit_learn(ours, theirs):
    fitted = ours.fit(TABLE)
    assert np.allclose(fitted.transform(TABLE), theirs.fit_transform(TABLE), atol=1e-6)
    assert np.allclose(fitted.inverse(fitted.transform(TABLE)), TABLE, atol=1e-5)
    assert not ours.fitted, "fit leaves the original as it was"


def test_a_constant_feature_scales_to_something_finite():
    for scaler in (MinMaxScaler(), StandardScaler()):
        assert np.isfinite(scaler.fit([[3.0], [3.0]]).transform([[3.0]])).all()


def test_unfitted_steps_and_wrong_widths_are_refused():
    with pytest.raises(NotFittedError, match="call fit first"):
        MinMaxScaler().transform(TABLE)
    with pytest.raises(NotFittedError):
        Tokenizer().transform(["a"])
    with pytest.raises(DataError, match="data has 2 features"):
        StandardScaler().fit(TABLE).transform(TABLE[:, :2])
    with pytest.raises(DataError, match="takes strings"):
        Tokenizer().fit([3])


@given(st.lists(st.text(alphabet="abAB1£!. \n", max_size=30), min_size=1, max_size=8))
def test_tokens_are_numbers_of_the_vocabulary(texts):
    tokenizer = Tokenizer(vocabulary_size=12, steps=4, minimum_count=1).fit(texts)
    rows = tokenizer.transform(texts)
    assert rows.shape == (len(texts), 4)
    assert rows.min() >= 0
    assert rows.max() < 12
    assert all((np.diff((row > 0).astype(int)) >= 0).all() for row in rows), "padding comes first"


def test_unknown_words_are_told_apart_by_what_they_look_like():
    tokenizer = Tokenizer(steps=1, minimum_count=1).fit(["known"])
    words = ["07712345678", "£5", "www.x", "4u", "wow!", "...", "unseen", "KNOWN", ""]
    assert tokenizer.transform(words)[:, 0].tolist() == [1, 2, 3, 4, 5, 6, 7, 8, 0]


def test_augmentation_changes_images_and_keeps_their_shape():
    images = np.random.default_rng(0).random((4, 8, 8, 1), np.float32)
    for augmentation in (
        Augmentation(rotate=20),
        Augmentation(scale=0.3),
        Augmentation(crop=2),
        Augmentation(noise=0.1),
    ):
        changed = augmentation.transform(images)
        assert changed.shape == images.shape
        assert not np.allclose(changed, images)
    assert np.allclose(Augmentation().transform(images), images)


def test_flipping_mirrors_left_and_right():
    images = np.random.default_rng(0).random((32, 4, 4, 1), np.float32)
    flipped = Augmentation(flip=True).transform(images)
    mirrored = [np.allclose(a, b[:, ::-1]) for a, b in zip(images, flipped, strict=True)]
    kept = [np.allclose(a, b) for a, b in zip(images, flipped, strict=True)]
    assert all(m or k for m, k in zip(mirrored, kept, strict=True))
    assert any(mirrored)
    assert any(kept)


def test_missing_values_are_filled_or_dropped():
    x = np.array([[1.0, 5.0], [np.nan, 5.0], [4.0, np.nan], [4.0, 6.0]])
    assert fill_missing(x)[1, 0] == 4
    assert fill_missing(x, "mean")[1, 0] == 3
    assert np.isnan(x[1, 0]), "the original stays"
    table = pd.DataFrame({"size": [1.0, np.nan, 3.0], "colour": ["red", "red", None]})
    filled = fill_missing(table)
    assert filled["size"].tolist() == [1, 2, 3]
    assert filled["colour"].tolist() == ["red"] * 3
    kept, labels = drop_missing(table, np.array([1, 2, 3]))
    assert (len(kept), labels.tolist()) == (1, [1])
    with pytest.raises(InvalidArgumentError, match="did you mean 'median'"):
        fill_missing(x, "medain")
    with pytest.raises(DataError, match="no value"):
        fill_missing(np.array([[np.nan]]))


def test_duplicates_with_another_label_stay():
    table = pd.DataFrame({"a": [1, 1, 1]})
    kept, labels = drop_duplicates(table, np.array([0, 0, 1]))
    assert (len(kept), labels.tolist()) == (2, [0, 1])


def test_outliers_come_back_to_the_fence():
    table = pd.DataFrame({"a": [*range(9), 1000], "b": range(10)})
    clipped = clip_outliers(table)
    assert clipped["a"].max() < 20
    assert clipped["b"].tolist() == list(range(10))


def test_splits_keep_every_class_in_its_share():
    y = np.array([0] * 80 + [1] * 20)
    split = train_validation_test_split(np.arange(100), y, validation=0.2, test=0.2)
    assert [np.bincount(labels).tolist() for _, labels in split] == [[48, 12], [16, 4], [16, 4]]
    everything = np.concatenate([x for x, _ in split])
    assert sorted(everything) == list(range(100))
    again = train_validation_test_split(np.arange(100), y, validation=0.2, test=0.2)
    assert np.array_equal(split.test[0], again.test[0])


def test_splits_take_tables_and_texts_and_refuse_the_impossible():
    texts = [f"text {number}" for number in range(10)]
    frame = pd.DataFrame({"a": range(10)})
    assert (
        len(train_validation_test_split(texts, [0, 1] * 5, validation=0.2, test=0.2).test[0]) == 2
    )
    assert isinstance(train_validation_test_split(frame, [0] * 10).train[0], pd.DataFrame)
    with pytest.raises(DataError, match="cannot be split so"):
        train_validation_test_split(texts, [0] * 9 + [1])
    with pytest.raises(DataError, match="10 samples came with 2 labels"):
        train_validation_test_split(texts, [0, 1])
