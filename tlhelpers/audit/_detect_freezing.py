"""Detectors of freezing and batch normalization: what of the base trains, and what was meant to."""

from collections.abc import Iterator

from tlhelpers.audit._facts import Facts
from tlhelpers.audit._results import Finding, fault


def stale_compile(facts: Facts) -> Iterator[Finding]:
    """Flags changed after the training function was built."""
    if facts.stale:
        late, lost = len(facts.compiled - facts.trainable), len(facts.trainable - facts.compiled)
        what = f"{late} tensors with frozen flags train, {lost} with trainable flags do not"
        yield fault(
            "stale-compile",
            f"trainable was changed after the last compile and fit: {what}.",
            why="Keras reads the flags when it builds its training function, in the first fit after compile.",
            mend="Compile again, with a new optimizer, after every change of trainable.",
        )


def base_moves(facts: Facts) -> Iterator[Finding]:
    """A base that is meant to be frozen trains."""
    if facts.intent == "frozen" and facts.moving & facts.base_weights and not facts.stale:
        n = len(facts.moving & (facts.base_weights | facts.base_normalisation))
        yield fault(
            "base-moves",
            f"The base is meant to be frozen, but {n} of its tensors move.",
            why="The gradients of a new head distort the pretrained features.",
            mend="Set trainable = False on the base, then compile with a new optimizer.",
            link="notebooks/03_model_based",
        )


def statistics_move(facts: Facts) -> Iterator[Finding]:
    """Batch normalization moves in a base that is otherwise frozen, or was called with training=False."""
    frozen = facts.intent == "frozen" and not facts.moving & facts.base_weights
    pinned = facts.intent == "fine-tuned" and _is_called_with_training_false(facts)
    n = len(facts.moving & facts.base_normalisation)
    if n and not facts.stale and (frozen or pinned):
        meant = "is meant to be frozen" if frozen else "is called with training=False"
        yield fault(
            "statistics-move",
            f"The base {meant}, but {n} tensors of batch normalization move.",
            why="Small batches replace the pretraining's statistics. "
            "fit overrides a training=False in the model.",
            mend="Set trainable = False on each BatchNormalization layer, "
            "as finetune.freeze does, then compile.",
        )


def _is_called_with_training_false(facts: Facts) -> bool:
    calls = [node for nodes in getattr(facts.model, "_nodes_by_depth", {}).values() for node in nodes]
    calls = [node for node in calls if facts.base is not None and node.operation is facts.base.network]
    return any(node.arguments.kwargs.get("training") is False for node in calls)


def base_still(facts: Facts) -> Iterator[Finding]:
    """A base that is meant to be fine-tuned does not move."""
    free = (facts.base_weights | facts.base_normalisation) & facts.trainable
    still = bool(facts.moved) and not facts.moving & free
    if facts.intent == "fine-tuned" and not facts.stale and (still or not free):
        what = "a training step moves none of it" if free else "none of it is trainable"
        yield fault(
            "base-still",
            f"The base is meant to be fine-tuned, but {what}.",
            why="Only the head trains. The loss falls all the same, so nobody sees it.",
            mend="Set trainable = True on the base, freeze single layers if you like, "
            "compile with a new optimizer.",
            link="notebooks/03_model_based",
        )
