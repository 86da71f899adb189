"""Detectors of the head: whether its outputs, the loss and the labels fit each other."""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from tlhelpers.audit._facts import Facts
from tlhelpers.audit._model import last_activation, loss_of
from tlhelpers.audit._results import Finding, fault


def head_logits(facts: Facts) -> Iterator[Finding]:
    """Probabilities where the loss wants logits, or logits where it wants probabilities."""
    loss, activation = loss_of(facts.model), last_activation(facts.model)
    if loss is not None and activation is not None and loss.from_logits != (activation == "linear"):
        output = "logits" if activation == "linear" else f"a {activation}"
        yield fault(
            "head-logits",
            f"The model ends in {output}, but the loss has from_logits={loss.from_logits}.",
            why="The loss is not the cross-entropy of the model. "
            "(With TensorFlow, Keras finds the logits before a softmax and uses them; "
            "other backends take the softmax twice.)",
            mend="End in Dense(n_classes) without activation, and use a loss with from_logits=True.",
        )


def head_loss(facts: Facts) -> Iterator[Finding]:
    """Sigmoid with a categorical loss, softmax with the binary one or with a single output."""
    loss, activation = loss_of(facts.model), last_activation(facts.model)
    if loss is not None and activation in ("softmax", "sigmoid"):
        n, binary = facts.model.output_shape[-1], loss.kind == "binary"
        if (activation == "softmax") == binary or (activation == "softmax" and n == 1):
            what = f"{activation} over {n} outputs does not fit the {loss.kind} cross-entropy"
            yield fault(
                "head-loss",
                f"The head's {what}.",
                why="Softmax shares 1 among classes that exclude each other; "
                "sigmoid says yes or no for each output.",
                mend="One class an image: logits with a (sparse) categorical loss. "
                "Several: logits with the binary one.",
            )


def labels_loss(facts: Facts) -> Iterator[Finding]:
    """One-hot labels with a sparse loss, or integers with one that wants one-hot labels."""
    loss = loss_of(facts.model)
    if loss is None or loss.kind == "binary":
        return
    wrong = [name for name, y in facts.labels.items() if _is_one_hot(y) != (loss.kind == "categorical")]
    if wrong:
        kind = "integers" if loss.kind == "categorical" else "one-hot"
        yield fault(
            "labels-loss",
            f"The {' and '.join(wrong)} labels are {kind}, the loss is {loss.kind} cross-entropy.",
            why="Keras stops with an error about shapes, or compares each label with the wrong thing.",
            mend="Integer labels: SparseCategoricalCrossentropy. One-hot labels: CategoricalCrossentropy.",
        )


def outputs_and_labels(facts: Facts) -> Iterator[Finding]:
    """Fewer outputs than classes, or labels that no output stands for."""
    loss, labels = loss_of(facts.model), list(facts.labels.values())
    if loss is None or not labels:
        return
    n_outputs = facts.model.output_shape[-1]
    n_outputs = 2 if loss.kind == "binary" and n_outputs == 1 else n_outputs  # one number for two classes
    values = np.unique(np.concatenate([y.argmax(1) if _is_one_hot(y) else y.ravel() for y in labels]))
    n_classes = max([len(values), facts.n_classes or 0] + [y.shape[1] for y in labels if _is_one_hot(y)])
    if n_classes > n_outputs:
        yield fault(
            "outputs-few",
            f"There are {n_classes} classes, but outputs for {n_outputs} only.",
            why="Some classes have no output. On a GPU this may raise no error, but give a loss of NaN.",
            mend="Give the head as many outputs as there are classes.",
        )
    elif values.min() < 0 or values.max() >= n_outputs:
        what = f"Labels go from {values.min()} to {values.max()}, the outputs are for 0 to {n_outputs - 1}"
        yield fault(
            "labels-range",
            f"{what}.",
            why="Some labels have no output. On a GPU this may raise no error, but give a loss of NaN.",
            mend="Number the classes from 0, for instance with np.unique(y, return_inverse=True)[1].",
        )


def _is_one_hot(y: NDArray) -> bool:
    return y.ndim == 2 and y.shape[1] > 1
