# SPDX-License-Identifier: Apache-2.0
"""bench.torch_dropin: its PyTorch modules are the zoo's networks, and a run of it says speeds, errors and means."""

import json

import numpy as np
import pytest

import fastconv as fc
from tolerance import assert_close

torch = pytest.importorskip("torch", reason='PyTorch is not installed: pip install "fastconv[torch]"')

from bench import torch_dropin, torch_zoo  # noqa: E402

SEED = 83
pytestmark = pytest.mark.usefixtures("one_torch_thread")
SMALL = {"vgg16": {"width_mult": 0.1}, "unet": {"width_mult": 0.1}, "resnet50": {"width_mult": 0.25}}
SIZES = {"unet": 188, "dncnn": 16}


@pytest.mark.parametrize("name", torch_dropin.NETWORKS)
def test_a_network_in_pytorch(name):
    about = torch_dropin.NETWORKS[name]
    fc.manual_seed(SEED)
    model = fc.models.build(name, **about.options, **SMALL.get(name, {})).eval()
    twin = torch_zoo.to_torch(model)
    assert list(twin.state_dict()) == list(model.state_dict())
    assert any(type(m) is torch.nn.Conv2d for m in twin.modules())
    size = SIZES.get(name, 32)
    x = np.random.default_rng(SEED).standard_normal((1, about.shape[0], size, size)).astype(np.float32)
    with torch.no_grad(), fc.no_grad():
        assert_close(twin(torch.from_numpy(x)).numpy(), model(fc.Tensor(x)).data, "model", what=name)


def test_stochastic_depth_drops_samples():
    torch.manual_seed(SEED)
    drop = torch_zoo.to_torch(fc.models.convnext.StochasticDepth(0.5))
    y = drop(torch.ones(64, 2, 3, 3))
    assert set(y[:, 0, 0, 0].tolist()) == {0.0, 2.0} and torch.equal(y, y[:, :1, :1, :1].expand(-1, 2, 3, 3))
    assert drop.eval()(y) is y


def test_a_short_run(tmp_path, capsys, monkeypatch):
    words = "bench --networks keras_cifar_b --size 16 --batch 2 --threads 1 --rounds 2 --min-sample 0.001"
    rivals = "torch_channels_last,torch_bf16,fastconv_always"
    monkeypatch.setattr("sys.argv", [*words.split(), "--rivals", rivals, "--out", str(tmp_path / "result.json")])
    assert torch_dropin.main() == 0
    told = capsys.readouterr().out
    assert "inference, 1 thread(s): geometric mean" in told and "x torch, least" in told
    assert "step, 1 thread(s)" in told and "fastconv_always on keras_cifar_b n2 step: replaced 1 of 1 conv" in told
    rows = json.loads((tmp_path / "result.json").read_text())["rows"]
    assert [(row["mode"], row["shape"]) for row in rows] == [("inference", [2, 3, 16, 16]), ("step", [2, 3, 16, 16])]
    for row in rows:
        assert set(row["peers"]) == {"torch", *rivals.split(","), "fastconv"}
        errors = {name: entry["error"] for name, entry in row["peers"].items()}
        assert all(0 < errors[name] < 1e-5 for name in errors if name != "torch_bf16") and errors["torch_bf16"] > 1e-4
        assert all(len(entry["seconds"]) == 2 for entry in row["peers"].values())


def test_unknown_rivals_are_named(capsys, monkeypatch):
    monkeypatch.setattr("sys.argv", ["bench", "--rivals", "theano"])
    with pytest.raises(SystemExit):
        torch_dropin.main()
    assert "--rivals: theano; expected some of torch, torch_channels_last" in capsys.readouterr().err
