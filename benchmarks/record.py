"""Record attempt: the best CIFAR-10 test accuracy within five minutes on two cores.

    python benchmarks/record.py [--size 96] [--frozen 4] [--rate 1e-3]

The clock starts before the imports, the cache is empty, and everything counts: reading and decoding the
images, the export, the activations of the frozen trunk, the head, fine-tuning above the trunk, and the
answers for all 10,000 test images and their mirror images. The trunk runs once on each image and on its
mirror image, in bfloat16 where the processor has it. Fine-tuning takes the time that is left: the rate falls
with the clock.

Choose settings with --trial, which looks at validation images alone, and counts the cores' seconds of this
process in place of the clock's, so that a busy machine changes little. The test images are read in the end.
"""

import argparse
import itertools
import math
import os
import tempfile
import time
from collections.abc import Callable, Iterator

BEGIN = time.perf_counter()
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import tensorflow as tf
from _common import machine, table, write

from tlhelpers import backbones, data, evaluation, features, finetune, heads

LIMIT = 300.0
SPARE = 8.0  # seconds that are left at the end
N_HEAD = 5_000  # images that fit the head
LOWER = "openvino-bf16"
SMOOTHING = 0.1  # of the labels


def taps(layer: keras.layers.DepthwiseConv2D) -> np.ndarray:
    """Returns which tap of a kernel leads from each position of a map to each position of the next one.

    Returns:
        float32 (k * k, p, q): 1 where the tap leads from p to q, else 0.
    """
    size, stride, side = layer.kernel.shape[0], layer.strides[0], layer.input.shape[1]
    out = -(-side // stride)
    before = max((out - 1) * stride + size - side, 0) // 2
    found = np.zeros((size, size, side, side, out, out), np.float32)
    for row, column, i, j in np.ndindex(size, size, out, out):
        y, x = i * stride + row - before, j * stride + column - before
        if 0 <= y < side and 0 <= x < side:
            found[row, column, y, x, i, j] = 1
    return found.reshape(size * size, side * side, out * out)


def above(network: keras.Model, cut: str) -> tuple[Callable[[tf.Tensor], tf.Tensor], list[keras.Variable]]:
    """Returns what a Lite network computes above a layer, as matrix products, and the kernels that train.

    The maps there are so small that a depthwise convolution is a matrix of positions for each channel, and
    with the channels first no map has to be turned: that is faster than the convolutions.
    Normalisation keeps the statistics and factors of the pretraining.
    """
    kinds = keras.layers
    layers = network.layers[network.layers.index(network.get_layer(cut)) + 1 :]
    routes = {layer.name: taps(layer) for layer in layers if isinstance(layer, kinds.DepthwiseConv2D)}
    affine = {}
    for layer in layers:
        if isinstance(layer, kinds.BatchNormalization):
            gamma, beta, mean, variance = layer.get_weights()
            scale = gamma / np.sqrt(variance + layer.epsilon)
            affine[layer.name] = [v[:, None, None] for v in (scale, beta - mean * scale)]

    def run(activations: tf.Tensor) -> tf.Tensor:
        n, (height, width, channels) = tf.shape(activations)[0], activations.shape[1:]
        x = tf.reshape(tf.transpose(activations, [3, 0, 1, 2]), [channels, n, height * width])
        known = {cut: x}
        for layer in layers:
            x, *others = (known[t._keras_history.operation.name] for t in keras.tree.flatten(layer.input))
            if isinstance(layer, kinds.DepthwiseConv2D):
                n_taps, p, q = routes[layer.name].shape
                kernel = tf.reshape(tf.convert_to_tensor(layer.kernel), [n_taps, -1])
                routed = tf.matmul(kernel, routes[layer.name].reshape(n_taps, p * q), transpose_a=True)
                x = tf.matmul(x, tf.reshape(routed, [-1, p, q]))
            elif isinstance(layer, kinds.Conv2D):
                kernel = tf.convert_to_tensor(layer.kernel)[0, 0]
                flat = tf.reshape(x, [x.shape[0], -1])
                x = tf.reshape(tf.matmul(kernel, flat, transpose_a=True), [kernel.shape[1], n, x.shape[2]])
            elif isinstance(layer, kinds.BatchNormalization):
                scale, shift = affine[layer.name]
                x = x * scale + shift
            elif isinstance(layer, kinds.ReLU):
                x = tf.nn.relu6(x)
            elif isinstance(layer, kinds.Add):
                x += others[0]
            elif isinstance(layer, kinds.GlobalAveragePooling2D):
                return tf.transpose(tf.reduce_mean(x, axis=2))
            else:
                raise TypeError(f"There is no matrix product for the layer {layer.name}.")
            known[layer.name] = x
        raise ValueError(f"{network.name} does not end with a pooling layer.")

    convolutions = (kinds.Conv2D, kinds.DepthwiseConv2D)
    return run, [v for layer in layers if isinstance(layer, convolutions) for v in layer.trainable_weights]


def rows(n: int, batch_size: int) -> Iterator[np.ndarray]:
    """Yields positions among ``n`` images and then their ``n`` mirror images: in each epoch one of both."""
    rng = np.random.default_rng(0)
    mirrored = rng.integers(0, 2, n)
    for epoch in itertools.count():
        order = rng.permutation(n)
        picked = order + n * ((mirrored[order] + epoch) % 2)
        yield from np.split(picked, range(batch_size, n, batch_size))[: n // batch_size]


def main() -> None:
    """Runs once, prints and writes."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--size", type=int, default=96)
    parser.add_argument("--frozen", type=int, default=4, help="number of frozen blocks, of 7")
    parser.add_argument("--rate", type=float, default=1e-3)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--n-train", type=int, default=49_000)
    parser.add_argument("--n-val", type=int, default=1_000)
    parser.add_argument("--limit", type=float, default=LIMIT)
    parser.add_argument("--trial", action="store_true", help="stop before the test images; write nothing")
    args = parser.parse_args()
    cores = machine()["cores"]
    steps: list[tuple[str, float, int]] = []

    def now() -> float:
        return time.process_time() / cores if args.trial else time.perf_counter() - BEGIN

    def lap(name: str, n_images: int = 0) -> None:
        steps.append((name, now() - sum(seconds for _, seconds, _ in steps), n_images))
        print(f"{name}: {steps[-1][1]:.1f} s, {n_images:,} images", flush=True)

    def activations(x: np.ndarray) -> np.ndarray:
        """Of images and then of their mirror images, float16."""
        views = np.concatenate([x, x[:, :, ::-1]])
        return features.extract(
            backbone, views, [cut], engine=engine, pooled=False, cache=False, compare=False
        )

    def computed(a: np.ndarray) -> np.ndarray:
        """Features, from activations."""
        return np.concatenate([infer(a[i : i + 500].astype(np.float32)) for i in range(0, len(a), 500)])

    def answers(x: np.ndarray) -> np.ndarray:
        """Logits, those of an image and its mirror image added."""
        logits = computed(activations(x)) @ np.asarray(head.kernel) + np.asarray(head.bias)
        return logits[: len(x)] + logits[len(x) :]

    lap("imports")
    with tempfile.TemporaryDirectory() as folder:
        os.environ["TLHELPERS_CACHE"] = folder
        engine = LOWER if LOWER in features.available() else "auto"
        ds = data.load("cifar10", n_train=args.n_train, n_val=args.n_val, n_test=10_000)
        n = len(ds.y_train)
        lap("reading", n + args.n_val + len(ds.y_test))
        keras.utils.set_random_seed(0)
        backbone = backbones.load("efficientnet_lite0", image_size=args.size)
        finetune.freeze(backbone, up_to=f"block{args.frozen}")
        cut = [la.name for la in backbone.model.layers if la.name.startswith(f"block{args.frozen}")][-1]
        a_train = activations(ds.x_train)
        lap("trunk", len(a_train))

        run, variables = above(backbone.model, cut)
        infer = tf.function(run, autograph=False, reduce_retracing=True)
        few = min(n, N_HEAD)
        infer(a_train[:500].astype(np.float32))
        start = now()
        f_head = computed(a_train[:few])
        per_view = (now() - start) / few + steps[-1][1] / len(a_train)
        f_val = computed(activations(ds.x_val)[: args.n_val])
        head = heads.linear_probe(f_head, ds.y_train[:few], f_val, ds.y_val).to_keras()
        right = evaluation.accuracy(ds.y_val, np.argmax(head(f_val), axis=1))
        print(f"validation accuracy of the probe {right:.4f}, without mirror images", flush=True)
        lap("head", few + args.n_val)

        variables += [head.kernel, head.bias]
        optimizer = keras.optimizers.Adam(args.rate)
        optimizer.build(variables)

        @tf.function(autograph=False)
        def step(x: tf.Tensor, y: tf.Tensor) -> None:
            with tf.GradientTape() as tape:
                f = tf.nn.dropout(run(tf.cast(x, tf.float32)), 0.2)
                logits = f @ tf.convert_to_tensor(head.kernel) + tf.convert_to_tensor(head.bias)
                target = tf.one_hot(y, ds.n_classes) * (1 - SMOOTHING) + SMOOTHING / ds.n_classes
                loss = tf.reduce_mean(tf.nn.softmax_cross_entropy_with_logits(target, logits))
            optimizer.apply(tape.gradient(loss, [v.value for v in variables]), variables)

        of_batch = tf.TensorSpec((args.batch, *a_train.shape[1:]), tf.float16)
        step.get_concrete_function(of_batch, tf.TensorSpec([args.batch], tf.int64))  # or the rate would jump
        lap("step")
        begin, end, n_steps = now(), args.limit - SPARE - 2 * per_view * len(ds.y_test), 0
        if end <= begin:
            raise SystemExit(f"No time is left to fine-tune: {args.limit - begin:.0f} s before the limit.")
        for picked in rows(n, args.batch):
            passed = (now() - begin) / (end - begin)
            if passed >= 1:
                break
            warm = min(1.0, passed / 0.05 + 1e-2)
            optimizer.learning_rate.assign(args.rate * warm * 0.5 * (1 + math.cos(math.pi * passed)))
            step(a_train[picked], ds.y_train[picked % n])
            n_steps += 1
        lap("fine-tuning", n_steps * args.batch)
        if args.trial:
            right = evaluation.accuracy(ds.y_val, answers(ds.x_val).argmax(axis=1))
            print(f"validation accuracy {right:.4f} with {vars(args)}; {now():.0f} s, {engine}")
            return
        logits = answers(ds.x_test)
        lap("answers", 2 * len(ds.y_test))
    seconds = now()
    accuracy = evaluation.accuracy(ds.y_test, logits.argmax(axis=1))
    low, high = evaluation.wilson_interval(round(accuracy * len(ds.y_test)), len(ds.y_test))
    lines = [(name, f"{took:.1f}", f"{images:,}" if images else "") for name, took, images in steps]
    shown = table(["step", "seconds", "images"], [*lines, ("all", f"{seconds:.1f}", "")])
    print(f"test accuracy {accuracy:.4f} ({low:.4f} to {high:.4f}) in {seconds:.0f} s, limit {LIMIT:.0f} s")
    content = {"settings": vars(args), "engine": engine, "data": repr(ds), "seconds": seconds, "steps": steps}
    write("record", shown, content | {"test_accuracy": accuracy, "wilson": [low, high]})


if __name__ == "__main__":
    main()
