# SPDX-License-Identifier: Apache-2.0
"""Writes models.md: the networks of `fc.models`, with their parameters and multiply-adds.

python docs/make_models.py            writes the page
python docs/make_models.py --check    compares it, exit code 1 if it is out of date
"""

import re
import sys
from pathlib import Path

import fastconv as fc

PAGE = Path(__file__).resolve().parent / "models.md"

TEXT = """# Networks

Written by `python docs/make_models.py`; change that, not this page.

`fc.models.build(name, **options)` makes a network with fresh weights; `fc.models.list()` names them all, and
`fc.models.list("num_classes")` those with that option. Each is also a function, whose docstring has the paper, the
section and the shapes:

```python
import numpy as np
import fastconv as fc

model = fc.models.build("resnet18", num_classes=10, width_mult=0.25).eval()
logits = model(np.zeros((1, 3, 64, 64), np.float32))  # (1, 10)
print(fc.summary(model, (3, 64, 64)))
```

Where torchvision has the network, the keys of its `state_dict`, the initial values and what comes out in training are
torchvision's. Classifiers give logits, not probabilities, unless their docstring says otherwise. Weights that come from
elsewhere need no initial values, which for a large network take seconds:

```python
with fc.nn.init.skip():
    model = fc.models.mobilenet_v2()
```

`fc.summary`, and `fastconv summary NAME` in a shell, print the layers in the style of Keras, or with `style="matlab"`
in that of MATLAB's `net.Layers`; `summary.layer(2)` is `net.Layers(2)`. Nothing is computed for it: the network runs on
a batch of no images.

Networks that are a `Sequential` of convolutions, pools, Flatten and dense layers run over whole images at once as
`fc.nn.to_convolutional(model, window_shape)`; where they pad, with `exact=False`.

GoogLeNet in training gives the logits of all three classifiers; `fc.models.auxiliary_loss` weighs them:

```python
model = fc.models.googlenet(num_classes=10, width_mult=0.125)
outputs = model(np.zeros((2, 3, 64, 64), np.float32))
loss = fc.models.auxiliary_loss(outputs, np.array([3, 7]))
loss.backward()
```

## All

Multiply-adds are those of convolutions and dense layers, for one image of the size given; k, M, G: thousands, millions,
thousands of millions.

"""


def page() -> str:
    """models.md as it should be."""
    lines = ["| name | input | parameters | multiply-adds | source |", "|---|---|---:|---:|---|"]
    for name in fc.models.list():
        with fc.nn.init.skip():
            model = fc.models.build(name)
        shape = fc.models.input_shape(name)
        s = fc.summary(model, shape)
        size = " x ".join(map(str, shape))
        lines.append(f"| `{name}` | {size} | {s.parameters:,} | {short(s.macs)} | {fc.models.source(name)} |")
    return TEXT + "\n".join(lines) + "\n"


def short(count: int) -> str:
    """Three digits: 1.81 G."""
    rounded = float(f"{count:.3g}")
    power = min((len(f"{rounded:.0f}") - 1) // 3, 3)
    return f"{rounded / 1000**power:.3g} {['', 'k', 'M', 'G'][power]}".strip()


def snippets() -> list[str]:
    """The Python in the page."""
    return re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)


def main() -> int:
    text = page()
    if "--check" in sys.argv[1:]:
        if PAGE.read_text(encoding="utf-8") != text:
            print("docs/models.md is out of date: run python docs/make_models.py", file=sys.stderr)
            return 1
        return 0
    PAGE.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
