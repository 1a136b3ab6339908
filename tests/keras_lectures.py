# SPDX-License-Identifier: Apache-2.0
"""The networks that two lectures print in Keras, run by Keras 3 on its PyTorch backend; test_torch_keras.py calls this.

F. Ronchetti, F. Quiroga, "Filtros convolucionales", 2019 (the convolutional layer on CIFAR-10, and the deeper network),
and the exercise of the lecture "ML I: ConvNets". The listings are as printed, but for what became of them on the way
from slides to text: underscores turned blank, a missing quotation mark, a last line twice, remarks behind the code.
"""

import json
import os

os.environ["KERAS_BACKEND"] = "torch"

import keras
import numpy as np
import torch
from keras import layers, models  # noqa: F401
from keras.layers import Conv2D, Dense, Flatten, MaxPooling2D  # noqa: F401
from keras.models import Sequential  # noqa: F401

import fastconv as fc
import fastconv.torch

LISTINGS = {
    "cifar": """
model = Sequential()
model.add(Conv2D( 64, kernel_size=3,activation='relu', input_shape= INPUT_SHAPE))
model.add(MaxPooling2D(pool_size=(2, 2)))
model.add(Flatten())
model.add(Dense(32, activation= 'relu'))
model.add(Dense(n_clases, activation= 'softmax'))
""",
    "deeper": """
#create model
model = Sequential()
#add model layers
model.add(Conv2D(64, kernel_size=3, activation='relu',
                 input_shape= INPUT_SHAPE, padding = 'same'))
model.add(MaxPooling2D(pool_size=(2, 2)))
model.add(Conv2D(64, kernel_size=3, activation='relu',
                 input_shape= INPUT_SHAPE, padding = 'same'))
model.add(MaxPooling2D(pool_size=(2, 2)))
model.add(Flatten())
model.add(Dense(128,input_dim=d_in, activation= 'relu'))
model.add(Dense(n_clases, activation= 'softmax'))
""",
    "exercise": """
model = models.Sequential()
model.add(layers.Conv2D(32, (3, 3), activation='relu', input_shape=(28, 28, 1)))
model.add(layers.MaxPooling2D((2, 2)))
model.add(layers.Conv2D(64, (3, 3), activation='relu'))
""",
}
NAMES = {"INPUT_SHAPE": (32, 32, 3), "n_clases": 10, "d_in": 4096}
STEPS, IMAGES = 2, 8


def run(listing: str) -> dict[str, object]:
    """Parameters of each layer, the losses of a few epochs, and the answers of the trained network."""
    keras.utils.set_random_seed(0)
    names = {**globals(), **NAMES}
    exec(listing, names)
    model = names["model"]
    rng = np.random.default_rng(0)
    x = rng.standard_normal((IMAGES, *model.input_shape[1:])).astype(np.float32)
    classes = model.output_shape[1:] == (10,)
    y = rng.integers(0, 10, IMAGES) if classes else rng.standard_normal((IMAGES, *model.output_shape[1:]))
    model.compile(optimizer="sgd", loss="sparse_categorical_crossentropy" if classes else "mse")
    history = model.fit(x, y, epochs=STEPS, batch_size=IMAGES // 2, shuffle=False, verbose=0)
    counts = [layer.count_params() for layer in model.layers]
    return {"counts": counts, "loss": history.history["loss"], "y": model.predict(x, verbose=0).ravel().tolist()}


if __name__ == "__main__":
    torch.set_num_threads(1)
    found = {}
    for name, listing in LISTINGS.items():
        stock = run(listing)
        with fastconv.torch.patch(), fc.trace() as traced:
            ours = run(listing)
        found[name] = {"stock": stock, "ours": ours, "calls": len(traced.calls)}
    print(json.dumps(found))
