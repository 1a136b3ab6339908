# SPDX-License-Identifier: Apache-2.0
"""Figures: what they show is read back from their axes, and each one can be drawn without warnings."""

import subprocess
import sys

import numpy as np
import pytest

import fastconv as fc
from fastconv.train import Epoch, History

pytest.importorskip("matplotlib", reason="matplotlib comes with fastconv[demo]")

pytestmark = pytest.mark.filterwarnings("error")


def drawn(figure) -> None:
    """Draw the figure; it is not blank, and no text that it shows lies outside the picture."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    assert np.ptp(np.asarray(canvas.buffer_rgba())[..., :3]) > 100
    for axes in figure.axes:
        framed = [axes.title, axes.xaxis.label, axes.yaxis.label] if axes.axison else [axes.title]
        for text in [*framed, *axes.texts]:
            if text.get_text():
                box = text.get_window_extent(canvas.get_renderer())
                inside = box.x0 >= 0 and box.y0 >= 0 and box.x1 <= figure.bbox.width and box.y1 <= figure.bbox.height
                assert inside, f"{text.get_text()!r} is cut off"


def history(epochs: int = 3, validation: bool = True) -> History:
    held_out = (0.3, 0.9) if validation else (None, None)
    records = [Epoch(number, 1 / number, 1 - 0.5 / number, *held_out, 1.0) for number in range(1, epochs + 1)]
    return History(records, [1 / step for step in range(1, 4 * epochs + 1)], [0.5] * 4 * epochs)


@pytest.mark.parametrize("validation", [True, False])
@pytest.mark.parametrize("epochs", [1, 3, 60])
def test_training_curve_shows_every_epoch(epochs, validation):
    figure = fc.plot.training_curve(history(epochs, validation))
    left, right = figure.axes
    assert left.get_xlabel() == right.get_xlabel() == "epoch"
    lines = {line.get_label(): line for line in left.lines}
    np.testing.assert_allclose(lines["training, mean of epoch"].get_ydata(), 1 / np.arange(1, epochs + 1))
    steps = lines["training, each step"].get_xdata()
    assert len(steps) == 4 * epochs and steps[-1] == pytest.approx(epochs)
    assert ("validation" in lines) is validation and ("validation 90.00%" in right.get_title()) is validation
    drawn(figure)


def test_training_curve_of_nothing_is_refused():
    with pytest.raises(ValueError, match="the history is empty"):
        fc.plot.training_curve(History())


def test_confusion_matrix_writes_the_counts_and_colours_the_shares():
    figure = fc.plot.confusion_matrix([[3, 1], [0, 4]], ["cat", "a long name"])
    axes = figure.axes[0]
    cells = {text.get_position(): text.get_text() for text in axes.texts}
    assert cells == {(0, 0): "3", (1, 0): "1", (1, 1): "4"}
    np.testing.assert_allclose(axes.images[0].get_array(), [[0.75, 0.25], [0, 1]])
    assert axes.get_title() == "7 of 8 right (87.50%)"
    assert [label.get_text() for label in axes.get_yticklabels()] == ["cat", "a long name"]
    drawn(figure)


def test_confusion_matrix_edges():
    drawn(fc.plot.confusion_matrix([[0]]))
    drawn(fc.plot.confusion_matrix(np.zeros((3, 3), int)))
    assert not fc.plot.confusion_matrix(np.ones((30, 30), int)).axes[0].texts
    for counts in (np.zeros((2, 3)), np.zeros(4), np.zeros((0, 0))):
        with pytest.raises(ValueError, match="expected a square matrix"):
            fc.plot.confusion_matrix(counts)
    with pytest.raises(ValueError, match="1 class names for 2 classes"):
        fc.plot.confusion_matrix(np.eye(2, dtype=int), ["a"])


@pytest.mark.parametrize("shape", [(1, 1, 3, 3), (6, 1, 5, 5), (11, 1, 3, 3), (4, 3, 5, 5), (20, 6, 3, 3)])
def test_filters_show_each_plane_on_one_scale(shape):
    w = np.random.default_rng(0).normal(size=shape)
    figure = fc.plot.filters(w)
    images = [image for axes in figure.axes for image in axes.images]
    expected = w[:16].reshape(-1, *shape[2:]) if shape[1] > 1 else w[:, 0]
    assert len(images) == len(expected)
    for image, plane in zip(images, expected, strict=True):
        np.testing.assert_array_equal(image.get_array(), plane)
        assert image.get_clim() == (-np.abs(w).max(), np.abs(w).max())
    assert ("the first 16 of 20" in figure.get_suptitle()) is (shape[0] == 20)
    drawn(figure)


def test_filters_take_layers_and_refuse_other_shapes():
    layer = fc.nn.Conv2d(1, 6, 5)
    assert len([image for axes in fc.plot.filters(layer).axes for image in axes.images]) == 6
    drawn(fc.plot.filters(np.zeros((2, 1, 3, 3))))
    for shape in ((3, 3), (0, 1, 3, 3)):
        with pytest.raises(ValueError, match=r"expected \(K, C, R, S\)"):
            fc.plot.filters(np.zeros(shape))


def test_activations_of_lenet_follow_the_image():
    fc.manual_seed(0)
    model = fc.models.lenet5()
    _, test = fc.data.digits(32)
    model.train()
    figure = fc.plot.activations(model, test.images[0], classes=test.classes)
    assert model.training
    shapes = [image.get_array().shape for axes in figure.axes for image in axes.images]
    assert shapes == [(32, 32)] + [(28, 28)] * 6 + [(14, 14)] * 6 + [(10, 10)] * 16 + [(5, 5)] * 16
    labels = [text.get_text() for axes in figure.axes for text in axes.texts]
    assert labels[:3] == ["input\n1 @ 32x32", "Conv2d + Tanh\n6 @ 28x28", "AvgPool2d\n6 @ 14x14"]
    np.testing.assert_array_equal(figure.axes[0].images[0].get_array(), test.images[0, 0])
    # The pooled maps are the means of those above them.
    above, below = figure.axes[16].images[0].get_array(), figure.axes[32].images[0].get_array()
    np.testing.assert_allclose(above.reshape(14, 2, 14, 2).mean(axis=(1, 3)), below, atol=1e-5)
    logits = model(fc.Tensor(test.images[:1])).detach().numpy()
    assert figure.get_suptitle().startswith(f"answer: {logits.argmax()} (")
    drawn(figure)


def test_activations_refuse_what_they_cannot_follow():
    with pytest.raises(TypeError, match=r"model is a Conv2d; expected an nn\.Sequential"):
        fc.plot.activations(fc.nn.Conv2d(1, 1, 1), np.zeros((1, 4, 4)))
    with pytest.raises(ValueError, match=r"expected \(C, H, W\)"):
        fc.plot.activations(fc.models.lenet5(), np.zeros((32, 32)))


def test_top_predictions_are_sorted_with_the_best_on_top():
    figure = fc.plot.top_predictions([0.1, 0.55, 0.0, 0.2, 0.1, 0.05], list("abcdef"))
    axes = figure.axes[0]
    assert [bar.get_width() for bar in axes.patches] == [0.55, 0.2, 0.1, 0.1, 0.05]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["b", "d", "a", "e", "f"]
    assert axes.yaxis_inverted() and axes.get_xlim() == (0, 1)
    assert (axes.get_title(), axes.get_xlabel()) == ("Top 5 Predictions", "Probability")
    drawn(figure)
    drawn(fc.plot.top_predictions([1.0, 0.0]))


def test_two_classes_of_one_name_keep_a_bar_each():
    axes = fc.plot.top_predictions([0.5, 0.3, 0.2], ["crane", "crane", "stork"]).axes[0]
    assert len({bar.get_y() for bar in axes.patches}) == 3


@pytest.mark.parametrize("values", [[], [[0.5]], [2.0, 0.1], [-0.1, 0.5]])
def test_top_predictions_refuse_what_is_no_probability(values):
    with pytest.raises(ValueError, match=r"top_predictions: probabilities have shape"):
        fc.plot.top_predictions(values)


def test_no_pyplot_and_no_matplotlib_before_a_figure_is_wanted():
    code = (
        "import sys, fastconv as fc; assert 'matplotlib' not in sys.modules; fc.plot.top_predictions([1.0]);"
        "assert 'matplotlib.pyplot' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_without_matplotlib_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ImportError, match=r'pip install "fastconv\[demo\]"'):
        fc.plot.top_predictions([1.0])
