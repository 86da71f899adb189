"""From free to frozen: where fine-tuning with the L2-SP penalty ends, by the penalty's weight.

    python benchmarks/l2sp.py

This is the two-pixel world of notebooks/02_losses.ipynb, with its functions: two weights, one feature, eight
examples. It is computed, not measured: there is no seed.
"""

import numpy as np
from _common import table, write

ALPHAS = (0.0, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 1000.0)
X = np.array([[1.0, 0.0]] * 4 + [[0.0, 1.0]] * 4)
Y = np.array([1, 1, 1, 0, 1, 0, 0, 0])
PRETRAINED, HEAD = np.array([1.0, 0.0]), 0.1
STEPS = 5000


def shares(theta: np.ndarray, v: float) -> np.ndarray:
    """Returns the probability of class 1 for each example, ``(8,)``."""
    return 1 / (1 + np.exp(-v * (X @ theta)))


def descend(alpha: float) -> tuple[np.ndarray, float]:
    """Returns the backbone's weights and the head that fine-tuning with weight ``alpha`` ends at."""
    theta, v = PRETRAINED, HEAD
    for _ in range(STEPS):
        z, residual = X @ theta, (shares(theta, v) - Y) / len(Y)
        pull = alpha * (theta - PRETRAINED)
        theta, v = theta - 0.5 / (1 + alpha) * (v * (residual @ X) + pull), v - 0.5 * (residual @ z)
    return theta, v


def main() -> None:
    """Computes, prints and writes."""
    rows, values = [], {}
    for alpha in ALPHAS:
        theta, v = descend(alpha)
        p = shares(theta, v)
        risk = float(np.mean(-np.log(np.where(Y == 1, p, 1 - p))))
        moved = float(np.linalg.norm(theta - PRETRAINED))
        rows.append([f"{alpha:g}", f"{risk:.3f}", f"{moved:.3f}"])
        values |= {f"risk_{alpha:g}": round(risk, 3), f"moved_{alpha:g}": round(moved, 3)}
    write("l2sp", table(["alpha", "target risk", "moved by"], rows), {"values": values})


if __name__ == "__main__":
    main()
