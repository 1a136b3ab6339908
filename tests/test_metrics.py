# SPDX-License-Identifier: Apache-2.0
"""Metrics against figures worked out by hand, and every division by zero."""

import numpy as np
import pytest

from fastconv.train import metrics

# Class 0: 3 of 4 found; class 1: 1 of 2; class 2: never occurs, answered once; class 3: occurs, never answered.
LABELS = [0, 0, 0, 0, 1, 1, 3]
ANSWERS = [0, 0, 0, 1, 1, 0, 2]


def test_accuracy_with_support():
    assert metrics.accuracy(LABELS, ANSWERS) == (4 / 7, 7)
    assert metrics.accuracy([], []) == (0.0, 0)
    assert metrics.accuracy([1], [1]).value == 1.0


def test_top_k():
    scores = np.array([[0.1, 0.5, 0.4], [0.3, 0.3, 0.4], [0.2, 0.2, 0.2], [0.0, np.nan, 1.0]])
    labels = [2, 1, 1, 1]
    assert [metrics.top_k_accuracy(labels, scores, k).value for k in (1, 2, 3, 9)] == [0, 0.5, 1, 1]
    assert metrics.top_k_accuracy([], np.zeros((0, 7))) == (0.0, 0)
    generator = np.random.default_rng(0)
    table, truth = generator.integers(0, 6, (300, 9)) / 6, generator.integers(0, 9, 300)  # with many ties
    assert metrics.top_k_accuracy(truth, table, 1) == metrics.accuracy(truth, table.argmax(axis=1))
    for k in (2, 5):
        best = np.argsort(-table, axis=1, kind="stable")[:, :k]
        assert metrics.top_k_accuracy(truth, table, k) == ((best == truth[:, None]).any(axis=1).mean(), 300)
    for arguments, message in (
        (([0], scores), r"scores have shape \(4, 3\) for 1 labels"),
        ((labels, scores, 0), "k is 0; expected"),
        (([3, 0, 0, 0], scores), "labels run from 0 to 3; expected 0..2"),
    ):
        with pytest.raises(ValueError, match=message):
            metrics.top_k_accuracy(*arguments)


def test_confusion_matrix_has_a_row_per_true_class():
    expected = [[3, 1, 0, 0], [1, 1, 0, 0], [0, 0, 0, 0], [0, 0, 1, 0]]
    counts = metrics.confusion_matrix(LABELS, ANSWERS)
    assert counts.dtype == np.int64
    np.testing.assert_array_equal(counts, expected)
    assert metrics.confusion_matrix(LABELS, ANSWERS, 6).shape == (6, 6)
    assert metrics.confusion_matrix([], []).shape == (0, 0)
    np.testing.assert_array_equal(metrics.confusion_matrix([], [], 2), np.zeros((2, 2)))


def test_class_scores_by_hand():
    scores = metrics.class_scores(LABELS, ANSWERS)
    np.testing.assert_allclose(scores.precision, [3 / 4, 1 / 2, 0, 0])
    np.testing.assert_allclose(scores.recall, [3 / 4, 1 / 2, 0, 0])
    np.testing.assert_allclose(scores.f1, [3 / 4, 1 / 2, 0, 0])
    np.testing.assert_array_equal(scores.support, [4, 2, 0, 1])
    # Precision and recall differ where answers and examples do.
    lopsided = metrics.class_scores([0, 0, 0, 1], [0, 1, 1, 1])
    np.testing.assert_allclose(lopsided.precision, [1, 1 / 3])
    np.testing.assert_allclose(lopsided.recall, [1 / 3, 1])
    np.testing.assert_allclose(lopsided.f1, [1 / 2, 1 / 2])


def test_division_by_zero_is_zero_with_support_zero():
    scores = metrics.class_scores([0, 0], [1, 1], 3)
    for values in (scores.precision, scores.recall, scores.f1):
        np.testing.assert_array_equal(values, [0, 0, 0])
    np.testing.assert_array_equal(scores.support, [2, 0, 0])
    empty = metrics.class_scores([], [], 2)
    np.testing.assert_array_equal(empty.f1, [0, 0])
    np.testing.assert_array_equal(empty.support, [0, 0])


def test_single_functions_agree_with_class_scores():
    scores = metrics.class_scores(LABELS, ANSWERS, 5)
    np.testing.assert_array_equal(metrics.precision(LABELS, ANSWERS, 5), scores.precision)
    np.testing.assert_array_equal(metrics.recall(LABELS, ANSWERS, 5), scores.recall)
    np.testing.assert_array_equal(metrics.f1(LABELS, ANSWERS, 5), scores.f1)


@pytest.mark.parametrize("seed", range(5))
def test_against_plain_counting(seed):
    generator = np.random.default_rng(seed)
    labels, answers = generator.integers(0, 7, (2, 200))
    counts = metrics.confusion_matrix(labels, answers, 7)
    for i in range(7):
        for j in range(7):
            assert counts[i, j] == sum(a == i and b == j for a, b in zip(labels, answers, strict=True)), f"seed {seed}"
    assert metrics.accuracy(labels, answers).value == np.trace(counts) / 200


def test_report_lists_classes_mean_and_accuracy():
    lines = metrics.classification_report(LABELS, ANSWERS, ["cat", "dog", "owl", "yak"]).splitlines()
    assert lines[0].split() == ["class", "precision", "recall", "f1", "support"]
    assert lines[1].split() == ["cat", "0.7500", "0.7500", "0.7500", "4"]
    assert lines[3].split() == ["owl", "0.0000", "0.0000", "0.0000", "0"]
    # The mean is over the three classes that occur.
    assert lines[6].split() == ["mean", "0.4167", "0.4167", "0.4167", "7"]
    assert lines[7].split() == ["accuracy", "0.5714", "7"]
    assert len({len(line) for line in lines if line}) == 1, "columns line up"
    assert "accuracy" in metrics.classification_report([], [])


@pytest.mark.parametrize(
    ("labels", "answers", "error", "message"),
    [
        ([0, 1], [0], ValueError, r"labels have shape \(2,\), predictions \(1,\)"),
        ([[0]], [[0]], ValueError, r"expected \(N,\) for both"),
        ([0.0], [0], TypeError, "labels are float64; expected integers"),
        ([0], [0.5], TypeError, "predictions are float64"),
    ],
)
def test_bad_arrays_are_named(labels, answers, error, message):
    with pytest.raises(error, match=message):
        metrics.accuracy(labels, answers)


@pytest.mark.parametrize(("labels", "answers", "count"), [([0, 3], [0, 1], 3), ([0, 1], [-1, 1], 3), ([-1], [0], None)])
def test_numbers_outside_the_classes_are_refused(labels, answers, count):
    with pytest.raises(ValueError, match="confusion_matrix: classes run from"):
        metrics.confusion_matrix(labels, answers, count)
