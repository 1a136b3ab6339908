# SPDX-License-Identifier: Apache-2.0
"""Reports of fastconv.torch.accelerate: saved, read, replayed, and refused where they do not fit."""

import re

import pytest

torch = pytest.importorskip("torch", reason='PyTorch is not installed: pip install "fastconv[torch]"')

import fastconv.torch as fct  # noqa: E402
from fastconv.torch import measuring  # noqa: E402
from torch_programs import QUICK, images, kinds, network  # noqa: E402

pytestmark = pytest.mark.usefixtures("one_torch_thread")


def test_a_report_is_saved_and_replayed(tmp_path, monkeypatch):
    model = fct.accelerate(network(), example=images(), **QUICK)
    made = model.fastconv_report
    made.layers[0].replaced, made.layers[1].replaced = True, False
    made.save(tmp_path / "report.json")
    loaded = fct.Report.load(tmp_path / "report.json")
    assert loaded == made and loaded.to_dict() == made.to_dict()
    assert loaded.about["threads"] == torch.get_num_threads()
    monkeypatch.setattr(measuring.timing, "time_calls", None)  # nothing is measured
    for report in (tmp_path / "report.json", str(tmp_path / "report.json"), made):
        other = fct.accelerate(network(), report=report)
        assert kinds(other) == {x.name: x.replaced for x in made.layers}
        assert str(other.fastconv_report) == str(made)


def misfits():
    longer = network().append(torch.nn.Conv2d(2, 2, 1))
    other = network()
    other[0] = torch.nn.Conv2d(3, 6, 3, stride=2)
    half = network().bfloat16()
    return {
        "has no layer '4.0', which the report knows": network()[:4],
        "has a layer '7' that the report does not know, Conv2d(2, 2, kernel_size=(1, 1), stride=(1, 1))": longer,
        "layer '0' is Conv2d(3, 6, kernel_size=(3, 3), stride=(2, 2)) of float32; expected, after the report, "
        "Conv2d(3, 6, kernel_size=(3, 3), stride=(1, 1), padding=(1, 1)) of float32": other,
        "layer '0' is Conv2d(3, 6, kernel_size=(3, 3), stride=(1, 1), padding=(1, 1)) of bfloat16": half,
    }


@pytest.mark.parametrize("message", misfits())
def test_a_report_of_another_model_is_refused(message):
    report = fct.accelerate(network(), "always").fastconv_report
    model = misfits()[message]
    with pytest.raises(fct.ReportError, match=re.escape(message)):
        fct.accelerate(model, report=report)
    assert not any(kinds(model).values())
    fct.accelerate(model, "always")
    before = kinds(model)
    with pytest.raises(fct.ReportError):
        fct.accelerate(model, report=report)
    assert kinds(model) == before and any(before.values())


def test_what_is_no_report(tmp_path):
    made = fct.accelerate(network(), "always").fastconv_report.to_dict()
    path = tmp_path / "report.json"
    for text, message in (("{", "is not a report"), ("[]", "format 'list'; expected 1"), ("{}", "format None")):
        path.write_text(text)
        with pytest.raises(fct.ReportError, match=re.escape(message)):
            fct.Report.load(path)
    for changed, message in (
        ({**made, "format": 2}, "format 2; expected 1"),
        ({**made, "colour": "red"}, "unknown one"),
        ({k: v for k, v in made.items() if k != "layers"}, "lacks a field"),
        ({**made, "layers": [{**made["layers"][0], "replaced": "yes"}]}, "replaced='yes'; expected a bool"),
    ):
        with pytest.raises(fct.ReportError, match=re.escape(message)):
            fct.Report.from_dict(changed)
    waiting = fct.accelerate(network())
    with pytest.raises(fct.ReportError, match="waits for the model's first input"):
        waiting.fastconv_report.save(path)
    with pytest.raises(fct.ReportError, match="waits for its own model's first input"):
        fct.accelerate(network(), report=waiting.fastconv_report)
