"""Which files belong to which split and class: the rules for image folders, on names alone."""

from __future__ import annotations

from collections.abc import Iterable

from tlhelpers.data._errors import DataError

__all__ = ["EXTENSIONS", "check_classes", "group", "visible", "wrapping_folder"]

EXTENSIONS = (".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")
SPLIT_NAMES = {"train": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}


def visible(name: str) -> bool:
    """Not hidden, and not among the notes that macOS adds to zip files."""
    return not name.startswith((".", "__MACOSX")) and "/." not in name


def wrapping_folder(folders: list[str]) -> str:
    """The one folder that zip tools like to put around it all, with a slash; "" where there is none."""
    top = {name.split("/")[0] for name in folders}
    if len(top) != 1:
        return ""
    (only,) = top
    return f"{only}/" if any(name.lower() == f"{only}/train".lower() for name in folders) else ""


def group(images: list[str], folders: list[str], prefix: str, where: str) -> dict[str, dict[str, list[str]]]:
    """{split: {class: [file, ...]}}. Class folders without an image are there, with an empty list."""
    inside = [name.removeprefix(prefix) for name in folders if name.startswith(prefix)]
    top = sorted({name.split("/")[0] for name in inside})
    splits = [name for name in top if name.lower() in SPLIT_NAMES]
    kinds = [SPLIT_NAMES[name.lower()] for name in splits]
    if len(set(kinds)) < len(kinds):
        raise DataError(f"{where}: {', '.join(splits)} mean the same split. Keep one of them.")
    if splits and "train" not in kinds:
        raise DataError(f"{where}: there is {splits[0]}/ but no train/. Add train/<class>/ with images.")
    if not top:
        raise DataError(f"{where}: no class folders. Expected <class>/<image> or train/<class>/<image>.")
    grouped: dict[str, dict[str, list[str]]] = {}
    depth = 1 if splits else 0
    split_of = dict(zip(splits, kinds, strict=True))
    for name in inside:
        parts = name.split("/")
        if len(parts) == depth + 1 and (not splits or parts[0] in split_of):
            grouped.setdefault(split_of.get(parts[0], "train") if splits else "train", {})[parts[depth]] = []
    for split in kinds:
        if split not in grouped:
            raise DataError(f"{where}: {splits[kinds.index(split)]}/ holds no class folders.")
    for name in images:
        parts = name.removeprefix(prefix).split("/")
        if not name.startswith(prefix) or len(parts) < depth + 2 or (splits and parts[0] not in split_of):
            continue
        grouped[split_of[parts[0]] if splits else "train"][parts[depth]].append(name)
    return grouped


def check_classes(by_class: dict[str, dict[str, list[str]]], where: str) -> tuple[str, ...]:
    """The class names in the order of their labels, once all splits are found to be usable."""
    train = by_class["train"]
    for split, classes in by_class.items():
        empty = sorted(name for name, files in classes.items() if not files)
        if empty:
            raise DataError(
                f"{where}: no image in the class folder {_some(empty)} of {split}. Put images in it or "
                f"remove it. Images end in {', '.join(EXTENSIONS)}."
            )
        if set(classes) != set(train):
            raise DataError(
                f"{where}: train and {split} hold different classes. Only in train: "
                f"{_some(set(train) - set(classes))}; only in {split}: {_some(set(classes) - set(train))}. "
                "Each class needs a folder of the same name in both."
            )
    if len(train) < 2:
        raise DataError(
            f"{where}: only one class folder ({_some(train)}). A classifier needs at least two: "
            "one folder a class, with the images of the class inside."
        )
    needed = 1 + ("val" not in by_class) + ("test" not in by_class)
    few = sorted(name for name, files in train.items() if len(files) < needed)
    if few:
        uses = " and ".join(
            ["training"] + [use for s, use in (("val", "validation"), ("test", "test")) if s not in by_class]
        )
        raise DataError(
            f"{where}: too few images in the class {few[0]} ({len(train[few[0]])}). {needed} are the least: "
            f"one each for {uses}. Add images or remove the folder."
        )
    numeric = all(name.isdecimal() for name in train)
    return tuple(sorted(train, key=lambda name: (int(name), name) if numeric else (0, name)))


def _some(names: Iterable[str]) -> str:
    ordered = sorted(names)
    return (", ".join(ordered[:5]) + (f" and {len(ordered) - 5} more" if len(ordered) > 5 else "")) or "none"
