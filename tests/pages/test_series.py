import numpy as np
import pandas as pd

from pages.components import series


def test_ema_by_hand() -> None:
    # w = 1/2, x = 1, 3: m1 = 1/2, m2 = 1/4 + 3/2 = 7/4; divided by 1 - w^t: 1, (7/4) / (3/4) = 7/3
    np.testing.assert_allclose(series.ema(np.array([1.0, 3.0]), 0.5), [1.0, 7 / 3])


def test_ema_keeps_missing_values_missing() -> None:
    smooth = series.ema(np.array([2.0, np.nan, 2.0]), 0.9)
    assert np.isnan(smooth[1])
    np.testing.assert_allclose(smooth[[0, 2]], 2.0)


def test_ema_with_weight_zero_is_the_values() -> None:
    np.testing.assert_array_equal(series.ema(np.array([1.0, 5.0]), 0.0), [1.0, 5.0])


def test_buckets_keep_the_spike() -> None:
    values = np.zeros(1000)
    values[437] = 9.0
    drawn = series.buckets(np.zeros(1000), 100)
    assert drawn.width == 10 and drawn.thinned
    assert len(drawn.starts) == 100
    assert drawn.highest(values).max() == 9.0
    assert drawn.last(values).max() == 0.0


def test_few_rows_are_drawn_as_they_are() -> None:
    drawn = series.buckets(np.zeros(5), 100)
    assert not drawn.thinned
    np.testing.assert_array_equal(drawn.last(np.arange(5.0)), np.arange(5.0))


def test_a_gap_interrupts_the_line() -> None:
    # steps 0, 1, then two lost, then 4, 5
    drawn = series.buckets(np.array([0, 0, 2, 0]), 100)
    np.testing.assert_array_equal(drawn.x_with_gaps(np.array([0, 1, 4, 5])), [0, 1, 2.5, 4, 5])
    np.testing.assert_array_equal(drawn.with_gaps(np.array([7.0, 8, 9, 10])), [7, 8, np.nan, 9, 10])


def test_no_bucket_spans_a_gap() -> None:
    missing = np.zeros(100)
    missing[15] = 3
    drawn = series.buckets(missing, 10)
    assert 15 in drawn.starts
    assert drawn.ends[-1] == 100


def test_the_last_known_value_of_a_bucket() -> None:
    drawn = series.buckets(np.zeros(6), 3)
    np.testing.assert_array_equal(drawn.last_known(np.array([1, np.nan, np.nan, np.nan, 5, 6])), [1, np.nan, 6])


def test_empty_series() -> None:
    drawn = series.buckets(np.empty(0), 100)
    assert len(drawn.last(np.empty(0))) == 0 and len(drawn.highest(np.empty(0))) == 0


def test_shares_by_hand() -> None:
    # 16 groups: 4 all wrong, 2 all correct, 8 tied, so 2 tied otherwise; 10 kept, so 6 dropped
    steps = pd.DataFrame({"groups": [16], "groups_all_fail": [4], "groups_all_pass": [2], "groups_tied": [8], "groups_kept": [10]})
    row = series.with_shares(steps).iloc[0]
    assert (row.share_all_fail, row.share_all_pass, row.share_other_tied, row.share_dropped) == (0.25, 0.125, 0.125, 0.375)


def test_window_means_by_hand() -> None:
    # last two of 1..6 are 5 and 6 (5.5); three rows earlier the last two are 2 and 3 (2.5)
    assert series.window_means(np.arange(1.0, 7.0), 2, 3) == (5.5, 3.0)


def test_window_means_without_enough_rows() -> None:
    recent, change = series.window_means(np.array([1.0, 3.0]), 2, 3)
    assert recent == 2.0 and np.isnan(change)
    assert np.isnan(series.window_means(np.array([np.nan]), 2, 3)[0])


def test_a_missing_column_is_unknown_not_zero() -> None:
    assert np.isnan(series.column(pd.DataFrame({"step": [0, 1]}), "kl_ref")).all()


def test_spread_keeps_labels_apart() -> None:
    np.testing.assert_allclose(series.spread(np.array([1.0, 1.0]), 0.4), [0.8, 1.2])
    np.testing.assert_allclose(series.spread(np.array([5.0, 1.0]), 0.4), [5.0, 1.0])
