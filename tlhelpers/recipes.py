"""How to fine-tune: a recipe as plain data, and learning rates that differ by layer."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import keras

from tlhelpers import checks, layers

OPTIMIZERS = ("adam", "sgd")


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """All settings of a fine-tuning run; `tlhelpers.finetune.fine_tune` follows it.

    Print two to see in what they differ; change one with `dataclasses.replace`. A layer is named by the
    beginning of its name: ``"block1"`` stands for ``block1_conv`` but not for ``block10_conv``, and of two
    beginnings that fit, the longer one counts.

    Attributes:
        epochs: Passes over the training images.
        learning_rate: Highest rate of the schedule.
        batch_size: Images in one step.
        warmup: Share of all steps in which the rate grows to its highest, 0..1.
        cosine: Whether the rate then falls to zero along a cosine; else it stays.
        optimizer: ``"adam"``, or ``"sgd"``, which has a momentum of 0.9.
        rates: Beginnings of layer names -> factor on the rate; 1 for all others, 0 keeps a layer as it is.
        opens: Beginnings of layer names -> epoch, counted from 0, before which a layer keeps its weights:
            gradual unfreezing, after Howard and Ruder (2018).
        weight_decay: Share of each kernel taken off in a step, times the rate (Loshchilov and Hutter, 2019).
        l2_sp: Strength of the pull of all layers but the head towards their starting weights (Li et al.,
            2018), see `tlhelpers.losses.l2_sp`.
        average: Momentum of a moving average of the weights, which replaces them in the end; 0 for none.

    Example:
        >>> from dataclasses import replace
        >>> from tlhelpers.recipes import Recipe
        >>> recipe = Recipe(epochs=5)
        >>> replace(recipe, optimizer="sgd").epochs
        5
    """

    epochs: int = 3
    learning_rate: float = 1e-3
    batch_size: int = 32
    warmup: float = 0.1
    cosine: bool = True
    optimizer: str = "adam"
    rates: Mapping[str, float] = field(default_factory=dict)
    opens: Mapping[str, int] = field(default_factory=dict)
    weight_decay: float = 0.0
    l2_sp: float = 0.0
    average: float = 0.0

    def __post_init__(self) -> None:
        if self.optimizer not in OPTIMIZERS:
            raise ValueError(f"optimizer must be one of {', '.join(OPTIMIZERS)}, not {self.optimizer!r}.")
        for name in ("epochs", "batch_size"):
            checks.whole(getattr(self, name), name)
        checks.number(self.learning_rate, "learning_rate", above=True)
        checks.number(self.warmup, "warmup", 0, 1)
        checks.number(self.average, "average", 0, 1, below=True)
        _check_tables(self.rates, self.opens, weight_decay=self.weight_decay, l2_sp=self.l2_sp)


def epochs_for(n_train: int) -> int:
    """Returns how often to look at so many training images: more often where they are few.

    Three times at 5,000 images and more; below, so often that the steps fall with the power 0.4 of the
    images. A rule of this course, not tuned for any method.

    Example:
        >>> from tlhelpers import recipes
        >>> recipes.epochs_for(500), recipes.epochs_for(5000)
        (12, 3)
    """
    return max(3, round(3 * (5000 / checks.whole(n_train, "n_train")) ** 0.6))


def schedule(recipe: Recipe, steps: int) -> keras.optimizers.schedules.LearningRateSchedule | float:
    """Returns the learning rate over a run of so many steps: a line up, then a cosine or a constant.

    Example:
        >>> from tlhelpers import recipes
        >>> rate = recipes.schedule(recipes.Recipe(learning_rate=0.01, warmup=0.1), steps=100)
        >>> round(float(rate(10)), 4), round(float(rate(100)), 4)
        (0.01, 0.0)
    """
    warmup_steps = round(recipe.warmup * checks.whole(steps, "steps"))
    if recipe.warmup:
        warmup_steps = max(1, warmup_steps)
    if not warmup_steps and not recipe.cosine:
        return recipe.learning_rate
    return keras.optimizers.schedules.CosineDecay(
        # Zero would make the first step do nothing.
        recipe.learning_rate / (warmup_steps + 1) if warmup_steps else recipe.learning_rate,
        max(1, steps - warmup_steps),
        alpha=0.0 if recipe.cosine else 1.0,
        warmup_target=recipe.learning_rate if warmup_steps else None,
        warmup_steps=warmup_steps,
    )


def optimizer(recipe: Recipe, model: keras.Model, steps_per_epoch: int) -> keras.optimizers.Optimizer:
    """Builds the optimizer of a recipe for the layers of a model that are trainable now.

    Example:
        >>> from tlhelpers import finetune, recipes
        >>> model = finetune.small_cnn(8, 10)
        >>> recipes.optimizer(recipes.Recipe(optimizer="sgd"), model, steps_per_epoch=10).momentum
        0.9
    """
    averaging = {"use_ema": True, "ema_momentum": recipe.average} if recipe.average else {}
    rate = schedule(recipe, recipe.epochs * steps_per_epoch)
    if recipe.optimizer == "sgd":
        found = keras.optimizers.SGD(rate, momentum=0.9, **averaging)
    else:
        found = keras.optimizers.Adam(rate, **averaging)
    if recipe.rates or recipe.opens or recipe.weight_decay:
        opens = {name: epoch * steps_per_epoch for name, epoch in recipe.opens.items()}
        set_layer_rates(found, model, recipe.rates, opens, recipe.weight_decay)
    return found


def set_layer_rates(
    optimizer: keras.optimizers.Optimizer,
    model: keras.Model,
    rates: Mapping[str, float],
    opens: Mapping[str, int] | None = None,
    weight_decay: float = 0.0,
) -> None:
    """Gives the layers of a model learning rates of their own, with any Keras optimizer, on every backend.

    Scaling the gradients would not do: Adam divides each by its own size, so that a factor cancels. Here the
    optimizer's update runs once for each group of layers, with the rate of the group.

    Args:
        optimizer: A new optimizer; give it to ``model.compile`` afterwards.
        model: The model, with ``trainable`` set: layers that are frozen now stay frozen.
        rates: Beginnings of layer names -> factor on the optimizer's rate, 0 or more.
        opens: Beginnings of layer names -> step before which their weights stay exactly as they are.
        weight_decay: Decoupled decay of the kernels, times the rate of the layer. The optimizer's own, as
            AdamW has it, would ignore these rates, and must be 0 or ``None``.

    Raises:
        ValueError: If a beginning fits no layer, a number is negative, or the optimizer decays itself.

    Example:
        >>> import keras
        >>> from tlhelpers import recipes
        >>> layers = [keras.layers.Dense(4, name="hidden"), keras.layers.Dense(2, name="head")]
        >>> model = keras.Sequential([keras.Input((8,)), *layers])
        >>> optimizer = keras.optimizers.Adam(1e-3)
        >>> recipes.set_layer_rates(optimizer, model, {"hidden": 0.1})
        >>> model.compile(optimizer, "mse")
    """
    if getattr(optimizer, "weight_decay", None):
        raise ValueError(
            f"{type(optimizer).__name__} decays weights at one rate for all layers. "
            "Build it without weight_decay, and give weight_decay to set_layer_rates."
        )
    opens = opens or {}
    _check_tables(rates, opens, weight_decay=weight_decay)
    parts = list(layers.leaves(model))
    for name, table in (("rates", rates), ("opens", opens)):
        if table:
            layers.beginnings(table, name, parts)
    group = {
        optimizer._var_key(variable): (_of(rates, part.name, 1.0), _of(opens, part.name, 0))
        for part in parts
        for variable in part.trainable_weights
    }
    plain_step: Callable[..., Any] = optimizer._backend_update_step

    def step(grads: list, variables: list, learning_rate: Any) -> None:
        members: dict[tuple[float, int], list[tuple]] = {}
        for pair in zip(grads, variables, strict=True):
            members.setdefault(group.get(optimizer._var_key(pair[1]), (1.0, 0)), []).append(pair)
        for (factor, first_step), pairs in members.items():
            rate = learning_rate * factor
            if first_step:
                is_open = keras.ops.cast(optimizer.iterations >= first_step, keras.backend.floatx())
                rate = rate * is_open
            for _, variable in pairs:
                if weight_decay and len(variable.shape) > 1:  # kernels: not biases, not normalisation
                    variable.assign(variable * (1 - keras.ops.cast(weight_decay * rate, variable.dtype)))
            plain_step([grad for grad, _ in pairs], [variable for _, variable in pairs], rate)

    optimizer._backend_update_step = step
    optimizer.last_opening = max(opens.values(), default=0)  # the auditor waits for it


def discriminative_rates(blocks: tuple[str, ...], factor: float) -> dict[str, float]:
    """Returns rates that fall from the top down by one factor a block, for `Recipe.rates`.

    Args:
        blocks: From the input to the output, as `Backbone.blocks` gives them. The last one has the factor 1.
        factor: Rate of a block over the rate of the block above it; Howard and Ruder (2018) took 1 / 2.6.

    Example:
        >>> from tlhelpers.recipes import Recipe, discriminative_rates
        >>> rates = discriminative_rates(("block1", "block2", "block3"), factor=0.5)
        >>> rates
        {'block3': 1.0, 'block2': 0.5, 'block1': 0.25}
        >>> recipe = Recipe(rates=rates)
    """
    if isinstance(blocks, str):
        raise TypeError(f"blocks is the text {blocks!r}, expected several names: ({blocks!r},).")
    checks.number(factor, "factor", above=True)
    return {block: factor**depth for depth, block in enumerate(reversed(blocks))}


def _check_tables(rates: Any, opens: Any, **numbers: float) -> None:
    for name, table in (("rates", rates), ("opens", opens)):
        if not isinstance(table, Mapping):
            raise TypeError(f"{name} is {table!r}, expected beginnings of layers' names with a number each.")
        numbers = {**numbers, **{f"{name}[{key!r}]": value for key, value in table.items()}}
    for name, value in numbers.items():
        checks.number(value, name)


def _of(table: Mapping[str, Any], name: str, otherwise: Any) -> Any:
    fitting = [beginning for beginning in table if layers.begins(name, beginning)]
    return table[max(fitting, key=len)] if fitting else otherwise
