# SPDX-License-Identifier: Apache-2.0
"""Modules as trees: hooks, containers, paths, buffers, copies."""

import copy
from collections import OrderedDict

import numpy as np
import pytest

import fastconv as fc
from fastconv import nn

RNG = np.random.default_rng(11)


def normal(*shape):
    return RNG.standard_normal(shape).astype(np.float32)


def net():
    return nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))


class Two(nn.Module):
    """Two inputs, two outputs."""

    def forward(self, a, b, scale=1.0):
        return a * b, (a + b) * scale


# ---- Forward hooks --------------------------------------------------------------------------------------------------


def test_forward_hooks_see_and_replace_in_order():
    model, x, seen = net(), normal(2, 3), []
    handles = [
        model.register_forward_pre_hook(lambda m, args: seen.append(("pre", m is model, len(args)))),
        model.register_forward_pre_hook(lambda m, args: args[0] * 2.0),
        model.register_forward_hook(lambda m, args, y: seen.append(("post", m is model, y.shape))),
        model.register_forward_hook(lambda m, args, y: y + 1.0),
        model.register_forward_hook(lambda m, args, y: seen.append("first"), prepend=True),
    ]
    plain = net()
    plain.load_state_dict(model.state_dict())
    np.testing.assert_array_equal(model(fc.Tensor(x)).data, plain(x * np.float32(2)).data + 1)
    assert seen == [("pre", True, 1), "first", ("post", True, (2, 2))]
    for handle in handles:
        handle.remove()
        handle.remove()
    assert not model._hooks
    np.testing.assert_array_equal(model(x).data, plain(x).data)


def test_hooks_with_keywords_and_as_a_context():
    module, a, b = Two(), fc.Tensor(normal(2)), fc.Tensor(normal(2))
    seen = []
    with module.register_forward_pre_hook(lambda m, args, words: (args, {**words, "scale": 3.0}), with_kwargs=True):
        module.register_forward_hook(lambda m, args, words, y: seen.append(dict(words)), with_kwargs=True)
        np.testing.assert_allclose(module(a, b, scale=2.0)[1].data, (a.data + b.data) * 3, rtol=1e-6)
    np.testing.assert_allclose(module(a, b, scale=2.0)[1].data, (a.data + b.data) * 2, rtol=1e-6)
    assert seen == [{"scale": 3.0}, {"scale": 2.0}]
    module.register_forward_pre_hook(lambda m, args, words: args[0], with_kwargs=True)
    with pytest.raises(TypeError, match=r"expected None or \(args, kwargs\)"):
        module(a, b)


# ---- Backward hooks -------------------------------------------------------------------------------------------------


def test_backward_hooks_see_all_gradients_at_once():
    module, seen = Two(), []
    a, b = (fc.Tensor(normal(3), requires_grad=True) for _ in range(2))
    module.register_full_backward_hook(lambda m, gi, go: seen.append((m, gi, go)))
    product, total = module(a, b)
    ((product * 2.0).sum() + (total * 5.0).sum()).backward()
    ((m, (da, db), (dproduct, dtotal)),) = seen
    assert m is module
    np.testing.assert_array_equal(dproduct.data, np.full(3, 2, np.float32))
    np.testing.assert_array_equal(dtotal.data, np.full(3, 5, np.float32))
    np.testing.assert_allclose(da.data, 2 * b.data + 5, rtol=1e-6)
    np.testing.assert_allclose(db.data, 2 * a.data + 5, rtol=1e-6)
    np.testing.assert_array_equal(a.grad.data, da.data)
    np.testing.assert_array_equal(b.grad.data, db.data)


def test_backward_hooks_replace_gradients():
    module = Two()
    a, b = (fc.Tensor(np.ones(2, np.float32), requires_grad=True) for _ in range(2))
    module.register_full_backward_pre_hook(lambda m, go: (go[0] * 10.0, go[1]))
    module.register_full_backward_hook(lambda m, gi, go: (gi[0] * 2.0, None))
    product, _ = module(a, b)
    product.sum().backward()
    np.testing.assert_array_equal(a.grad.data, [20, 20])
    assert b.grad is None


def test_a_backward_hook_of_a_first_layer_is_called_too():
    model, seen = net(), []
    model[0].register_full_backward_hook(lambda m, gi, go: seen.append((gi, go[0].shape)))
    model(normal(5, 3)).sum().backward()
    assert seen == [((None,), (5, 4))]
    with fc.no_grad():
        model(normal(5, 3))
    assert len(seen) == 1 and model[0].weight.grad is not None


def test_backward_hooks_twice_and_differentiated():
    """A kept graph calls them again; with create_graph the hooks see, and answer, tensors that record."""
    module, calls = nn.Sequential(), []
    module.forward = lambda x: x**3
    module.register_full_backward_hook(lambda m, gi, go: calls.append(1) or (gi[0] * 2.0,))
    x = fc.Tensor(np.array([2.0]), requires_grad=True)
    y = module(x)
    (first,) = fc.grad(y, x, create_graph=True)
    np.testing.assert_allclose(first.data, [24.0])
    (second,) = fc.grad(first, x, retain_graph=True)
    np.testing.assert_allclose(second.data, [24.0])
    fc.grad(y, x)
    assert len(calls) == 2


def test_answers_of_backward_hooks_are_checked():
    x = fc.Tensor(np.ones(2, np.float32), requires_grad=True)
    for answer, sentence in (
        (lambda m, gi, go: (gi[0], gi[0]), "returned 2 gradients; expected 1"),
        (lambda m, gi, go: np.ones(3, np.float32), r"gradient of shape \(3,\)"),
    ):
        layer = nn.ReLU()
        layer.register_full_backward_hook(answer)
        with pytest.raises(RuntimeError, match=sentence):
            layer(x).sum().backward()
    layer = nn.Linear(2, 2)
    layer.register_full_backward_hook(lambda m, gi, go: go)
    with pytest.raises(RuntimeError, match="where none is wanted"):
        layer(normal(1, 2)).sum().backward()


# ---- Containers -----------------------------------------------------------------------------------------------------


def test_sequential_is_a_list_of_named_modules():
    layers = [nn.Linear(2, 2) for _ in range(5)]
    model = nn.Sequential(OrderedDict(first=layers[0], second=layers[1]))
    assert list(model.state_dict()) == ["first.weight", "first.bias", "second.weight", "second.bias"]
    assert model.first is layers[0] and model[-1] is layers[1] and layers[1] in model
    model.append(layers[2]).extend([layers[3]])
    assert [n for n, _ in model.named_children()] == ["first", "second", "2", "3"]
    model.insert(0, layers[4])
    assert [n for n, _ in model.named_children()] == ["0", "first", "second", "3", "4"]
    assert list(model) == [layers[4], *layers[:4]]
    assert model.pop(0) is layers[4] and len(model) == 4
    del model[1:3]
    assert list(model) == [layers[0], layers[3]] and [n for n, _ in model.named_children()] == ["first", "1"]
    model[1] = layers[4]
    assert model[1] is layers[4]
    assert [n for n, _ in (nn.Sequential(*layers)[1:3]).named_children()] == ["1", "2"]
    assert list(nn.Sequential(*layers[:2]) + nn.Sequential(layers[2])) == layers[:3]
    x = normal(1, 2)
    np.testing.assert_array_equal(model(x).data, layers[4](layers[0](x)).data)
    assert nn.Sequential()(x) is x
    with pytest.raises(IndexError, match="index is 2; it holds 2"):
        model[2]
    with pytest.raises(TypeError, match="expected a Module"):
        model[0] = 3


def test_module_list_and_dict():
    layers = [nn.Linear(2, i) for i in range(1, 5)]
    model = nn.ModuleList(layers[:2])
    model += [layers[2]]
    model.insert(1, layers[3])
    assert list(model) == [layers[0], layers[3], layers[1], layers[2]]
    assert isinstance(model[1:], nn.ModuleList) and next(iter(model[1:].state_dict())) == "0.weight"
    assert model.pop() is layers[2] and list(model.state_dict()) == [
        f"{i}.{n}" for i in range(3) for n in ("weight", "bias")
    ]
    with pytest.raises(TypeError, match="ModuleList: 3 is a int; expected a Module"):
        model.append(3)

    named = nn.ModuleDict({"conv": layers[0], "head": layers[1]})
    named["pool"] = layers[2]
    named.update([("head", layers[3])])
    assert (
        list(named) == ["conv", "head", "pool"] and named["head"] is layers[3] and "pool" in named and len(named) == 3
    )
    assert list(named.state_dict())[:2] == ["conv.weight", "conv.bias"]
    assert [k for k, _ in named.items()] == list(named.keys()) and next(iter(named.values())) is layers[0]
    assert named.pop("conv") is layers[0] and "conv" not in named
    del named["head"]
    named.clear()
    assert len(named) == 0
    with pytest.raises(fc.ProblemError, match="no dot"):
        named["a.b"] = layers[0]
    with pytest.raises(fc.ProblemError, match="has an attribute 'keys'"):
        named["keys"] = layers[0]


def test_parameter_containers():
    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.list = nn.ParameterList([nn.Parameter(np.ones(2, np.float32)), np.zeros(3, np.float32)])
            self.dict = nn.ParameterDict({"a": np.ones((2, 2))})

        def forward(self, x):
            return x

    model = Model()
    model.list.append(fc.Tensor(normal(4)))
    model.dict["b"] = nn.Parameter(normal(1))
    assert list(model.state_dict()) == ["list.0", "list.1", "list.2", "dict.a", "dict.b"]
    assert all(isinstance(p, nn.Parameter) for p in model.parameters()) and len(list(model.parameters())) == 5
    assert model.list[-1].shape == (4,) and len(model.list[:2]) == 2 and model.dict["a"].dtype == np.float64
    assert "float32 (2,)" in repr(model.list) and "(a): float64 (2, 2)" in repr(model.dict)
    for bad in (3, np.zeros(2, int)):
        with pytest.raises(fc.ProblemError, match="expected a Parameter or an array of floats"):
            model.list.append(bad)


# ---- Names, buffers, copies -----------------------------------------------------------------------------------------


def test_paths():
    model = nn.Sequential(OrderedDict(body=net(), norm=nn.BatchNorm1d(2)))
    assert model.get_submodule("body.2") is model.body[2] and model.get_submodule("") is model
    assert model.get_parameter("body.0.weight") is model.body[0].weight
    assert model.get_buffer("norm.running_mean") is model.norm.running_mean
    with pytest.raises(AttributeError, match=r"'body.7': Sequential has no module '7'; it has 0, 1, 2"):
        model.get_submodule("body.7")
    with pytest.raises(AttributeError, match="has no such parameter 'wieght'; it has weight, bias"):
        model.get_parameter("body.0.wieght")
    with pytest.raises(AttributeError, match="has no such buffer"):
        model.get_buffer("norm.weight")
    assert [n for n, _ in model.named_parameters("net", recurse=False)] == []
    assert [n for n, _ in model.norm.named_parameters("net", recurse=False)] == ["net.weight", "net.bias"]
    assert next(n for n, _ in model.named_buffers("net")) == "net.norm.running_mean"
    assert len(list(model.buffers())) == 3 and list(model.buffers(recurse=False)) == []
    assert [n for n, _ in model.named_modules("net")][:3] == ["net", "net.body", "net.body.0"]


def test_shared_modules_are_seen_once_but_saved_under_every_name():
    layer = nn.Linear(2, 2)
    model = nn.Sequential(layer, nn.ReLU(), layer)
    assert len(list(model.children())) == 2 and len(list(model.parameters())) == 2
    assert list(model.state_dict()) == ["0.weight", "0.bias", "2.weight", "2.bias"]


def test_buffers_that_are_not_saved():
    layer = nn.Linear(1, 1)
    layer.register_buffer("table", np.zeros(3, np.float32), persistent=False)
    layer.register_buffer("mean", np.zeros(3, np.float32))
    assert [n for n, _ in layer.named_buffers()] == ["table", "mean"]
    assert list(layer.state_dict()) == ["weight", "bias", "mean"]
    found = layer.load_state_dict({**layer.state_dict(), "table": np.ones(3)}, strict=False)
    assert found.missing_keys == [] and found.unexpected_keys == ["table"]
    assert layer.to(np.float64).table.dtype == np.float64
    layer.register_buffer("table", np.zeros(1))
    assert "table" in layer.state_dict()
    for name in ("", "a.b", 3):
        with pytest.raises(fc.ProblemError, match="no dot"):
            layer.register_buffer(name, np.zeros(1))
    with pytest.raises(fc.ProblemError, match="has an attribute 'forward'"):
        layer.register_buffer("forward", np.zeros(1))


def test_a_module_can_be_taken_away():
    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.down = nn.Linear(1, 1)

    block = Block()
    with pytest.raises(TypeError, match="down is a int; expected a Module or None"):
        block.down = 3
    block.down = None
    assert block.down is None and list(block.state_dict()) == []
    block.down = nn.ReLU()
    assert isinstance(block.down, nn.ReLU) and len(list(block.children())) == 1


def test_a_deep_copy_shares_nothing():
    model, calls = nn.Sequential(net(), nn.BatchNorm1d(2)), []
    handle = model.register_forward_hook(lambda m, args, y: calls.append(m))
    model(normal(3, 3)).sum().backward()
    other = copy.deepcopy(model)
    assert [n for n, _ in other.named_parameters()] == [n for n, _ in model.named_parameters()]
    for mine, theirs in zip(model.parameters(), other.parameters(), strict=True):
        assert mine is not theirs and not np.shares_memory(mine.data, theirs.data)
        np.testing.assert_array_equal(mine.grad.data, theirs.grad.data)
    assert not np.shares_memory(model[1].running_mean, other[1].running_mean)
    handle.remove()
    other(normal(3, 3)), model(normal(3, 3))
    assert calls == [model, other]
    with pytest.raises(RuntimeError, match="expected a leaf"):
        copy.deepcopy(fc.Tensor(normal(2), requires_grad=True) * 2.0)


def test_zero_grad_can_keep_zeros():
    layer = nn.Linear(2, 1)
    layer(normal(1, 2)).sum().backward()
    layer.zero_grad(set_to_none=False)
    assert (layer.weight.grad.data == 0).all() and layer.weight.grad.shape == (1, 2)
    layer.zero_grad()
    assert layer.weight.grad is None
