"""Frequency tables: computed by a rule, stored as integers; invalid ones are refused by name.

pytest tests/test_tables.py
"""

import math
from itertools import pairwise

import numpy as np
import pytest

from sodec import entropy
from sodec.entropy import Tables
from sodec.errors import InvalidTableError


def test_tables_are_made_again_from_what_they_expose():
    tables = entropy.gaussian_tables([0.2, 1, 30])
    again = Tables(tables.cumulative, tables.offsets, tables.minimums, tables.precision)
    assert (again.count, again.precision) == (3, entropy.PRECISION)
    for name in ("cumulative", "offsets", "minimums"):
        assert getattr(again, name).dtype == np.int32
        np.testing.assert_array_equal(getattr(again, name), getattr(tables, name))
    symbols = np.arange(-40, 41, dtype=np.int16)
    indexes = (np.arange(81) % 3).astype(np.uint8)
    assert entropy.encode(symbols, indexes, again) == entropy.encode(symbols, indexes, tables)


@pytest.mark.parametrize("make", [entropy.gaussian_tables, entropy.laplace_tables])
@pytest.mark.parametrize("precision", [1, 2, 8, 12, 16])
def test_tables_are_symmetric_positive_and_complete(precision, make):
    tables = make([0.01, 0.5, 64, 5000], precision=precision)
    for table in range(tables.count):
        cumulative = tables.cumulative[tables.offsets[table] : tables.offsets[table + 1]]
        frequencies = np.diff(cumulative)
        assert frequencies.min() >= 1
        assert frequencies.sum() == 1 << precision
        values = frequencies[:-1]
        assert len(values) <= 4096
        assert tables.minimums[table] == -(len(values) // 2)
        assert np.abs(values - values[::-1]).max() <= 1


@pytest.mark.parametrize(
    ("make", "within_half"),  # P(|x| <= 1/2) of unit variance
    [(entropy.gaussian_tables, math.erf(0.5**1.5)), (entropy.laplace_tables, 1 - math.exp(-(0.5**0.5)))],
)
def test_scales_are_standard_deviations(make, within_half):
    tables = make([1.0, 20.0], precision=16)
    small, large = (np.diff(tables.cumulative[first:last])[:-1] / (1 << 16) for first, last in pairwise(tables.offsets))
    assert small[-tables.minimums[0]] == pytest.approx(within_half, abs=1e-4)
    values = tables.minimums[1] + np.arange(len(large))
    assert (large * values**2).sum() == pytest.approx(20**2, rel=0.05)  # no frequency is 0, so tails are heavier


def test_frequencies_follow_the_probabilities():
    tables = entropy.tables_from_probabilities([[0.5, 0.25, 0.125], [0.0, 2.0]], [7, -1], precision=3)
    assert tables.cumulative.tolist() == [0, 4, 6, 7, 8, 0, 1, 7, 8]
    assert tables.minimums.tolist() == [7, -1]


@pytest.mark.parametrize(
    ("cumulative", "offsets", "minimums", "precision", "message"),
    [
        ([0, 16], [0, 2], [0], 0, "precision is 0"),
        ([0, 16], [0, 2], [0], 17, "precision is 17"),
        ([], [0], [], 4, "there are 0 frequency tables"),
        ([0, 1] * 256, list(range(0, 513, 2)), [0] * 256, 1, "there are 256 frequency tables"),
        ([0, 16], [0, 3], [0], 4, "offsets"),
        ([0, 16], [0, 1, 2], [0], 4, "offsets"),
        ([0, 16], [1, 2], [0], 4, "offsets"),
        ([0, 16, 0, 16], [0, 100, 4], [0, 0], 4, "table 0: has 99 symbols"),
        ([0, 16, 0, 16], [0, -7, 4], [0, 0], 4, "table 0: has -8 symbols"),
        ([0, 16, 0, 16], [0, 1, 4], [0, 0], 4, "table 0: has 0 symbols"),
        ([0, 16, 0, 15], [0, 2, 4], [0, 0], 4, "table 1: runs from 0 to 15, not from 0 to 16"),
        ([1, 16], [0, 2], [0], 4, "table 0: runs from 1"),
        ([0, 3, 3, 16], [0, 4], [0], 4, "table 0: symbol 1 has no positive frequency"),
        ([0, 20, 16], [0, 3], [0], 4, "table 0: symbol 1 has no positive frequency"),
        ([*range(4098), 65536], [0, 4099], [0], 16, "4098 symbols, not 1 to 4097"),
        ([0, 8, 16], [0, 3], [-32768], 4, "-32768"),
        ([0, 4, 8, 16], [0, 4], [32767], 4, "32768 leave"),
    ],
)
def test_broken_tables_are_named(cumulative, offsets, minimums, precision, message):
    arrays = [np.array(values, np.int32) for values in (cumulative, offsets, minimums)]
    with pytest.raises(InvalidTableError, match=message):
        Tables(*arrays, precision)


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: entropy.gaussian_tables([1.0, 0.0]), ValueError, "scale 1 is 0.0"),
        (lambda: entropy.gaussian_tables([math.nan]), ValueError, "scale 0 is nan"),
        (lambda: entropy.gaussian_tables([]), InvalidTableError, "0 frequency tables"),
        (lambda: entropy.gaussian_tables([1.0] * 256), InvalidTableError, "256 frequency tables"),
        (lambda: entropy.gaussian_tables([1.0], precision=17), InvalidTableError, "precision is 17"),
        (lambda: entropy.gaussian_tables([1.0], precision=0), InvalidTableError, "precision is 0"),
        (lambda: entropy.tables_from_probabilities([[0.5], [-0.1]], [0, 0]), ValueError, "table 1: negative"),
        (lambda: entropy.tables_from_probabilities([[math.inf]], [0]), ValueError, "table 0: negative or not finite"),
        (lambda: entropy.tables_from_probabilities([[[0.5]]], [0]), ValueError, r"\(1, 1\), not 1-D"),
        (lambda: entropy.tables_from_probabilities([[0.1] * 4], [0], precision=2), ValueError, "4 values"),
        (lambda: entropy.tables_from_probabilities([[0.5]], [0, 1]), ValueError, r"\(2,\), not \(1,\)"),
        (lambda: entropy.tables_from_probabilities([[0.5]], [0.5]), TypeError, "float64"),
        (lambda: entropy.tables_from_probabilities([[0.5]], [1 << 40]), InvalidTableError, "32768"),
    ],
)
def test_tables_that_cannot_be_made_are_named(make, error, message):
    with pytest.raises(error, match=message):
        make()
