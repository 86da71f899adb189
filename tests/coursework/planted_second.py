"""Planted submissions of `finetune`, `tuning` and `source`."""

from planting import NONE, Planted, replace

FINETUNE_ITEMS = ("partly", "schedule", "rates", "faults", "budget")
UNFROZEN = """\
inputs = keras.Input(base.input_shape[1:])
    model = keras.Model(inputs, keras.layers.Dense(n_classes)(base(inputs)))
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.SGD(learning_rate=0.01, momentum=0.9), loss)
    model.fit(x_train, y_train, batch_size=20, epochs=60, verbose=0)
    return lambda images: np.asarray(model(images, training=False))
    base.trainable = False"""
FINETUNE = {
    "perfect": Planted(),
    "empty": Planted(dict.fromkeys(FINETUNE_ITEMS, NONE), as_released=FINETUNE_ITEMS),
    "batchnorm-free": Planted(
        {"partly": 2},
        {"partly": replace((" and not isinstance(layer, keras.layers.BatchNormalization)", ""))},
    ),
    "base-not-frozen": Planted({"partly": 3}, {"partly": replace(("i > last", "i >= 0"))}),
    "named-layer-free": Planted({"partly": 2}, {"partly": replace(("i > last", "i >= last"))}),
    "tensors-for-numbers": Planted(
        {"partly": 1},
        {
            "partly": replace(
                ("int(sum(np.prod(w.shape) for w in base.trainable_weights))", "len(base.trainable_weights)")
            )
        },
    ),
    "no-warm-up": Planted({"schedule": 1}, {"schedule": replace(("step < warmup", "step < 0"))}),
    "rates-upside-down": Planted(
        {"rates": 3},
        {
            "rates": replace(
                ("enumerate(reversed(blocks))", "enumerate(blocks)"),
                ('"Adam": "the same"', '"Adam": "a tenth"'),
            )
        },
    ),
    "not-recompiled-unseen": Planted(
        {"faults": 2.29},
        {"faults": replace(('return "not recompiled"', 'return "none"'), ("-cost[name])", "cost[name])"))},
    ),
    "over-budget": Planted({"budget": 4}, {"budget": replace(("base.trainable = False", UNFROZEN))}),
    "past-the-counter": Planted(
        {"budget": 4},
        {
            "budget": replace(
                ("base.trainable = False", "base(x_train[:1])\n    base = new_base()"),
                ("base.trainable = True", "base.trainable = False"),
            )
        },
    ),
    "off-by-one-class": Planted(
        {"budget": 4},
        {
            "budget": replace(
                (
                    "return lambda images: np.asarray(model(images, training=False))",
                    "return lambda images: np.roll(np.asarray(model(images, training=False)), 1, axis=1)",
                )
            )
        },
    ),
}

TUNING_ITEMS = ("objective", "folds", "paired", "errors", "calibration")
TUNING = {
    "perfect": Planted(),
    "empty": Planted(dict.fromkeys(TUNING_ITEMS, NONE), as_released=TUNING_ITEMS),
    "linear-scale": Planted({"objective": 2}, {"objective": replace((", log=True", ""))}),
    "error-for-accuracy": Planted({"objective": 2}, {"objective": replace(("== y_val", "!= y_val"))}),
    "twins-apart": Planted(
        {"folds": 2}, {"folds": replace(("import GroupKFold", "import KFold"), ("GroupKFold(k)", "KFold(k)"))}
    ),
    "training-scores": Planted(
        {"folds": 4},
        {
            "folds": replace(
                ("predict(f[held_out]) == y[held_out]", "predict(f[train_rows]) == y[train_rows]")
            )
        },
    ),
    "unpaired": Planted(
        {"paired": 3},
        {
            "paired": replace(
                (
                    "difference[rows].mean(axis=1), [2.5, 97.5]",
                    "right_b[rows].mean(axis=1) - right_a[rows[::-1]].mean(axis=1), [2.5, 97.5]",
                )
            )
        },
    ),
    "luck-of-the-best-test": Planted(
        {"paired": 2}, {"paired": replace(("np.argmax(val_accuracies)", "np.argmax(test_accuracies)"))}
    ),
    "wrong-sign": Planted(
        {"paired": 3},
        {"paired": replace(("right_b.astype(float) - right_a", "right_a.astype(float) - right_b"))},
    ),
    "absent-class-left-out": Planted(
        {"errors": 2},
        {"errors": replace(("return matrix", "n = labels.max() + 1\n    return matrix[:n, :n]"))},
    ),
    "transposed": Planted(
        {"errors": 2}, {"errors": replace(("(labels, predicted), 1", "(predicted, labels), 1"))}
    ),
    "temperature-multiplied": Planted(
        {"calibration": 6},
        {"calibration": replace(("val_logits / t", "val_logits * t"), ("inside.mean() * abs", "abs"))},
    ),
}

SOURCE_ITEMS = ("rank", "leep", "pareto", "harm", "choose")
SOURCE = {
    "perfect": Planted(),
    "empty": Planted(dict.fromkeys(SOURCE_ITEMS, NONE), as_released=SOURCE_ITEMS),
    "values-for-ranks": Planted(
        {"rank": 2},
        {
            "rank": replace(
                ("rankdata(scores), rankdata(accuracies)", "np.array(scores), np.array(accuracies)")
            )
        },
    ),
    "rows-for-columns": Planted(
        {"leep": 4}, {"leep": replace(("joint.sum(axis=0)", "joint.sum(axis=1)[:, None]"))}
    ),
    "slowest-first": Planted({"pareto": 1}, {"pareto": replace(('row["seconds"])]', '-row["seconds"])]'))}),
    "most-accurate-only": Planted(
        {"pareto": 3},
        {"pareto": replace(("not any(beats(other, row) for other in rows)", 'row["accuracy"] > 0.9'))},
    ),
    "mean-is-verdict": Planted({"harm": 2}, {"harm": replace(("abs(mean) <= half", "abs(mean) == 0"))}),
    "unpaired": Planted(
        {"harm": 2},
        {
            "harm": replace(
                ("gain.std(ddof=1)", "np.hypot(np.std(with_source, ddof=1), np.std(without, ddof=1))")
            )
        },
    ),
    "all-sizes": Planted({"choose": 3}, {"choose": replace((' if row["n"] == n', ""))}),
    "no-tolerance": Planted({"choose": 2}, {"choose": replace(("<= tolerance", "<= 0"))}),
}
