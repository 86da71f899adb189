"""What a run came to, and what a report says of it first: its use, its weakest class, what to do next."""

from dataclasses import dataclass, field

import numpy as np

from tlhelpers.app.methods import Candidate
from tlhelpers.data.folder_check import FolderCheck, counted
from tlhelpers.evaluation import calibration, errors, wilson_interval

__all__ = ["Outcome", "Verdict", "judge"]

FAR_BELOW = 0.1  # of the test accuracy below that of validation: more than chance, if the intervals part, too
GOOD, FAIR = 0.9, 0.7  # lower end of the interval of the accuracy
WEAK = 0.85  # accuracy below which a class is worth more pictures
TESTED = 100  # test images: with fewer, the accuracy is a rough figure
SURE_MISTAKE = 0.9
FEW = 30  # pictures of a class


@dataclass(frozen=True)
class Outcome:
    """All that a report shows.

    Attributes:
        check: What was found in the folder.
        class_names: One name a class.
        candidates: The models that were tried.
        chosen: Name of the one that was kept.
        temperature: What its logits are divided by.
        n_val: Number of images that chose: validation images, or all of cross-validation.
        n_tuned: Number of training images that fine-tuning took.
        backbone: Name of the pretrained network.
        image_size: Side of its input, in pixels.
        seed: Of the split and the training.
        date: Day of the run.
        y_test: Labels of the test images, int64 (n,).
        probabilities: What the exported model says of the test images, (n, k), temperature included.
        export: How the exported files were checked, in words.
        sizes: Written file -> bytes.
        seconds: Time of the whole run.
        cross_validated: Whether `y_test` are all images, each named by a model that did not see it.
        folds: Of cross-validation; 0 where validation images chose.
        unsure_below: Probability below which an answer is called unsure.
        how: How it was trained and why so, one sentence each.
    """

    check: FolderCheck
    class_names: tuple[str, ...]
    candidates: tuple[Candidate, ...]
    chosen: str
    temperature: float
    n_val: int
    n_tuned: int
    backbone: str
    image_size: int
    seed: int
    date: str
    y_test: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))
    probabilities: np.ndarray = field(default_factory=lambda: np.zeros((0, 0)))
    export: str = ""
    sizes: dict[str, int] = field(default_factory=dict)
    seconds: float = 0.0
    cross_validated: bool = False
    folds: int = 0
    unsure_below: float = 0.0
    how: tuple[str, ...] = ()

    @property
    def val_accuracy(self) -> float:
        """Accuracy of what was kept on the images that chose it, 0..1."""
        return next(c.val_accuracy for c in self.candidates if c.name == self.chosen)

    @property
    def predicted(self) -> np.ndarray:
        """Predicted labels of the test images, int64 (n,)."""
        return self.probabilities.argmax(axis=1)

    @property
    def hits(self) -> int:
        """Number of test images whose class was named."""
        return int((self.predicted == self.y_test).sum())

    @property
    def accuracy(self) -> float:
        """Accuracy on the test images, 0..1."""
        return self.hits / len(self.y_test)

    @property
    def interval(self) -> tuple[float, float]:
        """95 % interval of the accuracy (Wilson, 1927)."""
        return wilson_interval(self.hits, len(self.y_test))

    def uncalibrated(self) -> np.ndarray:
        """Returns the probabilities (n, k) before temperature scaling."""
        logits = self.temperature * calibration.log_probabilities(self.probabilities)
        return calibration.with_temperature(logits, 1.0)


@dataclass(frozen=True)
class Verdict:
    """The first lines of a report.

    Attributes:
        level: "good", "fair" or "bad".
        headline: One sentence.
        reasons: What speaks against using it, one sentence each.
        weakest: On the class that is named worst; empty where all are named rightly.
        to_do: What to do next, one sentence each.
        shifted: Whether the test images seem to be others than those of training.
    """

    level: str
    headline: str
    reasons: tuple[str, ...]
    weakest: str
    to_do: tuple[str, ...]
    shifted: bool


def judge(o: Outcome) -> Verdict:
    """Returns the verdict on a tested model."""
    n, (low, high) = len(o.y_test), o.interval
    frequent = int(np.bincount(o.y_test).argmax())
    share = float(np.mean(o.y_test == frequent))
    useless = low <= share
    shifted = _shifted(o)
    reasons = []
    if useless:
        reasons.append(
            f"It is not shown to be better than always naming {o.class_names[frequent]}, which would be "
            f"right in {share:.0%} of the {'images' if o.cross_validated else 'test images'}."
        )
    if shifted:
        reasons.append(
            f"On the validation images {o.val_accuracy:.0%} were named rightly, on the test images only "
            f"{o.accuracy:.0%}. So the test images are of another kind (camera, place, time), or their "
            "labels are wrong. Look at the mistakes below."
        )
    if o.check.scenes:
        reasons.append("Many pictures look alike, as from one fixed camera: this holds for that scene alone.")
    reasons += o.check.tells
    if o.check.leaks:
        apart = ~np.isin(o.check.files["test"], o.check.leaks)
        right = f"Without them it is {np.mean((o.predicted == o.y_test)[apart]):.1%}." if apart.any() else ""
        reasons.append(
            f"{counted(len(o.check.leaks), 'test image')} like training images, or belonging together with "
            f"them: the accuracy may be too good. {right or 'There are no others.'}"
        )
    doubtful, copied = shifted or bool(o.check.tells), 2 * len(o.check.leaks) > n
    level = "good" if low >= GOOD and not doubtful else "fair" if low >= FAIR else "bad"
    level = "bad" if useless or copied else level
    about = f"Of 100 new pictures like these, it names about {round(100 * o.accuracy)} rightly"
    about += f" ({round(100 * low)} to {round(100 * high)} are possible)"
    headline = {
        "good": f"Usable. {about}.",
        "fair": f"Usable with care: somebody should check its answers. {about}.",
        "bad": f"Not usable as it is. {about}.",
    }[level]
    if copied:
        headline = "Not shown to be usable: most of the test pictures are like those that it learned from."
    return Verdict(
        level, headline, tuple(reasons), _weakest(o), tuple(_to_do(o, n, shifted, useless)), shifted
    )


def _shifted(o: Outcome) -> bool:
    """Whether the test accuracy lies below that of validation by more than chance explains."""
    if o.cross_validated or "test" not in o.check.shipped or o.val_accuracy - o.accuracy < FAR_BELOW:
        return False
    val_low, _ = wilson_interval(round(o.val_accuracy * o.n_val), o.n_val)
    return val_low > o.interval[1]


def _weakest(o: Outcome) -> str:
    tested = [row for row in errors.by_class(o.y_test, o.predicted, o.class_names) if row.count]
    worst = min(tested, key=lambda row: (row.accuracy, -row.count))
    if worst.accuracy == 1:
        return ""
    label = o.class_names.index(worst.name)
    wrong = o.predicted[(o.y_test == label) & (o.predicted != label)]
    taken = o.class_names[int(np.bincount(wrong).argmax())]
    return (
        f"{worst.name}: {round(worst.accuracy * worst.count)} of its {counted(worst.count, 'picture')} named "
        f"rightly, most often taken for {taken}."
    )


def _owned(o: Outcome) -> dict[str, int]:
    """Pictures of each class that the reader has, without those of a test folder."""
    parts = [s for s in o.check.counts if s != "test" or "test" not in o.check.shipped]
    return {c: sum(o.check.counts[s][c] for s in parts) for c in o.class_names}


def _to_do(o: Outcome, n: int, shifted: bool, useless: bool) -> list[str]:
    found, had = [], _owned(o)
    if useless:
        found.append("Look at pictures of each class: are the labels right, and could you tell them apart?")
    rows = errors.by_class(o.y_test, o.predicted, o.class_names)
    weak = sorted((r for r in rows if r.count and r.accuracy < WEAK), key=lambda r: r.accuracy)[:3]
    if weak:
        listed = ", ".join(f"{r.name} (it has {had[r.name]:,})" for r in weak)
        found.append(f"Take more training pictures of {listed}.")
    elif min(had.values()) < FEW:
        fewest = min(had, key=had.__getitem__)
        found.append(f"Take more pictures, of {fewest} first: it has {had[fewest]:,}, and {FEW} are few.")
    sure = errors.confident_mistakes(o.y_test, o.probabilities)
    doubtful = [i for i in sure.tolist() if o.probabilities[i].max() >= SURE_MISTAKE][:5]
    if doubtful:
        files = ", ".join(o.check.files["test"][i] for i in doubtful)
        found.append(f"Look at these labels, which the model contradicts with much confidence: {files}.")
    if shifted:
        found.append("Put pictures of the kind that the test holds among the training pictures, too.")
    if n < TESTED and not o.cross_validated:
        found.append(f"Test with more pictures: {n} are few; one mistake more costs {100 / n:.1f} of 100.")
    if not found:
        found.append("Try it on pictures from elsewhere (another day, camera, place) before you rely on it.")
    return found
