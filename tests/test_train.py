# SPDX-License-Identifier: Apache-2.0
"""The training loop: it learns, its history is right, and a resumed run has the same bits as one never stopped."""

import json
import os
import sys
import zipfile

import numpy as np
import pytest

import fastconv as fc
from fastconv import nn
from fastconv import random as fc_random
from fastconv.data import DataLoader
from fastconv.train import Checkpoint, History, checkpoint, evaluate, fit, load_checkpoint, save_checkpoint
from fastconv.train import progress as progress_module


def small_net() -> nn.Sequential:
    """For 8 x 8 digits; with dropout, so that the random generator's state matters."""
    return nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.Tanh(), nn.AvgPool2d(2), nn.Flatten(), nn.Dropout(0.2), nn.Linear(4 * 3 * 3, 10)
    )


def make_run(optimizer: str = "adam", seed: int = 0) -> dict:
    """A fresh model, loader and optimiser on 96 digits, and 40 held-out ones."""
    fc.manual_seed(seed)
    train, test = fc.data.digits(8)
    model = small_net()
    makers = {
        "adam": lambda: fc.optim.Adam(model.parameters(), lr=0.01),
        "sgd": lambda: fc.optim.SGD(model.parameters(), lr=0.05, momentum=0.9, weight_decay=1e-4),
    }
    few = fc.data.ArrayDataset(*train[np.arange(96)], train.classes)
    held = fc.data.ArrayDataset(*test[np.arange(40)], test.classes)
    loader = DataLoader(few, 32, shuffle=True, transform=fc.data.RandomAffine(shift=1))
    return {
        "model": model,
        "train_loader": loader,
        "optimizer": makers[optimizer](),
        "validation": DataLoader(held, 16),
        "progress": False,
    }


def weights(model: nn.Module) -> dict[str, np.ndarray]:
    return {name: np.array(getattr(value, "data", value), copy=True) for name, value in model.state_dict().items()}


def assert_same_bits(first: dict[str, np.ndarray], second: dict[str, np.ndarray]) -> None:
    assert first.keys() == second.keys()
    for name in first:
        assert first[name].dtype == second[name].dtype
        assert first[name].tobytes() == second[name].tobytes(), f"{name} differs"


# Learning and history


def test_fit_learns_digits_and_records_it():
    run = make_run()
    before = evaluate(run["model"], run["validation"])
    history = fit(**run, epochs=15)
    after = evaluate(run["model"], run["validation"])
    assert after.accuracy > 0.6 > 0.35 > before.accuracy and after.loss < before.loss
    assert [epoch.number for epoch in history.epochs] == list(range(1, 16))
    assert len(history.iteration_loss) == len(history.iteration_accuracy) == 15 * 3
    first, last = history.epochs[0], history.epochs[-1]
    # Equal batches: the epoch's figures are the means of its steps.
    assert first.loss == pytest.approx(np.mean(history.iteration_loss[:3]))
    assert first.accuracy == pytest.approx(np.mean(history.iteration_accuracy[:3]))
    assert (last.val_loss, last.val_accuracy) == (after.loss, after.accuracy)
    assert all(epoch.seconds > 0 for epoch in history.epochs)
    assert History.from_dict(json.loads(json.dumps(history.to_dict()))) == history


def test_uneven_last_batch_is_weighted_by_its_size():
    run = make_run()
    run["train_loader"].batch_size = 64
    history = fit(**run, epochs=1)
    assert history.epochs[0].loss == pytest.approx(np.average(history.iteration_loss, weights=[64, 32]))


def test_one_batch_can_be_learned_by_heart():
    fc.manual_seed(0)
    train, _ = fc.data.digits(32)
    batch = [train[np.arange(8)]]
    model = fc.models.lenet5()
    fit(model, batch, optimizer=fc.optim.Adam(model.parameters(), lr=3e-3), epochs=40, progress=False)
    assert evaluate(model, batch).accuracy == 1.0


def test_same_seed_same_bits():
    results = []
    for _ in range(2):
        run = make_run(seed=4)
        fit(**run, epochs=2)
        results.append(weights(run["model"]))
    assert_same_bits(*results)


def test_learning_rate_is_set_before_each_epoch():
    run = make_run()
    seen = []

    def watch(epoch, history):
        seen.append(run["optimizer"].param_groups[0]["lr"])

    fit(**run, epochs=3, learning_rate=lambda epoch: 0.1 / epoch, on_epoch_end=[watch])
    assert seen == [0.1, 0.05, 0.1 / 3]


def test_callbacks_hear_every_epoch_and_can_stop():
    run = make_run()
    heard = []
    history = fit(
        **run,
        epochs=5,
        on_epoch_end=[lambda epoch, history: epoch.number == 2, lambda epoch, history: heard.append(epoch.number)],
    )
    assert heard == [1, 2] and len(history.epochs) == 2


# Checkpoints


@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
def test_resumed_run_has_the_same_bits(tmp_path, optimizer):
    straight = make_run(optimizer, seed=11)
    whole = fit(**straight, epochs=4)
    next_random = fc_random.generator().random()

    stopped = make_run(optimizer, seed=11)
    fit(**stopped, epochs=2, checkpoint=tmp_path / "half.npz")

    resumed = make_run(optimizer, seed=99)  # other weights, orders and generator: all must come from the file
    rest = fit(**resumed, epochs=4, resume=tmp_path / "half.npz")
    assert_same_bits(weights(straight["model"]), weights(resumed["model"]))
    assert rest.iteration_loss == whole.iteration_loss
    assert [epoch.number for epoch in rest.epochs] == [1, 2, 3, 4]
    assert fc_random.generator().random() == next_random


def test_resume_of_a_finished_run_changes_nothing(tmp_path):
    run = make_run()
    fit(**run, epochs=2, checkpoint=tmp_path / "c.npz")
    again = make_run(seed=5)
    history = fit(**again, epochs=2, resume=tmp_path / "c.npz")
    assert len(history.epochs) == 2
    assert_same_bits(weights(run["model"]), weights(again["model"]))


def test_resume_refuses_another_optimiser_or_model(tmp_path):
    fit(**make_run("adam"), epochs=1, checkpoint=tmp_path / "c.npz")
    with pytest.raises(ValueError, match="holds the state of Adam, the optimizer is SGD"):
        fit(**make_run("sgd"), epochs=2, resume=tmp_path / "c.npz")
    run = make_run("adam")
    run["model"] = fc.models.lenet5()
    with pytest.raises((ValueError, KeyError, RuntimeError)):
        fit(**run, epochs=2, resume=tmp_path / "c.npz")


def test_checkpoint_round_trip_keeps_kinds_and_bits(tmp_path):
    state = {
        "array": np.array([1.5, np.nan, -0.0], np.float32),
        "empty": np.zeros((0, 3), np.int64),
        "tuple": (0.9, 0.999),
        "list": [1, None, True, "text"],
        3: {"integer key": np.float64(0.1)},
        "$odd": 2**127,
    }
    saved = Checkpoint(model={"0.weight": np.eye(2)}, optimizer=state, epoch=3, metadata={"classes": ["a", "b"]})
    save_checkpoint(tmp_path / "c.npz", saved)
    back = load_checkpoint(tmp_path / "c.npz")
    assert back.epoch == 3 and back.metadata == {"classes": ["a", "b"]} and back.history is None
    assert back.optimizer["array"].tobytes() == state["array"].tobytes()
    assert back.optimizer["empty"].shape == (0, 3) and back.optimizer["empty"].dtype == np.int64
    assert back.optimizer["tuple"] == (0.9, 0.999) and back.optimizer["list"] == [1, None, True, "text"]
    assert back.optimizer[3] == {"integer key": 0.1} and back.optimizer["$odd"] == 2**127
    with zipfile.ZipFile(tmp_path / "c.npz") as archive:
        assert "model/0.weight.npy" in archive.namelist()


def test_checkpoint_refuses_what_would_need_pickle(tmp_path):
    with pytest.raises(TypeError, match=r"metadata/model is a function; expected arrays"):
        save_checkpoint(tmp_path / "c.npz", Checkpoint(model={}, metadata={"model": lambda: None}))
    with pytest.raises(TypeError, match=r"model/w is an array of objects"):
        save_checkpoint(tmp_path / "c.npz", Checkpoint(model={"w": np.array([{}], dtype=object)}))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("content", [b"", b"text", b"PK\x03\x04 half a zip"])
def test_load_checkpoint_refuses_foreign_files(tmp_path, content):
    path = tmp_path / "c.npz"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"c\.npz: not a fastconv checkpoint"):
        load_checkpoint(path)
    np.savez(path, images=np.zeros(3))
    with pytest.raises(ValueError, match="not a fastconv checkpoint"):
        load_checkpoint(path)
    np.save(tmp_path / "bare.npy", np.zeros(3))
    with pytest.raises(ValueError, match="not a fastconv checkpoint"):
        load_checkpoint(tmp_path / "bare.npy")
    with pytest.raises(FileNotFoundError):
        load_checkpoint(tmp_path / "none.npz")


def test_load_checkpoint_refuses_other_formats(tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoint, "FORMAT", 99)
    save_checkpoint(tmp_path / "c.npz", Checkpoint(model={}))
    monkeypatch.undo()
    with pytest.raises(ValueError, match="checkpoint of format 99; expected 1"):
        load_checkpoint(tmp_path / "c.npz")


@pytest.mark.parametrize("stage", ["savez", "replace"])
def test_interrupted_save_leaves_the_old_file_whole(tmp_path, monkeypatch, stage):
    path = tmp_path / "c.npz"
    save_checkpoint(path, Checkpoint(model={"w": np.arange(3)}, epoch=1))
    before = path.read_bytes()

    def half_written(file, **arrays):
        file.write(b"half")
        raise KeyboardInterrupt

    def interrupted(*paths):
        raise KeyboardInterrupt

    if stage == "savez":
        monkeypatch.setattr(np, "savez", half_written)
    else:
        monkeypatch.setattr(os, "replace", interrupted)
    with pytest.raises(KeyboardInterrupt):
        save_checkpoint(path, Checkpoint(model={"w": np.arange(9)}, epoch=2))
    assert path.read_bytes() == before and os.listdir(tmp_path) == ["c.npz"]


def test_interrupt_within_an_epoch_keeps_the_last_checkpoint(tmp_path):
    straight = make_run(seed=3)
    fit(**straight, epochs=3)
    run = make_run(seed=3)
    loader, steps = run["train_loader"], []

    def interrupt(images, generator):
        steps.append(1)
        if len(steps) == 5:
            raise KeyboardInterrupt
        return fc.data.RandomAffine(shift=1)(images, generator)

    loader.transform = interrupt
    with pytest.raises(KeyboardInterrupt):
        fit(**run, epochs=3, checkpoint=tmp_path / "c.npz")
    assert load_checkpoint(tmp_path / "c.npz").epoch == 1
    resumed = make_run(seed=8)
    fit(**resumed, epochs=3, resume=tmp_path / "c.npz")
    assert_same_bits(weights(straight["model"]), weights(resumed["model"]))


# evaluate


def test_evaluate_puts_the_mode_back_and_leaves_weights_alone():
    run = make_run()
    model, before = run["model"], weights(run["model"])
    for mode in (True, False):
        model.train(mode)
        first, second = evaluate(model, run["validation"]), evaluate(model, run["validation"])
        assert model.training is mode
        assert first.loss == second.loss, "dropout is off"
    assert_same_bits(before, weights(model))
    _, test = fc.data.digits(8)
    np.testing.assert_array_equal(first.labels, test.labels[:40])
    assert first.support == 40 and first.accuracy == (first.labels == first.predictions).mean()


def test_evaluate_of_nothing_has_support_zero():
    result = evaluate(small_net(), [])
    assert (result.loss, result.accuracy, result.support) == (0.0, 0.0, 0)
    assert result.labels.shape == result.predictions.shape == (0,)


# Errors and display


def test_fit_refuses_bad_arguments():
    run = make_run()
    with pytest.raises(ValueError, match="epochs is -1"):
        fit(**run, epochs=-1)
    run["train_loader"] = DataLoader(run["train_loader"].dataset, 100, drop_last=True)
    with pytest.raises(ValueError, match="train_loader has no batches"):
        fit(**run, epochs=1)


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_fit_stops_where_the_loss_is_not_finite():
    run = make_run()
    images, labels = run["train_loader"].dataset[np.arange(4)]
    run["train_loader"] = [(images, labels), (np.full_like(images, np.nan), labels)]
    with pytest.raises(FloatingPointError, match="the loss is nan in epoch 1, step 2; try a smaller learning rate"):
        fit(**run, epochs=1)
    assert all(np.isfinite(value).all() for value in weights(run["model"]).values())


def test_without_a_terminal_there_is_one_line_per_epoch(capsys):
    fit(**make_run() | {"progress": True}, epochs=2)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2 and lines[1].startswith("epoch 2/2  loss ") and "validation loss" in lines[1]
    fit(**make_run(), epochs=1)
    assert capsys.readouterr().out == ""


def test_bar_without_rich_names_the_extra(monkeypatch):
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    monkeypatch.setitem(sys.modules, "rich", None)
    with pytest.raises(ImportError, match=r'pip install "fastconv\[demo\]", or pass progress=False'):
        fit(**make_run() | {"progress": True}, epochs=1)


def test_bar_shows_the_figures(capsys):
    pytest.importorskip("rich", reason="rich comes with fastconv[demo]")
    with progress_module.Bar(3) as bar:
        bar.begin_epoch(1, 2)
        bar.step(0.5, 0.75)
        bar.end_epoch(fc.train.Epoch(1, 0.5, 0.75, 0.25, 1.0, 0.1))
    assert (
        "epoch 1/3  loss 0.5000  accuracy 0.7500  |  validation loss 0.2500  accuracy 1.0000" in capsys.readouterr().out
    )


# The registry of models


def test_lenet5_has_the_published_size():
    model = fc.models.build("lenet5")
    shapes = {name: value.shape for name, value in weights(model).items()}
    assert sum(int(np.prod(shape)) for shape in shapes.values()) == 61706
    assert shapes["0.weight"] == (6, 1, 5, 5) and shapes["3.weight"] == (16, 6, 5, 5)
    assert shapes["7.weight"] == (120, 400) and shapes["11.weight"] == (10, 84)
    assert model(fc.Tensor(np.zeros((2, 1, 32, 32), np.float32))).shape == (2, 10)
    wide = fc.models.build("lenet5", num_classes=26, in_channels=3)
    assert wide(fc.Tensor(np.zeros((1, 3, 32, 32), np.float32))).shape == (1, 26)


def test_registry_lists_its_names_and_refuses_others():
    assert "lenet5" in fc.models.list() and fc.models.list() == sorted(fc.models.list())
    assert "lenet5" in fc.models.list("num_classes", "in_channels") and not fc.models.list("no_such_option")
    assert fc.models.input_shape("lenet5") == (1, 32, 32) and fc.models.input_size("lenet5") == 32
    assert fc.models.source("lenet5") == "LeCun et al. 1998"
    for function in (fc.models.build, fc.models.input_shape, fc.models.input_size, fc.models.source):
        with pytest.raises(ValueError, match=rf"models.{function.__name__}: no network is called 'lenet6'; .*lenet5"):
            function("lenet6")


# Schedules


@pytest.mark.parametrize("every", ["epoch", "batch"])
def test_schedule_steps_and_resumes_to_the_same_bits(tmp_path, every):
    def scheduled(seed):
        run = make_run("sgd", seed)
        make = fc.schedule.warmup_cosine if every == "epoch" else fc.schedule.OneCycleLR
        words = (2, 4) if every == "epoch" else (0.1, 12)
        return {**run, "schedule": make(run["optimizer"], *words), "schedule_every": every}

    straight = scheduled(11)
    fit(**straight, epochs=4)
    assert straight["schedule"].last_epoch == (4 if every == "epoch" else 12)
    stopped = scheduled(11)
    fit(**stopped, epochs=2, checkpoint=tmp_path / "half.npz")
    resumed = scheduled(99)
    fit(**resumed, epochs=4, resume=tmp_path / "half.npz")
    assert_same_bits(weights(straight["model"]), weights(resumed["model"]))
    assert resumed["schedule"].get_last_lr() == straight["schedule"].get_last_lr()
    with pytest.raises(ValueError, match="holds a schedule; expected the arguments of the run that wrote it"):
        fit(**make_run("sgd"), epochs=4, resume=tmp_path / "half.npz")


def test_plateau_looks_at_the_validation_loss():
    run = make_run("sgd")
    plateau = fc.schedule.ReduceLROnPlateau(run["optimizer"], threshold=10.0, threshold_mode="abs", patience=1)
    history = fit(**run, epochs=4, schedule=plateau)
    assert plateau.best == history.epochs[0].val_loss
    assert run["optimizer"].param_groups[0]["lr"] == pytest.approx(0.005)
    for words, message in (
        ({"schedule_every": "batch"}, "looks at the loss of an epoch"),
        ({"schedule_every": "step"}, "schedule_every is 'step'"),
        ({"learning_rate": lambda epoch: 0.1}, "both learning_rate and schedule set the rate"),
    ):
        with pytest.raises(ValueError, match=message):
            fit(**run, epochs=5, schedule=plateau, **words)
