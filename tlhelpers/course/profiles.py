"""Profiles: one notebook, three sizes.

The same cells run in each profile; only the numbers below change.
"""

import os
from dataclasses import dataclass


@dataclass(frozen=True)
class Profile:
    """How large a run is. Returned by `get`.

    Attributes:
        name: ``"smoke"``, ``"laptop"`` or ``"gpu"``.
        dataset: Name of the target data set, as `tlhelpers.data.load` takes it.
        n_train: Training images of the main comparison; ``None`` means all there are.
        n_val: Validation images.
        n_test: Test images; ``None`` means all there are.
        image_size: Side in pixels at which the backbone sees an image.
        epochs: Epochs of fine-tuning.
        learning_rate: Highest rate of fine-tuning. ``smoke`` takes so few steps that a usual rate would only
            do damage.
        seeds: Seeds of a claim. A seed draws the split, the initial weights and the order of the batches.
        backbone: Name of the pretrained network, as `tlhelpers.backbones.load` takes it.
    """

    name: str
    dataset: str
    n_train: int | None
    n_val: int
    n_test: int | None
    image_size: int
    epochs: int
    learning_rate: float
    seeds: tuple[int, ...]
    backbone: str = "efficientnet_lite0"


# The sizes of `smoke` are multiples of the batches of 32 and 64: a shorter last batch would have TensorFlow
# build each graph a second time, which takes longer there than the training.
PROFILES = {
    "smoke": Profile("smoke", "digits", 320, 128, 320, 48, 1, 1e-4, (0,)),
    "laptop": Profile("laptop", "cifar10", 5000, 1000, 2000, 96, 3, 1e-3, (0, 1, 2)),
    "gpu": Profile("gpu", "cifar10", None, 5000, None, 160, 10, 1e-3, (0, 1, 2)),
}


def get(name: str | None = None) -> Profile:
    """Returns a profile.

    Args:
        name: ``"smoke"``, ``"laptop"`` or ``"gpu"``. ``None`` takes the environment variable ``TL_PROFILE``,
            and ``"laptop"`` where that is not set.

    Raises:
        ValueError: If there is no such profile.

    Example:
        >>> from tlhelpers.course import profiles
        >>> profiles.get("smoke").dataset
        'digits'
    """
    wanted = name or os.environ.get("TL_PROFILE") or "laptop"
    if wanted not in PROFILES:
        raise ValueError(f"There is no profile {wanted!r}. Choose one of {', '.join(PROFILES)}.")
    return PROFILES[wanted]
