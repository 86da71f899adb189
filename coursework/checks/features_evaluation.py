"""Checks of the assignment `features`: data and evaluation. How such a file is made up stands at the top of `repair.py`."""

import numpy as np

from tools.grading.compare import judged, same, same_pairs


def draw_leak(rng):
    x_train = rng.integers(0, 256, (30, 4, 4, 3)).astype("uint8")
    x_test = rng.integers(0, 256, (20, 4, 4, 3)).astype("uint8")
    twins = rng.choice(20, 7, replace=False)
    x_test[twins] = x_train[[0, 29, *rng.choice(np.arange(1, 29), 5, replace=False)]]
    near = [i for i in range(20) if i not in twins][:2]
    x_test[near] = x_train[:2]
    x_test[near, 0, 0, 0] ^= 1  # one pixel differs: another image
    y = rng.integers(0, 5, 20)
    return {
        "x_train": x_train,
        "x_test": x_test,
        "y": y,
        "predicted": np.where(rng.random(20) < 0.6, y, (y + 1) % 5),
    }


def probe_leak(names, given):
    accuracy = names["accuracy_without_leak"](
        given["predicted"], given["y"], given["x_train"], given["x_test"]
    )
    return {"leaked": names["leaked"](given["x_train"], given["x_test"]), "accuracy": accuracy}


def check_leak(given, found):
    twins = (given["x_test"][:, None] == given["x_train"][None]).all(axis=(2, 3, 4)).any(axis=1)
    yield (
        "found",
        *judged(
            found["leaked"],
            twins,
            "The test images that are training images, to the last pixel, were not found, or others were.",
        ),
    )
    right = float(np.mean(given["predicted"][~twins] == given["y"][~twins]))
    yield (
        "accuracy",
        *judged(found["accuracy"], right, "The accuracy is not the one on the images without a twin."),
    )


SHARES = np.array([(0.5, 0.9), (0.8, 0.7), (0.3, 0.95)])  # right on validation and on test images, of a, b, c


def draw_fair(rng):
    while True:  # until labels of other images, or in another order, choose another method than b
        labels, x = rng.permutation(np.arange(60) % 3), rng.normal(size=(60, 2))
        right = np.ones((3, 60), bool)
        for method, shares in enumerate(SHARES):
            for part, share in enumerate(shares):
                right[method, 20 + 20 * part : 40 + 20 * part] = rng.permutation(20) < round(20 * share)
        said = np.where(right, labels, (labels + 1) % 3)[:, 20:40]
        torn = (labels[20:40][::-1], labels[:20], labels[40:], np.ones(20, int))
        if all((scores := (said == wrong).mean(axis=1))[1] < scores.max() for wrong in torn):
            return {"labels": labels, "x": x, "right": right}


def probe_fair(names, given):
    import numpy as np

    x, y = given["x"], given["labels"]
    row_of = {tuple(row): i for i, row in enumerate(x)}
    trained, tested = [], []

    def method(number):
        def train(x_train, y_train, x_val, y_val):
            trained.append([np.asarray(part) for part in (x_train, y_train, x_val, y_val)])

            def predict(images):
                rows = np.array([row_of[tuple(row)] for row in np.asarray(images)], int)
                tested.extend([number, int(row)] for row in rows if row >= 40)
                return np.where(given["right"][number][rows], y[rows], (y[rows] + 1) % 3)

            return predict

        return train

    methods = {name: method(number) for number, name in enumerate("abc")}
    name, accuracy = names["compare"](methods, x[:20], y[:20], x[20:40], y[20:40], x[40:], y[40:])
    found = {
        f"{part}{i}": call[k] for i, call in enumerate(trained) for k, part in enumerate(("x", "y", "v", "w"))
    }
    return {
        **found,
        "name": str(name),
        "accuracy": accuracy,
        "trained": len(trained),
        "tested": np.array(tested, int),
    }


def check_fair(given, found):
    x, y = given["x"], given["labels"]
    fed = same(found["trained"], 3) and all(
        same_pairs(found[f"x{i}"], found[f"y{i}"], x[:20], y[:20])
        and same_pairs(found[f"v{i}"], found[f"w{i}"], x[20:40], y[20:40])
        for i in range(3)
    )
    yield (
        "same_images",
        fed,
        (
            "Each method must be trained once, on the training images with their labels, with the validation images "
            "and their labels beside them."
        ),
    )
    yield "chosen", found["name"] == "b", "The method was not chosen by the validation images."
    # All at once or in batches: each test image once, and for the chosen method alone.
    tested = found["tested"]
    once = (
        tested.shape == (20, 2)
        and bool((tested[:, 0] == 1).all())
        and set(tested[:, 1]) == set(range(40, 60))
    )
    yield (
        "test_once",
        once and same(found["accuracy"], 0.7),
        ("Only the chosen method may see the test images, once; its accuracy there is what is returned."),
    )


def draw_interval(rng):
    probabilities = rng.dirichlet(np.ones(4), 30)
    return {"hits": int(rng.integers(60, 90)), "n": 100, "p": probabilities, "y": rng.integers(0, 4, 30)}


def probe_interval(names, given):
    import numpy as np

    mistakes = names["surest_mistakes"](given["p"], given["y"], 5)
    return {
        "wilson": np.array([*names["wilson"](given["hits"], given["n"]), *names["wilson"](0, 20)], float),
        "mistakes": np.asarray(mistakes),
    }


def check_interval(given, found):
    from scipy.stats import binomtest

    expected = [
        *binomtest(given["hits"], 100).proportion_ci(method="wilson"),
        *binomtest(0, 20).proportion_ci(method="wilson"),
    ]
    yield (
        "wilson",
        *judged(found["wilson"], np.array(expected), "The ends are not those of Wilson's interval.", 0, 5e-5),
    )
    predicted = given["p"].argmax(axis=1)
    wrong = np.flatnonzero(predicted != given["y"])
    order = wrong[np.argsort(-given["p"][wrong, predicted[wrong]])][:5]
    yield (
        "mistakes",
        same(found["mistakes"], order),
        ("These are not the mistakes with the largest probability of the wrong answer, the surest first."),
    )


CASES = (  # accuracy before and after, labels before and after, price, value
    (0.80, 0.85, 100, 200, 1.0, 30.0),
    (0.80, 0.81, 100, 200, 1.0, 30.0),
    (0.80, 0.75, 100, 200, 1.0, 30.0),
    (0.80, 0.85, 100, 200, 1.0, 19.9),
    (0.80, 0.85, 100, 200, 1.0, 20.1),
    (0.75, 0.875, 100, 200, 1.0, 8.0),  # exactly what they cost
    (0.80, 0.85, 100, 200, 2.0, 30.0),
    (0.80, 0.85, 100, 200, 0.5, 11.0),
    (0.80, 0.85, 100, 400, 1.0, 30.0),
    (0.80, 0.85, 190, 200, 1.0, 3.0),
)


def draw_curve(rng):
    while True:  # until what plausible mistakes give is something else
        f, f_val = rng.normal(size=(50, 2)), rng.normal(size=(40, 2))
        drawn = {"f": f, "y": rng.integers(0, 2, 50), "f_val": f_val, "y_val": rng.integers(0, 2, 40)}
        drawn["cases"] = np.array(CASES)
        if len({*accuracies(drawn)}) == 3:
            return drawn


def accuracies(given):
    """What the first n examples give, for each size."""
    f, y, found = given["f"], given["y"], []
    for n in (5, 20, 50):
        direction = f[:n][y[:n] == 1].sum(axis=0) - f[:n][y[:n] == 0].sum(axis=0)
        found.append(np.mean((given["f_val"] @ direction > 0) == given["y_val"]))
    return found


def probe_curve(names, given):
    import numpy as np

    calls = []

    def fit(f, y):
        f, y = np.asarray(f), np.asarray(y)
        calls.append((f, y))
        direction = f[y == 1].sum(axis=0) - f[y == 0].sum(axis=0)
        return lambda f_new: (np.asarray(f_new) @ direction > 0).astype(int)

    sizes = (5, 20, 50)
    curve = names["learning_curve"](fit, given["f"], given["y"], given["f_val"], given["y_val"], sizes)
    # On examples that were not seen a wrong set may be as good by luck: so what was fitted is looked at too.
    by_size = {len(f): (f, y) for f, y in calls}
    fitted = {f"{part}{n}": by_size[n][k] for n in sizes for k, part in enumerate(("f", "y"))}
    pays = names["pays"]
    decisions = [
        bool(pays({int(a): before, int(b): after}, int(a), int(b), price, value))
        for before, after, a, b, price, value in given["cases"]
    ]
    return {**fitted, "curve": np.array([curve[n] for n in sizes]), "decisions": np.array(decisions)}


def check_curve(given, found):
    said = (
        "The accuracies are not those of the first n training examples, measured on the validation features."
    )
    yield "curve", *judged(found["curve"], np.array(accuracies(given)), said)
    first = all(
        same_pairs(found[f"f{n}"], found[f"y{n}"], given["f"][:n], given["y"][:n]) for n in (5, 20, 50)
    )
    yield "curve", first, said
    gained = [100 * (after - before) * value > (b - a) * price for before, after, a, b, price, value in CASES]
    yield (
        "decision",
        same(found["decisions"], np.array(gained)),
        (
            "It pays if the points of accuracy gained, times their value, exceed the new labels, times their price."
        ),
    )


def draw_augment(rng):
    return {
        "x": rng.normal(size=(6, 3, 4, 3)),
        "y": rng.integers(0, 5, 6),
        "x_val": rng.normal(size=(4, 3, 4, 3)),
    }


def probe_augment(names, given):
    import numpy as np

    calls = []

    def extract(images):
        calls.append(len(images))
        return np.asarray(images).reshape(len(images), -1)

    f, y, f_val = names["augmented"](extract, given["x"], given["y"], given["x_val"])
    return {"f": np.asarray(f), "y": np.asarray(y), "f_val": np.asarray(f_val), "calls": len(calls)}


def check_augment(given, found):
    x, y = given["x"], given["y"]
    views = np.concatenate([x, x[:, :, ::-1]]).reshape(12, -1)
    said = (
        "The training features are not those of all images and, behind them, of their mirror images (left to right), "
        "with their labels."
    )
    yield "views", *judged(found["f"], views, said)
    yield "views", *judged(found["y"], np.concatenate([y, y]), said)
    yield (
        "validation",
        *judged(
            found["f_val"],
            given["x_val"].reshape(4, -1),
            "The validation features must be those of the images as they are.",
        ),
    )
    yield "validation", bool(found["calls"] <= 3), "extract is called at most three times."
