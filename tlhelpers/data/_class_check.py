"""Whether the classes of all splits can be used; all that is wrong is said at once."""

from __future__ import annotations

from tlhelpers.data._errors import DataError, NoClassFoldersError
from tlhelpers.data._layout import Plan, some
from tlhelpers.data._split_words import same_name

__all__ = ["settled"]


def settled(plan: Plan, where: str, skip_small: bool, hint: str = "") -> tuple[str, ...]:
    """Returns the class names in the order of their labels, and leaves only these in the plan.

    Args:
        plan: Splits and classes; changed in place.
        where: What messages call the data set.
        skip_small: Whether classes that cannot be used are left out, instead of an error.
        hint: What else to say where it is an error.

    Raises:
        DataError: They cannot be used. The message names every problem.
    """
    by_class = plan.by_class
    problems = _merged(plan)
    train = by_class.get("train", {})
    if not train and not problems:
        problems.append("no class folders with images. Expected <class>/<image> or train/<class>/<image>.")
    unfit: dict[str, str] = {}
    if empty := [c for c, files in train.items() if not files]:
        unfit |= dict.fromkeys(empty, "it has no image that can be used")
        problems.append(
            f"no image in the class folder {some(empty)} of train. Put images in it or remove it."
        )
    for split, classes in by_class.items():
        there = {c for c, files in classes.items() if files}
        if split == "train" or there == set(train) - set(empty):
            continue
        only, extra = set(train) - set(empty) - there, there - set(train)
        unfit |= dict.fromkeys(only, f"it is missing in {split}") | dict.fromkeys(
            extra, f"it is only in {split}"
        )
        problems.append(
            f"train and {split} hold different classes. Only in train: {some(only)}; only in {split}: "
            f"{some(extra)}. Each class needs a folder of the same name in both."
        )
    needed = 1 + ("val" not in by_class) + ("test" not in by_class)
    few = {c: len(files) for c, files in train.items() if 0 < len(files) < needed}
    if few:
        unfit |= {c: f"it has too few images ({n})" for c, n in few.items()}
        uses = [use for s, use in (("val", "validation"), ("test", "test")) if s not in by_class]
        problems.append(
            f"too few images in the class {some(f'{c} ({n})' for c, n in few.items())}. {needed} are the "
            f"least: one each for {' and '.join(['training', *uses])}. Add images or remove the folder."
        )
    left = [c for c in train if c not in unfit]
    if len(train) < 2 and train:
        problems = [p for p in problems if not p.startswith("too few")] + [
            f"only one class folder ({some(train)}). A classifier needs at least two: one folder a class, "
            "with the images of the class inside."
        ]
    if skip_small and len(left) > 1 and unfit and not any(p.startswith(_SAME) for p in problems):
        for c, why in unfit.items():
            plan.notes.append(f"The class {c} is left out: {why}.")
        plan.by_class = {
            split: {c: files for c, files in classes.items() if c not in unfit}
            for split, classes in by_class.items()
        }
    elif problems:
        if unfit and len(left) > 1 and not skip_small:
            what = "that class" if len(unfit) == 1 else f"these {len(unfit)} classes"
            hint += (
                f" To go on without {what}: --skip-small (in Python: layout=data.Layout(skip_small=True))."
            )
        kind = NoClassFoldersError if len(train) < 2 else DataError
        raise kind(_listed(where, problems) + hint)
    numeric = all(name.isdecimal() for name in left)
    return tuple(sorted(left, key=lambda name: (int(name), name) if numeric else (0, name)))


_SAME = "folders of one set whose names differ only in spelling"


def _listed(where: str, problems: list[str]) -> str:
    if len(problems) == 1:
        return f"{where}: {problems[0]}"
    return "\n".join([f"{where}: {len(problems)} problems.", *(f"  - {p}" for p in problems)])


def _merged(plan: Plan) -> list[str]:
    """Gives classes of other splits the names of training; returns what is wrong with spellings."""
    problems = []
    for split, classes in plan.by_class.items():
        by_key: dict[str, list[str]] = {}
        for c, files in classes.items():
            if files:
                by_key.setdefault(same_name(c), []).append(c)
        twice = [" and ".join(sorted(names)) for names in by_key.values() if len(names) > 1]
        if twice:
            problems.append(f"{_SAME}: {some(twice)} in {split}. Rename them, or put them together.")
    if problems:
        return problems
    names = {same_name(c): c for c in plan.by_class.get("train", {})}
    renamed: list[str] = []
    for classes in plan.by_class.values():
        for c in list(classes):
            known = names.get(same_name(c), c)
            if known != c:
                renamed.append(f"{c} as {known}")
                classes[known] = classes.pop(c)
    if renamed:
        plan.notes.append(f"Spelled in two ways, and read as one class: {some(renamed)}.")
    return problems
