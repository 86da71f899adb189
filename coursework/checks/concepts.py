"""Checks of the assignment `concepts`. How such a file is made up stands at the top of `repair.py`."""

import numpy as np

from tools.grading.compare import answers, judged, same


def probe_roles(names, given):
    return {"roles": dict(names["roles"]), "parts": dict(names["parts"])}


def check_roles(given, found):
    letters = {
        "source task": "a",
        "source domain": "b",
        "target task": "c",
        "target domain": "d",
        "what crosses": "e",
    }
    yield "roles", *answers(found["roles"], letters)
    yield (
        "parts",
        *answers(
            found["parts"],
            {
                "backbone, phase 1": "frozen",
                "backbone, phase 2": "trained",
                "source head, phase 1": "gone",
                "target head, phase 1": "new",
                "target head, phase 2": "new",
            },
        ),
    )


def probe_kinds(names, given):
    return {name: dict(names[name]) for name in ("setting", "carried", "neighbour", "walk")}


def check_kinds(given, found):
    setting = {"flowers": "inductive", "night": "transductive", "moths": "inductive", "scratch": "neither"}
    carried = {"flowers": "features", "night": "instances", "moths": "parameters", "scratch": "nothing"}
    yield "setting", *answers(found["setting"], setting)
    yield "carried", *answers(found["carried"], carried)
    yield (
        "neighbours",
        *answers(
            found["neighbour"],
            {
                "walk": "semi-supervised",
                "album": "multitask",
                "crops": "self-supervised",
                "gate": "domain adaptation",
            },
        ),
    )
    yield "combined", *answers(found["walk"], {"start": "transfer", "signal": "semi-supervised"})


def draw_importance(rng):
    p_source, p_target = rng.dirichlet(np.full(4, 3.0)), rng.dirichlet(np.full(4, 3.0))
    return {
        "p_source": p_source,
        "p_target": p_target,
        "kinds": rng.choice(4, 200, p=p_source),
        "losses": rng.gamma(2.0, 1.0, 200),
    }


def probe_importance(names, given):
    shares = given["p_source"], given["p_target"]
    return {
        "weights": names["importance_weights"](*shares),
        "risk": names["target_risk"](given["losses"], given["kinds"], *shares),
    }


def check_importance(given, found):
    weights = given["p_target"] / given["p_source"]
    yield (
        "weights",
        *judged(
            found["weights"],
            weights,
            "A kind's weight is its share in the target over its share in the source.",
        ),
    )
    risk = float(np.mean(weights[given["kinds"]] * given["losses"]))
    yield (
        "risk",
        *judged(
            found["risk"], risk, "The estimate is the mean of weight times loss over the source examples."
        ),
    )


def draw_risk(rng):
    return {
        "logits": rng.normal(0, 3, (12, 5)),
        "labels": rng.integers(0, 5, 12),
        "large": float(rng.uniform(2e3, 5e3)),
    }


def probe_risk(names, given):
    import numpy as np

    logits, labels, risk = given["logits"], given["labels"], names["empirical_risk"]
    one = [np.asarray(risk(logits[i : i + 1], labels[i : i + 1])) for i in range(len(labels))]
    return {
        "one": np.stack(one),
        "all": risk(logits, labels),
        "twice": risk(np.concatenate([logits, logits]), np.concatenate([labels, labels])),
        "large": risk(np.array([[given["large"], 0.0]]), np.array([1])),
        "small": risk(np.array([[-given["large"], 0.0]]), np.array([0])),
        "mixed": risk(np.array([[given["large"], 0.0], [0.0, 1.0]]), np.array([1, 0])),
    }


def check_risk(given, found):
    z = given["logits"] - given["logits"].max(axis=1, keepdims=True)
    each = np.log(np.exp(z).sum(axis=1)) - z[np.arange(12), given["labels"]]
    yield (
        "value",
        *judged(found["one"], each, "For samples of one example the cross-entropy is not right."),
    )
    said = (
        "The empirical risk is a mean: a sample that is written down twice has the same risk. A sum has not."
    )
    yield "mean", *judged(found["all"], each.mean(), said)
    yield "mean", *judged(found["twice"], each.mean(), said)
    total = given["large"] + np.log(1 + np.e)
    yield (
        "stable",
        same(found["large"], given["large"])
        and same(found["small"], given["large"])
        and any(same(found["mixed"], total / n, 1e-6) for n in (1, 2)),  # a sum is wrong elsewhere
        (
            "Large logits give infinity, NaN or a cut-off value. Subtract each example's largest logit before exp."
        ),
    )


def draw_l2sp(rng):
    root = rng.normal(size=(3, 3))
    return {
        "A": root @ root.T + np.eye(3),
        "w_hat": rng.normal(size=3),
        "w_start": rng.normal(size=3),
        "alpha": float(rng.uniform(0.5, 3)),
    }


def probe_l2sp(names, given):
    w = names["l2sp_minimiser"](given["A"], given["w_hat"], given["w_start"], given["alpha"])
    return {"w": w, "limits": dict(names["limits"]), "on_paper": float(names["on_paper"])}


def check_l2sp(given, found):
    A, alpha = given["A"], given["alpha"]
    expected = np.linalg.solve(A + alpha * np.eye(3), A @ given["w_hat"] + alpha * given["w_start"])
    yield (
        "minimiser",
        *judged(
            found["w"],
            expected,
            "Set the gradient A (w - w_hat) + alpha (w - w_start) to zero and solve for w. A need not be diagonal.",
        ),
    )
    ends = {"alpha = 0": "plain fine-tuning", "alpha to infinity": "the pretrained weights"}
    yield "limits", *answers(found["limits"], ends)
    # The first cell of the notebook draws these from the student's seed.
    w_start, w_hat, a, alpha = np.random.default_rng(given["seed"]).integers([1, 6, 1, 1], [5, 12, 4, 6])
    yield (
        "on_paper",
        same(found["on_paper"], (a * w_hat + alpha * w_start) / (a + alpha), 0, 0.005),
        ("The number computed on paper is not (a w_hat + alpha w0) / (a + alpha)."),
    )


def draw_distances(rng):
    return {
        "z": rng.normal(size=(8, 3)),
        "u": 1.5 * rng.normal(size=(11, 3)) + 0.3,
        "bandwidth": float(rng.uniform(0.7, 2.0)),
    }


def probe_distances(names, given):
    z, u = given["z"], given["u"]
    return {
        "mmd": names["mmd2"](z, u, given["bandwidth"]),
        "coral": names["coral"](z, u),
        "sees": dict(names["sees"]),
    }


def check_distances(given, found):
    z, u = given["z"], given["u"]

    def mean_kernel(a, b):
        return np.exp(-((a[:, None] - b[None]) ** 2).sum(axis=2) / (2 * given["bandwidth"] ** 2)).mean()

    mmd = mean_kernel(z, z) + mean_kernel(u, u) - 2 * mean_kernel(z, u)
    yield (
        "mmd",
        *judged(
            found["mmd"],
            mmd,
            "The biased squared MMD is the mean kernel inside z, plus that inside u, minus twice that between them.",
        ),
    )
    coral = ((np.cov(z, rowvar=False) - np.cov(u, rowvar=False)) ** 2).sum() / 36
    yield (
        "coral",
        *judged(
            found["coral"],
            coral,
            "The CORAL loss is the squared distance of the covariances, with denominator n - 1, over 4 d^2.",
        ),
    )
    yield "blind", *answers(found["sees"], {"moved": "mmd", "stretched": "both"})


def draw_bound(rng):
    found = {name: rng.normal(size=4) for name in ("w", "g_task", "g_domain")}
    return {
        **found,
        "rate": float(rng.uniform(0.01, 0.1)),
        "strength": float(rng.uniform(0.2, 2)),
        "errors": rng.uniform(0.05, 0.45, 3),
    }


def probe_bound(names, given):
    step = names["dann_step"](
        given["w"], given["g_task"], given["g_domain"], given["rate"], given["strength"]
    )
    side = names["right_hand_side"](*[float(e) for e in given["errors"]])
    return {"step": step, "side": side, "says": dict(names["bound_says"])}


def check_bound(given, found):
    step = given["w"] - given["rate"] * (given["g_task"] - given["strength"] * given["g_domain"])
    yield (
        "reversal",
        *judged(
            found["step"],
            step,
            "The backbone goes down the task's loss and up the domain classifier's: w - rate (g_task - strength g_domain).",
        ),
    )
    source, domain, joint = given["errors"]
    yield (
        "sum",
        *judged(
            found["side"],
            source + 1 - 2 * domain + joint,
            "Half of the proxy A-distance is 1 - 2 error. The bound adds it to the source error and the joint error.",
        ),
    )
    yield (
        "silent",
        *answers(found["says"], {"sum": "says", "alike": "silent", "joint": "silent", "harm": "silent"}),
    )


def probe_claims(names, given):
    return {name: dict(names[name]) for name in ("verdict", "evidence", "reference", "disappoints")}


def check_claims(given, found):
    yield (
        "verdicts",
        *answers(
            found["verdict"],
            {
                "retraining": "false",
                "accuracy": "depends",
                "complex": "depends",
                "general": "true",
                "theano": "true",
                "lr": "false",
            },
        ),
    )
    yield "evidence", *answers(found["evidence"], {"condition": "labels", "vague": "no", "sharp": "yes"})
    yield "references", *answers(found["reference"], {"yosinski": "garbled", "robots": "invented"})
    yield (
        "limits",
        *answers(found["disappoints"], {"rich": "yes", "ignored": "yes", "scaled": "yes", "few": "no"}),
    )


def draw_trends(rng):
    return {"accuracies": rng.uniform(0.3, 0.95, 4)}


def probe_trends(names, given):
    a, b, c, d = (float(v) for v in given["accuracies"])
    return {
        "compression": dict(names["compression"]),
        "closest": dict(names["closest"]),
        "harm": names["harm"](a, b),
        "forgotten": names["forgotten"](c, d),
    }


def check_trends(given, found):
    a, b, c, d = given["accuracies"]
    yield (
        "compression",
        *answers(
            found["compression"], {"quarter": "quantization", "small": "distillation", "zeros": "pruning"}
        ),
    )
    yield (
        "family",
        *answers(found["closest"], {"lora": "model-based", "pseudo": "neither", "names": "feature-based"}),
    )
    said = "Both tests are a difference of two accuracies, positive where something was lost."
    yield "tests", *judged(found["harm"], b - a, said)
    yield "tests", *judged(found["forgotten"], c - d, said)
