"""Which files belong to which split and class: the rules for image folders, on names alone."""

from __future__ import annotations

import re

from tlhelpers.data._by_rule import by_rule
from tlhelpers.data._doubt import copies_of_the_set, level_of, refuse_doubtful, sets_inside
from tlhelpers.data._errors import DataError, NoClassFoldersError
from tlhelpers.data._labels import Labels
from tlhelpers.data._layout import Classes, Layout, Plan, in_python, joined, some
from tlhelpers.data._split_words import FLAT_KINDS, certain, kind_of, same_name
from tlhelpers.data._tree import MASKS, Folder, tree_of

__all__ = ["plan"]


def plan(images: list[str], layout: Layout, where: str, labels: Labels | None = None) -> Plan:
    """Sorts images into splits and classes.

    Args:
        images: Paths inside the data set, with slashes.
        layout: What the reader said about it.
        where: What messages call the data set.
        labels: From a CSV file; then folders do not name classes.

    Raises:
        DataError: The names can be read in more than one way, or in none.
    """
    root = tree_of(images)
    chosen = {
        split: [_found(root, path, f"--{split}", where) for path in getattr(layout, split)]
        for split in ("train", "val", "test")
    }
    if labels is not None or layout.classes_from is not None:
        return by_rule(root, chosen, layout, labels, where)
    if chosen["train"]:
        made = Plan({})
        for split, folders in chosen.items():
            for folder in folders:
                _add(made, split, folder.classes(), where)
        rest = len(images) - sum(len(list(f.all_files())) for fs in chosen.values() for f in fs)
        if rest:
            made.notes.append(f"{rest:,} images outside of the folders that were named are not used.")
        return made
    held = [f for split in ("val", "test") for f in chosen[split]]
    made = _by_folders(root.without(held), where)
    for split in ("val", "test"):
        for folder in chosen[split]:
            _add(made, split, folder.classes(), where)
    return made


def _found(root: Folder, path: str, flag: str, where: str) -> Folder:
    found = root.find(path)
    if len(found) != 1:
        what = "there are several" if found else "there is no such folder with images"
        also = joined(f"{f.path}/" for f in found or root.unwrapped().children.values())
        raise DataError(f"{where}: {flag} {path}: {what}. {'Say which' if found else 'There are'}: {also}.")
    return found[0]


def _by_folders(root: Folder, where: str) -> Plan:
    """Classes from folders, splits from the names of the folders above them."""
    here = root.unwrapped()
    said = [f"Its folders are those in {here.path}/."] if here.path.count("/") else []
    splits = certain(here.children)
    with_classes = {n: k for n, k in splits.items() if here.children[n].classes().children}
    others = {n: f for n, f in here.children.items() if n not in splits}
    if splits and not with_classes:
        combined = _named_in_one(here, splits)
        if combined:
            return combined
        if len(others) == 1 and set(splits.values()) <= set(FLAT_KINDS):  # beside them lies all the rest
            (rest,) = others.values()
            if rest.children:
                made = _by_folders(rest, where)
                made.unlabelled += [f for n in splits for f in here.children[n].all_files()]
                return made
        if set(splits.values()) == {"train"} and len(splits) == 1 and len(others) > 1:
            made = _classes_only(here, where)
            made.notes += [*said, f"{next(iter(splits))} is taken as a class, like its neighbours."]
            return made
        raise NoClassFoldersError(_flat(here, splits, where))
    if not splits:
        made = _one_of_several(here, where) or _inverted(here) or _classes_only(here, where)
        made.notes = [*said, *made.notes]
        return made
    made = _shipped(here, splits, with_classes, where)
    made.notes = [*said, *made.notes]
    return made


def _shipped(here: Folder, splits: dict[str, str], with_classes: dict[str, str], where: str) -> Plan:
    """A level of train/, val/, test/ and what lies beside them."""
    chosen: dict[str, str] = {}
    for kind in ("train", "val", "test"):
        names = sorted(n for n, k in with_classes.items() if k == kind)
        plain = [n for n in names if not (kind_of(n) or ("", {n}))[1]]
        names = plain if len(plain) == 1 else names
        if len(names) > 1:
            raise DataError(
                f"{where}: {', '.join(names)} mean the same split. Keep one of them, or say which: "
                f"--{kind} {names[0]}{in_python(kind, names[0])}"
            )
        if names:
            chosen[kind] = names[0]
    if "train" not in chosen:
        there = next(iter(chosen.values()), next(iter(with_classes)))
        flat = [n for n, k in splits.items() if k == "train"]
        rest = [n for n in here.children if n not in splits]
        what = f"{flat[0]}/ holds no class folders" if flat else f"there is {there}/ but no train/"
        more = f" Or is it {rest[0]}/? Then say --train {rest[0]} --test {there}." if len(rest) == 1 else ""
        raise DataError(f"{where}: {what}. Add train/<class>/ with images.{more}")
    made = Plan({})
    refuse_doubtful(here.children[chosen["train"]].classes(), where)
    for kind, name in chosen.items():
        _add(made, kind, here.children[name].classes(), where)
    left: list[str] = []
    for name, folder in here.children.items():
        if name in chosen.values():
            continue
        files = list(folder.all_files())
        if (splits.get(name) in FLAT_KINDS and name not in with_classes) or splits.get(name) == "predict":
            made.unlabelled += files
        else:
            left.append(f"{folder.path}/ ({len(files):,})")
    left += [f"{len(here.files):,} beside the folders"] if here.files else []
    if left:
        beside = [n for n, f in here.children.items() if n not in chosen.values() and n not in splits]
        known = next(
            (n for n in beside if here.children[n].children.keys() & made.by_class["train"].keys()), ""
        )
        hint = f" If {known}/ is the test: --test {known}." if known and "test" not in chosen else ""
        made.notes.append(f"Images that lie outside of the splits are not used: {some(left)}.{hint}")
    if any(same_name(name) not in ("train", "val", "test") for name in chosen.values()):
        words = {"train": "training", "val": "validation", "test": "test"}
        said = joined(f"{here.children[n].path}/ as {words[kind]} images" for kind, n in chosen.items())
        made.notes.append(f"The folders were read so: {said}.")
    return made


def _one_of_several(here: Folder, where: str) -> Plan | None:
    """The folder that holds train/ and test/, among others that hold pictures; None where there is none."""
    sets = sets_inside(here)
    if len(sets) > 1:
        inside = sets[0].unwrapped().children
        flags = [f"--{kind} {inside[n].path}" for n, kind in certain(inside).items() if kind != "predict"]
        raise DataError(
            f"{where}: {joined(f'{f.path}/' for f in sets)} hold a set each, with splits of its own. Say "
            f"which, such as {' '.join(sorted(flags, reverse=True))} (in Python: layout=data.Layout(...))."
        )
    if not sets:
        return None
    made = _by_folders(sets[0], where)
    rest = [f"{f.path}/" for f in here.children.values() if f is not sets[0]]
    made.notes.append(f"The set is taken from {sets[0].path}/. Images elsewhere are not used: {some(rest)}.")
    return made


def _named_in_one(here: Folder, splits: dict[str, str]) -> Plan | None:
    """Folders such as train_cats, train_dogs, test_cats, test_dogs; None where they are others."""
    made: dict[str, Classes] = {}
    for name, kind in splits.items():
        rest = " ".join(sorted((kind_of(name) or ("", frozenset[str]()))[1]))
        made.setdefault(kind, {}).setdefault(rest, []).extend(here.children[name].all_files())
    same = {tuple(sorted(classes)) for classes in made.values()}
    if len(splits) < len(here.children) or "train" not in made or len(same) > 1 or len(same.pop()) < 2:
        return None
    return Plan(made, notes=[f"Each folder names a split and a class: {some(here.children)}."])


def _inverted(here: Folder) -> Plan | None:
    """Class folders with train/ and test/ inside; None where they are others."""
    made: dict[str, Classes] = {}
    for name, folder in here.children.items():
        splits = certain(folder.children)
        if folder.files or "train" not in splits.values() or len(splits) < len(folder.children):
            return None
        if any(len(inner.classes().children) > 1 for inner in folder.children.values()):
            return None
        for inner, kind in splits.items():
            files = folder.children[inner].all_files()
            made.setdefault("test" if kind == "predict" else kind, {}).setdefault(name, []).extend(files)
    return Plan(made, notes=["Each class folder holds its own splits."]) if len(here.children) > 1 else None


def _classes_only(here: Folder, where: str) -> Plan:
    """One folder a class, no splits."""
    again = copies_of_the_set(here)
    here = here.without(again)
    refuse_doubtful(here, where)
    if here.files and not here.children:
        raise NoClassFoldersError(f"{where}: no class folders. {_expected(here)}")
    made = Plan({})
    _add(made, "train", here, where)
    if again:
        left = joined(f"{f.path}/" for f in again)
        made.notes.append(f"{left} holds folders called like those beside it: once more the set. Not used.")
    if here.files:
        made.notes.append(f"{len(here.files):,} images beside the class folders are not used.")
    deep = [n for n, f in here.children.items() if len({c.casefold() for c in f.children} - MASKS) > 1]
    if deep:
        level = level_of(here) + 1
        made.notes.append(
            f"Folders inside of {some(deep)} are taken together as one class each; if they are the classes, "
            f"say --classes-from {level}{in_python('classes_from', level)}"
        )
    return made


def _add(made: Plan, split: str, here: Folder, where: str) -> None:
    """Puts the class folders of one folder into a plan; what is no class folder of a test set, aside."""
    train = {same_name(c) for c in made.by_class.get("train", ())}
    stranger = len(here.children) == 1 and not train & {*map(same_name, here.children)}
    if split != "train" and stranger and len(train) > 1:
        (only,) = here.children.values()  # such as test/unknown/
        made.unlabelled += only.all_files() if split == "test" else []
        what = "its images have no labels" if split == "test" else "its images are not used"
        made.notes.append(f"{only.path}/ is called like no class of the training images: {what}.")
        return
    classes = made.by_class.setdefault(split, {}) if here.children or split == "train" else {}
    for name, folder in here.children.items():
        masks = [f for n, f in folder.children.items() if n.casefold() in MASKS]
        kept = folder.without(masks) if masks and len(masks) < len(folder.children) else folder
        if kept is not folder:
            made.notes.append(f"{joined(f'{m.path}/' for m in masks)} is not used: these are no photographs.")
        classes.setdefault(name, []).extend(kept.all_files())
    if here.files and not here.children and split == "test":
        made.unlabelled += here.files
    elif here.files and here.path:
        made.notes.append(f"{len(here.files):,} images in {here.path}/ lie in no class folder: not used.")


def _flat(here: Folder, splits: dict[str, str], where: str) -> str:
    listed = ", ".join(f"{name}/" for name in sorted(splits))
    train = [name for name, kind in splits.items() if kind == "train"]
    level = level_of(here)
    first = here.children[train[0]] if train else here.children[next(iter(splits))]
    head = f"{train[0]}/ holds no class folders" if train else f"{listed} may be no class"
    rest = [n for n in here.children if n not in splits]
    if rest and not train:
        held = here.children[next(iter(splits))].path
        return (
            f"{where}: {head} by its name, and lies beside {some(rest)}. Say which. Images to "
            f"be tested or named: --test {held}. A class: --classes-from {level}"
            f"{in_python('classes_from', level)}"
        )
    return (
        f"{where}: {head}. {_expected(first)} If {listed} are your classes, say --classes-from {level}"
        f"{in_python('classes_from', level)}"
    )


def _expected(here: Folder) -> str:
    """What to do where images lie in no class folder: their names may hold the classes."""
    text = "Expected <class>/<image> or train/<class>/<image>."
    found = [
        re.match(r"[^\W\d_]+(?:[_ -][^\W\d_]+)*(?=[_. -]?\(?\d)", f.rpartition("/")[2]) for f in here.files
    ]
    words = [m[0].casefold() for m in found if m]
    kinds = {w for w in words if words.count(w) > 1} if len(words) < 5000 else set(words[:5000])
    if 2 <= len(kinds) <= 200 and len(words) >= 0.9 * len(here.files):
        text += (
            f" Their names begin with {some(kinds)}: if these are the classes, say "
            r"""--classes-from "^(.+?)[_. (-]*\d"."""
        )
    return text
