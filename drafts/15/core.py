#--- imports
import io
import math
import os
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import matplotlib.pyplot as plt
import numpy as np

from tlhelpers import backbones, data, heads

#--- profile
from tlhelpers import plots
from tlhelpers.course import claims, profiles

P = profiles.get(PROFILE)
SMOKE = P.name == "smoke"
N_TRAIN, N_VAL, N_TEST, SIZE, EPOCHS = (
    (64, 64, 64, 48, 1) if SMOKE else (480, 480, 960, 64, 6)
)
BORDER = "block6d_add" if SMOKE else "block4c_add"  # above it, arms differ
PEAKS = (1e-3, 1e-2) if SMOKE else (3e-4, 1e-3, 3e-3, 1e-2)
plots.style()
# A laptop reads what is stored, and runs none of it.
STORED = {} if P.name == "laptop" and claims.results_dir() else None
SEEDS = P.seeds if SMOKE else range(5)
given = {"live": STORED, "measure_missing": MEASURE}

#--- enable
def is_pointwise(layer):
    conv = isinstance(layer, keras.layers.Conv2D)
    return conv and layer.kernel_size == (1, 1)


def count(weights):
    return sum(math.prod(w.shape) for w in weights)


base = backbones.load(P.backbone, image_size=SIZE).model
# or: base = keras.applications.EfficientNetB0(
#         include_top=False, pooling="avg")
some = np.random.default_rng(0).uniform(0, 255, (8, SIZE, SIZE, 3))
before, n_all = base.predict(some, verbose=0), count(base.trainable_weights)

for layer in base.layers:
    layer.trainable = is_pointwise(layer)
    if is_pointwise(layer):
        layer.enable_lora(4)

#--- count
by_hand = 0
for layer in filter(is_pointwise, base.layers):
    n_in, n_out = layer.kernel.shape[-2:]
    by_hand += 4 * (n_in + n_out)
n_lora = count(base.trainable_weights)
assert n_lora == by_hand
assert (base.predict(some, verbose=0) == before).all()
print(f"{n_lora:,} numbers learn, beside {n_all:,}: {n_lora / n_all:.1%}")

#--- data
def load(seed):
    n = {"n_train": N_TRAIN, "n_val": N_VAL, "n_test": N_TEST}
    return data.load(P.dataset, seed=seed, **n)


def resized(model, side):
    inputs = keras.Input((side, side, 3))  # raw pixels, 0 to 255
    x = keras.layers.Resizing(SIZE, SIZE)(inputs)
    return keras.Model(inputs, model(x))


ds = load(0)
SIDE, N_CLASSES = ds.x_train.shape[1], ds.n_classes
base = backbones.load(P.backbone, image_size=SIZE).model
below = keras.Model(base.input, base.get_layer(BORDER).output)
trunk = resized(below, SIDE)
above = keras.Model(below.output, base.output)
a_train = trunk.predict(ds.x_train, verbose=0)
f_train = above.predict(a_train, verbose=0)

#--- still
class StillNorm(keras.layers.BatchNormalization):
    # Its scale and shift may learn; its statistics stay, under fit, too.
    def call(self, inputs, training=None, mask=None):
        return super().call(inputs, training=False, mask=mask)


def still(layer):
    if isinstance(layer, keras.layers.BatchNormalization):
        return StillNorm.from_config(layer.get_config())
    return layer


def rebuilt(body, call=None):
    # The same graph with still norms; `call` may put something in between.
    new = keras.models.clone_model(
        body, clone_function=still, call_function=call
    )
    for layer in body.layers:
        new.get_layer(layer.name).set_weights(layer.get_weights())
    return new


f_still = rebuilt(above).predict(a_train, verbose=0)
np.testing.assert_allclose(f_still, f_train, atol=1e-4)

#--- adapters
def add_adapter(layer, x, *args, **kwargs):
    # After each block's last BatchNorm: x + up(relu(down(x))).
    x = layer(x, *args, **kwargs)
    if not layer.name.endswith("project_bn"):
        return x
    name = layer.name.replace("project_bn", "adapter")
    down = keras.layers.Conv2D(8, 1, activation="relu", name=f"{name}_down")
    up = keras.layers.Conv2D(
        x.shape[-1], 1, kernel_initializer="zeros", name=f"{name}_up"
    )
    return keras.layers.add([x, up(down(x))])


adapted = rebuilt(above, add_adapter)
f_adapted = adapted.predict(a_train, verbose=0)
np.testing.assert_allclose(f_adapted, f_train, atol=1e-4)
extra = adapted.count_params() - above.count_params()
print(f"adapters add {extra:,} numbers; features as before")

#--- arms
ARMS = ("norm", "lora", "adapters", "last_block", "full")


def opened(arm, border=BORDER, rank=4):
    # The part above the border, and a head; only the arm's part may learn.
    base = backbones.load(P.backbone, image_size=SIZE).model
    body = keras.Model(base.get_layer(border).output, base.output)
    body = rebuilt(body, add_adapter if arm == "adapters" else None)
    for layer in body.layers:
        layer.trainable = {
            "norm": isinstance(layer, StillNorm),
            "lora": is_pointwise(layer),
            "adapters": "adapter" in layer.name,
            "last_block": layer.name.startswith(("block7", "head_")),
            "full": True,
        }[arm]
        if arm == "lora" and is_pointwise(layer):
            layer.enable_lora(rank)
    return keras.Model(body.input, keras.layers.Dense(N_CLASSES)(body.output))

#--- compiled
def solved_head(f, y):
    # The probe's weights; folds of the training images chose its penalty.
    return heads.linear_probe(f, y).to_keras().get_weights()


def compiled(net, head, a):
    net.layers[-1].set_weights(head)
    adam = keras.optimizers.Adam()
    adam.build(net.trainable_variables)  # so that fit traces once, not twice
    loss = keras.losses.CategoricalCrossentropy(from_logits=True)
    net.compile(adam, loss)
    start = net.get_weights()
    blank = np.zeros((32, N_CLASSES), "float32")
    net.fit(a[:32], blank, batch_size=32, verbose=0)  # builds the graph
    return start

#--- train
def train(net, start, passes, peak, seed):
    # Trains from `start`; each pass is one epoch's inputs and labels.
    keras.utils.set_random_seed(seed)
    net.set_weights(start)
    for v in net.optimizer.variables:
        v.assign(keras.ops.zeros_like(v))
    steps = len(passes) * math.ceil(len(passes[0][0]) / 32)
    up = max(1, steps // 10)
    rate = keras.optimizers.schedules.CosineDecay(
        0.0, steps - up, warmup_target=peak, warmup_steps=up
    )

    def set_rate(batch, logs=None):
        step = net.optimizer.iterations
        net.optimizer.learning_rate = float(rate(step + 1))

    turn = keras.callbacks.LambdaCallback(on_train_batch_begin=set_rate)
    begin = time.perf_counter()
    for a, y in passes:
        net.fit(a, y, batch_size=32, verbose=0, callbacks=[turn])
    return time.perf_counter() - begin

#--- peaks
PEAK = {"norm": 1e-2, "lora": 3e-3, "adapters": 3e-3}
PEAK |= {"last_block": 1e-3, "full": 1e-3}


def accuracy(net, a, y):
    z = net.predict(a, verbose=0)
    return float((z.argmax(axis=1) == y).mean())


def one_hot(y):
    return np.eye(N_CLASSES, dtype="float32")[y]


def measure_rates(seed):
    ds, v = load(seed), {}
    a, a_val = (trunk.predict(x, verbose=0) for x in (ds.x_train, ds.x_val))
    head = solved_head(above.predict(a, verbose=0), ds.y_train)
    for arm in ARMS:
        keras.utils.set_random_seed(seed)
        net = opened(arm)
        start = compiled(net, head, a)
        for k, peak in enumerate(PEAKS):
            train(net, start, [(a, one_hot(ds.y_train))] * EPOCHS, peak, seed)
            v[f"few_{arm}_val{k}"] = accuracy(net, a_val, ds.y_val)
    return v
