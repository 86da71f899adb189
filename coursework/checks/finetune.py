"""Checks of the assignment `finetune`. How such a file is made up stands at the top of `repair.py`."""

import numpy as np

from tools.grading.compare import answers, judged, same


def draw_partly(rng):
    return {"filters": [int(v) for v in rng.integers(2, 6, 3)]}


def probe_partly(names, given):
    import keras
    import numpy as np

    inputs = keras.Input((6, 6, 3))
    x = inputs
    for i, filters in enumerate(given["filters"]):
        x = keras.layers.Conv2D(filters, 1, name=f"conv{i}")(x)
        x = keras.layers.BatchNormalization(name=f"bn{i}")(x)
    base = keras.Model(inputs, keras.layers.Flatten()(x))
    base.trainable = False  # as somebody may have left it
    count = names["freeze_up_to"](base, "bn0")
    flags = [
        bool(base.get_layer(f"{kind}{i}").trainable_weights) for kind in ("conv", "bn") for i in range(3)
    ]
    names["freeze_up_to"](base, "conv1")
    later = [bool(base.get_layer(f"conv{i}").trainable_weights) for i in range(3)]
    return {
        "later": np.array(later),
        "count": count,
        "flags": np.array(flags),
    }


def check_partly(given, found):
    flags = found["flags"]
    yield (
        "flags",
        same(flags[:3], [False, True, True]) and same(found["later"], [False, False, True]),
        (
            "Up to the named layer, and in it, nothing may be trainable, and all convolutions after it must be, whatever the flags were before."
        ),
    )
    yield "batchnorm", same(flags[3:], [False] * 3), "A BatchNorm layer can be trained."
    f = given["filters"]
    count = f[0] * f[1] + f[1] + f[1] * f[2] + f[2]
    yield "count", *judged(found["count"], count, "The number of trainable parameters is not right.")


def draw_schedule(rng):
    warmup = int(rng.integers(5, 20))
    return {
        "warmup": warmup,
        "steps": warmup + int(rng.integers(50, 150)),
        "peak": float(rng.uniform(0.01, 0.1)),
    }


def probe_schedule(names, given):
    import numpy as np

    steps, warmup, peak = given["steps"], given["warmup"], given["peak"]
    return {"rates": np.array([names["rate_at"](s, steps, warmup, peak) for s in range(steps)], float)}


def check_schedule(given, found):
    warmup, peak = given["warmup"], given["peak"]
    s = np.arange(given["steps"])
    t = (s - warmup) / (given["steps"] - warmup)
    rates = found["rates"]
    yield (
        "warmup",
        same(rates[:warmup], peak * (s[:warmup] + 1) / warmup, 1e-4, 1e-9),
        "The rates of the warm-up are not right.",
    )
    yield (
        "cosine",
        same(rates[warmup:], 0.5 * peak * (1 + np.cos(np.pi * t[warmup:])), 1e-3, 1e-7),
        ("After the warm-up the rates do not follow the cosine from the peak down."),
    )


def draw_rates(rng):
    return {"top": float(rng.uniform(0.001, 0.1)), "factor": float(rng.uniform(0.2, 0.8))}


def probe_rates(names, given):
    import numpy as np

    blocks = ("stem", "low", "middle", "high")
    rates = names["rates_by_block"](blocks, given["top"], given["factor"])
    return {"rates": np.array([rates[b] for b in blocks], float), "answers": dict(names["steps_become"])}


def check_rates(given, found):
    expected = given["top"] * given["factor"] ** np.arange(3, -1, -1)
    yield (
        "rates",
        same(found["rates"], expected, 1e-4, 1e-9),
        "The rates do not fall from the last block to the first, by the factor.",
    )
    yield (
        "adam",
        answers(found["answers"], {"SGD": "a tenth", "Adam": "the same"})[0] == 1,
        (
            "SGD's steps are proportional to the gradient. Adam divides each gradient by its own size, so a factor cancels."
        ),
    )


RUNS = [
    ({"phase": 1, "kernel": 0.1, "statistics": 0.3, "head": 0.2}, "not frozen"),
    ({"phase": 1, "kernel": 0.0, "statistics": 0.3, "head": 0.2}, "statistics"),
    ({"phase": 2, "kernel": 0.1, "statistics": 0.3, "head": 0.2}, "statistics"),
    ({"phase": 2, "kernel": 0.0, "statistics": 0.0, "head": 0.2}, "not recompiled"),
    ({"phase": 1, "kernel": 0.0, "statistics": 0.0, "head": 0.0}, "head frozen"),
    ({"phase": 2, "kernel": 0.1, "statistics": 0.0, "head": 0.2}, "none"),
    ({"phase": 1, "kernel": 0.0, "statistics": 0.0, "head": 0.2}, "none"),
    ({"phase": 2, "kernel": 0.1, "statistics": 0.0, "head": 0.0}, "head frozen"),
    ({"phase": 2, "kernel": 0.0, "statistics": 0.3, "head": 0.0}, "statistics"),
    ({"phase": 2, "kernel": 0.0, "statistics": 0.0, "head": 0.0}, "not recompiled"),
    ({"phase": 1, "kernel": 0.1, "statistics": 0.0, "head": 0.0}, "not frozen"),
    ({"phase": 1, "kernel": 1e-6, "statistics": 0.0, "head": 0.2}, "not frozen"),
    ({"phase": 2, "kernel": 1e-6, "statistics": 1e-6, "head": 0.2}, "statistics"),
    ({"phase": 1, "kernel": 0.0, "statistics": 0.0, "head": 1e-6}, "none"),
]


def draw_faults(rng):
    runs = [
        {**run, **{k: run[k] * float(rng.uniform(0.5, 2)) for k in ("kernel", "statistics", "head")}}
        for run, _ in RUNS
    ]
    values = [float(v) for v in rng.permutation([0.45, 0.6, 0.7, 0.78, 0.85, 0.8])]
    return {"runs": runs, "accuracies": {"sound": 0.8, **dict(zip("abcdef", values, strict=True))}}


def probe_faults(names, given):
    return {
        "named": {str(i): str(names["name_fault"](dict(run))) for i, run in enumerate(given["runs"])},
        "ranked": {"order": [str(name) for name in names["rank_by_cost"](dict(given["accuracies"]))]},
    }


def check_faults(given, found):
    right = sum(found["named"].get(str(i)) == fault for i, (_, fault) in enumerate(RUNS))
    yield (
        "named",
        right / len(RUNS),
        f"{len(RUNS) - right} of {len(RUNS)} runs have another fault than the one you named.",
    )
    values = given["accuracies"]
    order = sorted((name for name in values if values[name] < values["sound"]), key=lambda name: values[name])
    yield (
        "ranked",
        found["ranked"].get("order") == order,
        "The faults that cost accuracy are not ranked, the dearest first.",
    )


def draw_budget(rng):
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    chosen = rng.permutation(np.flatnonzero(labels >= 5))
    x = np.repeat(np.round(images.reshape(-1, 8, 8, 1) * 255 / 16), 3, axis=3).astype("uint8")
    train, new = chosen[:100], chosen[100:500]
    return {"x_train": x[train], "y_train": labels[train] - 5, "x_new": x[new]}


def probe_budget(names, given):
    import keras
    import numpy as np

    keras.utils.set_random_seed(5)
    counter = names["Counter"](name="counter")
    base = names["new_base"](counter)
    classify = names["fine_tune"](base, given["x_train"], given["y_train"], 5)
    passes = float(counter.passes)
    return {"passes": passes, "logits": np.asarray(classify(given["x_new"]))}


def check_budget(given, found):
    from sklearn.datasets import load_digits

    # The labels of the new images stay out of the sandbox's inputs.
    images, labels = load_digits(return_X_y=True)
    known = {
        np.round(image * 255 / 16).astype("uint8").tobytes(): label
        for image, label in zip(images, labels, strict=True)
    }
    y = np.array([known[np.ascontiguousarray(image[..., 0]).tobytes()] for image in given["x_new"]]) - 5
    passes = float(found["passes"])
    images = len(given["x_train"])
    within = images <= passes <= 3000
    yield (
        "within",
        within,
        (
            "More than 3,000 image passes went through the base."
            if passes > 3000
            else f"Fewer than {images} image passes went through the base: each of the {images} images has to."
        ),
    )
    right = (
        float(np.mean(found["logits"].argmax(axis=1) == y)) if found["logits"].shape == (len(y), 5) else 0.0
    )
    message = f"On images that it has not seen, fewer than {85 if right < 0.85 else 90} % are right."
    yield "good", right >= 0.85, message
    yield (
        "better",
        right >= 0.90 and within,
        message if right < 0.9 else "Only within the budget does this count.",
    )
