# SPDX-License-Identifier: Apache-2.0
"""`fastconv convert` and `fastconv predict` with a network of the tests' own, the cards, docs/weights.md."""

import json
import re
from pathlib import Path

import numpy as np
import pytest

import fastconv as fc
from fastconv.cli import main
from tolerance import assert_close, assert_exact, assert_same_bits


@pytest.fixture
def lenet(tmp_path):
    """(a checkpoint as `fastconv train` writes it, of three classes; the model)."""
    fc.manual_seed(2)
    build = {"num_classes": 3, "in_channels": 1}
    model = fc.models.lenet5(**build)
    about = {"model": "lenet5", "options": build, "classes": ["bread", "milk", "tea"]}
    fc.train.save_checkpoint(tmp_path / "checkpoint.npz", fc.train.Checkpoint(model.state_dict(), metadata=about))
    return tmp_path / "checkpoint.npz", model


def run(capsys, *words):
    code = main([str(word) for word in words])
    out, err = capsys.readouterr()
    return code, out, err


def test_convert_there_and_back(capsys, tmp_path, lenet):
    checkpoint, model = lenet
    first, second = tmp_path / "a.safetensors", tmp_path / "b.npz"
    code, out, _ = run(capsys, "convert", checkpoint, first, "--list")
    assert code == 0 and "0.weight   float32   6x1x5x5\n" in out
    assert out.endswith(f"a.safetensors: 10 arrays of 61,111 numbers in {first.stat().st_size:,} bytes\n")
    assert run(capsys, "convert", first, second)[0] == 0
    for path in (first, second):
        for name, array in fc.weights.load(path).items():
            assert_same_bits(array, model.state_dict()[name])
    # What the checkpoint says about its network goes along.
    assert json.loads(fc.weights.metadata(first)["classes"]) == ["bread", "milk", "tea"]


def test_convert_checks_the_model_and_overwrites_only_when_asked(capsys, tmp_path):
    source, out = tmp_path / "in.npz", tmp_path / "out.safetensors"
    fc.weights.save(source, fc.models.lenet5().state_dict())
    code, text, _ = run(capsys, "convert", source, out, "--model", "lenet5")
    assert code == 0 and text.endswith("bytes, which fit lenet5\n") and fc.weights.metadata(out) == {"model": "lenet5"}
    code, _, error = run(capsys, "convert", source, out)
    assert code == 1 and error == f"fastconv: {out} exists: replace it with --overwrite, or choose another name\n"
    state = {**fc.models.lenet5(num_classes=3).state_dict(), "more": np.zeros(1)}
    del state["0.bias"]
    fc.weights.save(source, state)
    code, _, error = run(capsys, "convert", source, out, "--model", "lenet5", "--overwrite")
    assert code == 1
    assert error == (
        f"fastconv: {source}: does not fit lenet5: wrong shape: 11.weight has shape (3, 84), expected (10, 84), "
        "11.bias has shape (3,), expected (10,); missing: 0.bias; unexpected: more\n"
    )


def test_predict_with_a_checkpoint_of_train(capsys, monkeypatch, tmp_path, lenet):
    image = pytest.importorskip("PIL.Image")
    monkeypatch.setenv("COLUMNS", "60")
    checkpoint, model = lenet
    pixels = np.random.default_rng(0).integers(0, 256, (32, 32), dtype=np.uint8)
    photo, other = tmp_path / "grey.png", tmp_path / "colour.png"
    image.fromarray(pixels).save(photo)
    image.fromarray(pixels).convert("RGB").resize((50, 40)).save(other)
    code, out, _ = run(capsys, "predict", "--weights", checkpoint, photo, other)
    assert code == 0
    with fc.no_grad():
        shares = fc.nn.functional.softmax(model(pixels[np.newaxis, np.newaxis] / np.float32(255)), 1).numpy()[0]
    best = int(np.argmax(shares))
    row = out.splitlines()[2].split()
    assert row[:3] == [str(best), ["bread", "milk", "tea"][best], f"{shares[best]:.1%}"]
    assert out.count("probability") == 2


@pytest.mark.parametrize(
    ("words", "error"),
    [
        (["PHOTO", "PHOTO", "--plot", "x.png"], "--plot draws one picture; there are 2"),
        (["PHOTO", "--model", "lenet6"], "no network is called 'lenet6'"),
        (["PHOTO", "--card", "caffe"], "lenet5 has no card 'caffe'; expected one of plain"),
        (["PHOTO", "--classes", "NAMES"], "there are 2 names of classes; the network has 3 classes"),
        (["NAMES"], "not a picture that Pillow can read"),
        (["missing.png"], "missing.png"),
    ],
)
def test_predict_says_what_is_wrong(capsys, tmp_path, lenet, words, error):
    image = pytest.importorskip("PIL.Image")
    image.fromarray(np.zeros((32, 32), np.uint8)).save(tmp_path / "p.png")
    (tmp_path / "names.txt").write_text("a\nb\n")
    places = {"PHOTO": tmp_path / "p.png", "NAMES": tmp_path / "names.txt"}
    code, _, text = run(capsys, "predict", "--weights", lenet[0], *(places.get(word, word) for word in words))
    assert code == 1 and error in text and text.count("\n") == 1


def test_predict_needs_to_know_the_network(capsys, tmp_path):
    path = tmp_path / "some.npz"
    fc.weights.save(path, {})
    code, _, text = run(capsys, "predict", "--weights", path, "p.png")
    assert code == 1 and text == f"fastconv: {path}: does not say which network it is for; name it with --model\n"


# Cards


def test_preprocess_orders_channels_subtracts_and_divides():
    pixels = np.zeros((227, 227, 3), np.uint8)
    pixels[..., 0], pixels[..., 2] = 200, 10
    x = fc.models.card("squeezenet1_1").preprocess(pixels)
    assert x.shape == (1, 3, 227, 227) and x.dtype == np.float32 and x.flags.c_contiguous
    assert_exact(x[0, :, 5, 7], np.float32([10, 0, 200]) - np.float32([103.939, 116.78, 123.68]))
    x = fc.models.card("efficientnet_lite0").preprocess(pixels[:224, :224])
    assert_exact(x[0, :, 5, 7], np.float32([73, -127, -117]) / 128)


def test_preprocess_cuts_the_middle_out():
    pytest.importorskip("PIL")
    pixels = np.zeros((256, 512, 3), np.uint8)
    pixels[:, 256:] = 255
    x = fc.models.card("squeezenet1_1", "torchvision").preprocess(pixels)
    assert x.shape == (1, 3, 224, 224)
    assert np.unique(x[0, 0, :, :112]).size == 1 and np.unique(x[0, 0, :, 112:]).size == 1
    assert x[0, 1, 0, 0] == pytest.approx(-0.456 / 0.224) and x[0, 1, 0, -1] == pytest.approx((1 - 0.456) / 0.224)


def test_preprocess_takes_files_pictures_and_arrays_alike(tmp_path):
    image = pytest.importorskip("PIL.Image")
    pixels = np.random.default_rng(1).integers(0, 256, (60, 40, 3), dtype=np.uint8)
    image.fromarray(pixels).save(tmp_path / "a.png")
    card = fc.models.card("squeezenet1_1")
    expected = card.preprocess(pixels)
    assert_exact(card.preprocess(tmp_path / "a.png"), expected)
    assert_exact(card.preprocess(image.fromarray(pixels)), expected)
    grey = card.preprocess(pixels[:, :, :1])
    assert_exact(grey, card.preprocess(np.repeat(pixels[:, :, :1], 3, axis=2)))


@pytest.mark.parametrize("image", [np.zeros((4, 4, 3)), np.zeros((4, 4, 2), np.uint8), np.zeros((0, 4), np.uint8)])
def test_preprocess_refuses_other_arrays(image):
    with pytest.raises(ValueError, match=r"preprocess: image is an array of shape .* expected \(H, W\) or \(H, W, 3\)"):
        fc.models.card("squeezenet1_1").preprocess(image)


def test_small_pictures_come_in_as_in_training():
    """MNIST's 28 x 28 get a margin, digits of 8 x 8 are enlarged, as `fastconv train` does it."""
    rng = np.random.default_rng(3)
    card = fc.models.card("lenet5")
    for side in (28, 8, 32):
        pixels = rng.integers(0, 256, (side, side), dtype=np.uint8)
        fed = fc.data.fit_square(pixels[np.newaxis, np.newaxis].astype(np.float32) / 255, 32)
        assert_close(card.preprocess(pixels), fed, "pointwise")
    assert card.preprocess(rng.integers(0, 256, (50, 40), dtype=np.uint8)).shape == (1, 1, 32, 32)


def test_predict_takes_the_channels_of_the_checkpoint(capsys, tmp_path):
    image = pytest.importorskip("PIL.Image")
    build = {"num_classes": 2, "in_channels": 3}
    about = {"model": "lenet5", "options": build, "classes": ["left", "right"]}
    checkpoint = fc.train.Checkpoint(fc.models.lenet5(**build).state_dict(), metadata=about)
    fc.train.save_checkpoint(tmp_path / "c.npz", checkpoint)
    image.fromarray(np.zeros((32, 32, 3), np.uint8)).save(tmp_path / "p.png")
    code, out, _ = run(capsys, "predict", "--weights", tmp_path / "c.npz", tmp_path / "p.png", "--json")
    assert code == 0 and {entry["class"] for entry in json.loads(out)[0]["top"]} == {"left", "right"}


def test_unknown_cards():
    with pytest.raises(ValueError, match="dcgan_generator takes 100 channels; expected a network of pictures"):
        fc.models.card("dcgan_generator")
    with pytest.raises(ValueError, match="no network is called 'squeezenet'"):
        fc.models.card("squeezenet")
    with pytest.raises(ValueError, match="expected one of caffe, torchvision"):
        fc.models.card("squeezenet1_1", "keras")


def test_the_snippets_of_the_document_run(tmp_path, monkeypatch, capsys):
    page = (Path(__file__).resolve().parent.parent / "docs" / "weights.md").read_text(encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    names = {}
    for snippet in re.findall(r"```python\n(.*?)```", page, re.DOTALL):
        exec(compile(snippet, "weights.md", "exec"), names)
    out = capsys.readouterr().out
    assert "classifier.1.weight has shape (7, 512, 1, 1), expected (10, 512, 1, 1)" in out
    assert "missing: features.0.bias\n" in out and "227 BGR (103.939, 116.78, 123.68) bicubic MIT\n256\n" in out
    assert names["logits"].shape == (1, 1000)
