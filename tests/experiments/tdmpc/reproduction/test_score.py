from __future__ import annotations

import math

import pytest
from scipy import stats

from secateur.experiments.tdmpc.reproduction.score import Score


def test_the_interval_is_students() -> None:
    score = Score.of([10.0, 12.0, 14.0], threshold=11.0)
    margin = stats.t.ppf(0.975, df=2) * 2.0 / math.sqrt(3)
    assert (score.mean, score.worst, score.failures, score.episodes) == (12.0, 10.0, 1, 3)
    assert (score.low, score.high) == pytest.approx((12.0 - margin, 12.0 + margin))


def test_it_agrees_with_scipy_on_uneven_numbers() -> None:
    returns = [864.0, 855.5, 12.25, 870.0, 861.0]
    score = Score.of(returns, threshold=432.0)
    interval = stats.ttest_1samp(returns, 0.0).confidence_interval(0.95)
    assert (score.low, score.high) == pytest.approx((interval.low, interval.high))


def test_in_words() -> None:
    assert str(Score.of([800.0, 800.0], threshold=432.0)) == "800.0 ± 0.0 (800)"
    assert str(Score.of([800.0, 800.0, 50.0, 50.0], threshold=432.0)).endswith("(50, 2 failed)")


def test_an_episode_at_the_threshold_has_not_failed() -> None:
    assert Score.of([432.0, 431.9], threshold=432.0).failures == 1
