"""Planted submissions of `repair`, `concepts` and `features`."""

from planting import NONE, Planted, replace

CONVOLUTIONS_ONLY = """\
for layer in base.layers:
        if isinstance(layer, keras.layers.Conv2D):
            layer.trainable = False"""

REPAIR = {
    "perfect": Planted(),
    "empty": Planted(
        dict.fromkeys(("scaling", "logits", "rate", "freeze", "recompile", "choice"), NONE),
        as_released=("scaling", "logits", "rate", "freeze", "recompile", "choice"),
    ),
    "scaled-by-255": Planted({"scaling": 3}, as_released=("scaling",)),
    "softmax-twice": Planted({"logits": 3}, as_released=("logits",)),
    "base-not-frozen": Planted({"freeze": 4}, as_released=("freeze",)),
    "not-recompiled": Planted({"recompile": 4}, as_released=("recompile",)),
    "tuned-on-test": Planted({"choice": 3}, as_released=("choice",)),
    # Right in one part of each task but the first.
    "half-right": Planted(
        {"scaling": 3, "logits": 2, "rate": 2, "freeze": 2, "recompile": 2, "choice": 2},
        {
            "scaling": replace(("x = images", "x = images / 127.5 - 1")),
            "logits": replace(
                ("Dense(n_classes)", 'Dense(n_classes, activation="softmax")'),
                ("from_logits=True", "from_logits=False"),
            ),
            "rate": replace(("learning_rate=0.03", "learning_rate=0.000001")),
            "freeze": replace(("base.trainable = False", CONVOLUTIONS_ONLY)),
            "recompile": replace(("learning_rate=learning_rate", "learning_rate=0.1")),
            "choice": replace(('history["val_accuracy"]', 'history["accuracy"]')),
        },
    ),
    # Cells that do not run cost their own points and no others.
    "errors": Planted(
        {"logits": 3, "freeze": 4, "recompile": 4},
        {
            "logits": replace(("Dense(n_classes)(inputs)", "Dense(n_classes)(inputs")),
            "freeze": replace(("def build_phase_1", "def build_phase_one")),
            "recompile": replace(
                ("keras.optimizers.SGD(learning_rate=learning_rate, momentum=0.9)", "model.optimizer")
            ),
        },
    ),
}

CONCEPTS_ITEMS = ("roles", "kinds", "importance", "risk", "l2sp", "distances", "bound", "claims", "trends")
CONCEPTS = {
    "perfect": Planted(),
    "empty": Planted(dict.fromkeys(CONCEPTS_ITEMS, NONE), as_released=CONCEPTS_ITEMS),
    "sum-not-mean": Planted({"risk": 1}, {"risk": replace((".mean())", ".sum())"))}),
    "overflow": Planted(
        {"risk": 1}, {"risk": replace(("logits - logits.max(axis=1, keepdims=True)", "logits"))}
    ),
    "softmax-twice": Planted(
        {"risk": 3},
        {
            "risk": replace(
                (
                    "shifted = logits - ",
                    "logits = np.exp(logits) / np.exp(logits).sum(axis=1)[:, None]\n    shifted = logits - ",
                )
            )
        },
    ),
    "off-by-one": Planted({"risk": 3}, {"risk": replace(("labels].mean", "labels - 1].mean"))}),
    "weights-upside-down": Planted(
        {"importance": 3},
        {
            "importance": replace(
                ("np.asarray(p_target) / np.asarray(p_source)", "np.asarray(p_source) / np.asarray(p_target)")
            )
        },
    ),
    "decay-to-zero": Planted(
        {"l2sp": 3},
        {
            "l2sp": replace(
                ("A @ w_hat + alpha * w_start)", "A @ w_hat)"),
                ("(curvature * w_hat + alpha * w_start)", "curvature * w_hat"),
            )
        },
    ),
    "wrong-denominators": Planted(
        {"distances": 3},
        {"distances": replace(("(2 * bandwidth**2)", "bandwidth**2"), ("(4 * d**2)", "d**2"))},
    ),
    "task-is-model": Planted(
        {"roles": 0.4}, {"roles": replace(('"source task": "a"', '"source task": "f"'))}
    ),
    "reversal-forgotten": Planted(
        {"bound": 1}, {"bound": replace(("g_task - strength", "g_task + strength"))}
    ),
    "mixed-up": Planted(
        {"kinds": 0.5, "claims": 1.34, "trends": 2.33},
        {
            "kinds": replace(
                ('"flowers": "features"', '"flowers": "parameters"'),
                ('"moths": "inductive"', '"moths": "transductive"'),
            ),
            "claims": replace(
                ('"complex": "depends"', '"complex": "true"'),
                ('"general": "true"', '"general": "false"'),
                ('"condition": "labels"', '"condition": "version"'),
                ('"vague": "no"', '"vague": "yes"'),
            ),
            "trends": replace(
                ('"quarter": "quantization"', '"quarter": "pruning"'),
                ("target_from_scratch - target_with_source", "target_with_source - target_from_scratch"),
            ),
        },
    ),
}

FEATURES_ITEMS = ("extract", "probe", "leak", "fair", "interval", "curve", "augment", "depths")
FEATURES = {
    "perfect": Planted(),
    "empty": Planted(dict.fromkeys(FEATURES_ITEMS, NONE), as_released=FEATURES_ITEMS),
    "training-mode": Planted({"extract": 2}, {"extract": replace(("training=False", "training=True"))}),
    "untrained-layer": Planted(
        {"extract": NONE},
        {
            "extract": replace(
                (
                    "model.get_layer(layer_name).output",
                    "keras.layers.Dense(4)(model.get_layer(layer_name).output)",
                )
            )
        },
    ),
    "scaled-with-validation": Planted(
        {"probe": NONE},
        {
            "probe": replace(
                (
                    "pipeline.fit(f_train, y_train)",
                    "pipeline.fit(f_train, y_train)\n        pipeline[0].fit(np.vstack([f_train, f_val]))",
                )
            )
        },
    ),
    "chosen-on-training": Planted(
        {"probe": 2},
        {"probe": replace(("pipeline.predict(f_val) == y_val", "pipeline.predict(f_train) == y_train"))},
    ),
    "largest-of-equals": Planted(
        {"probe": 1}, {"probe": replace(("score > best_score", "score >= best_score"))}
    ),
    "tuned-on-test": Planted(
        {"fair": 2}, {"fair": replace(("predict(x_val) == y_val", "predict(x_test) == y_test"))}
    ),
    "leak-counts-as-right": Planted(
        {"leak": 2},
        {"leak": replace(("predicted[clean] == y_test[clean]", "(predicted == y_test) | ~clean"))},
    ),
    "small-slips": Planted(
        {"interval": 3, "curve": 3, "augment": 3, "depths": 2},
        {
            "interval": replace(
                ("(1 + z**2 / n), (middle", "1.0, (middle"), ("predicted != labels", "predicted == labels")
            ),
            "curve": replace(
                ("f_train[:n], y_train[:n]", "f_train[-n:], y_train[-n:]"), ("* 100 * value", "* value")
            ),
            "augment": replace(
                ("x_train[:, :, ::-1]", "x_train[:, ::-1]"), ("extract(x_val)", "extract(x_val[:, :, ::-1])")
            ),
            "depths": replace(("o.mean(axis=(1, 2))", "o.max(axis=(1, 2))")),
        },
    ),
}
