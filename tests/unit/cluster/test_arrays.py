import numpy as np
import pytest

from lepton_ai.cluster.arrays import columns_of, content_name
from lepton_ai.errors import DataError
from lepton_ai.oip import as_tensor, batches_of


def test_a_pair_becomes_x_and_y():
    assert set(columns_of("train", ([[1.0]], [2]))) == {"x", "y"}


def test_texts_of_a_list_and_of_a_table_are_one():
    texts = np.array(["a", "bc"], dtype=object)
    assert columns_of("train", texts)["x"].dtype == columns_of("train", ["a", "bc"])["x"].dtype


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (([1.0], [1, 2]), "differ in length"),
        ([], "empty"),
        ([float("nan")], "NaN"),
        ([float("inf")], "infinite"),
        ([{}], "give numbers or texts"),
        (([1], [1], [1]), "3 arrays"),
    ],
)
def test_bad_data_is_refused_by_name(data, message):
    with pytest.raises(DataError, match=message):
        columns_of("train", data)


def test_equal_arrays_have_one_name_and_others_another():
    one = {"train": {"x": np.arange(4)}}
    assert content_name(one) == content_name({"train": {"x": np.arange(4)}})
    others = [np.arange(5), np.arange(4).astype(np.int32), np.arange(4).reshape(2, 2)]
    assert len({content_name(one), *(content_name({"train": {"x": x}}) for x in others)}) == 4


def test_rows_become_the_type_and_shape_that_the_model_takes():
    tensor = as_tensor("input", "FP32", (-1, 2, 2, 1), np.zeros((3, 2, 2), np.float64))
    assert tensor.array.dtype == np.float32
    assert tensor.array.shape == (3, 2, 2, 1)
    assert as_tensor("input", "UINT8", (-1,), [0, 255]).array.dtype == np.uint8


@pytest.mark.parametrize("rows", [[256], [-1], [0.5], ["text"]])
def test_nothing_is_lost_in_conversion(rows):
    with pytest.raises(DataError, match="takes UINT8"):
        as_tensor("input", "UINT8", (-1,), rows)


def test_no_rows_are_refused():
    with pytest.raises(DataError, match="at least one"):
        as_tensor("input", "FP32", (-1, 2), np.zeros((0, 2)))


def test_batches_hold_all_rows_in_order():
    parts = batches_of(np.arange(10), 4)
    assert [len(part) for part in parts] == [4, 4, 2]
    np.testing.assert_array_equal(np.concatenate(parts), np.arange(10))
