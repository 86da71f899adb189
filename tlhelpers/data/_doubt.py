"""Folders that lie where classes lie, and may be none: patients, days, parts and versions of a set."""

from __future__ import annotations

import re
import unicodedata

from tlhelpers.data._errors import DataError
from tlhelpers.data._layout import in_python, some
from tlhelpers.data._split_words import FILLERS, certain, same_name
from tlhelpers.data._tree import MASKS, Folder

__all__ = ["copies_of_the_set", "level_of", "refuse_doubtful", "sets_inside"]

_PART_WORDS = """part parts batch chunk fold split subset shard patient participant proband subject case visit
    session day week month year video clip film movie sequence seq camera cam kamera folder ordner page run
    trial roll frame teil tag woche paciente dia semana 患者 病人 视频 第"""
#: What numbers people give to parts of a set: patient_01, fold3, 100APPLE, 2023-01-05.
_PART = re.compile(
    rf"((new |neuer )?({'|'.join(_PART_WORDS.split())})s?[\W_]*(nr|no|id)?[\W_]*\d+\w?|\d{{3}}[a-z_]{{5}}"
    r"|(19|20)\d\d([-_. ]?[01]\d([-_. ]?[0-3]\d)?)?|[0-3]?\d[-_. ][01]?\d[-_. ](19|20)\d\d)"
)


def _is_part(name: str) -> bool:
    return _PART.fullmatch(unicodedata.normalize("NFKC", name).casefold().strip()) is not None


def _says_something(name: str) -> bool:
    """Whether a folder's name may be that of a class: not a number, a part, or a word such as images."""
    words = re.findall(r"[^\W\d_]+", name.casefold())
    telling = [w for w in words if w not in FILLERS and w not in MASKS and (len(w) > 2 or not w.isascii())]
    return (bool(telling) or name.isalpha()) and not _is_part(name)


def level_of(here: Folder) -> int:
    """How many levels down the folders inside of a folder lie, as --classes-from counts."""
    return here.path.count("/") + 1 + bool(here.path)


def _inside(folder: Folder) -> set[str]:
    return {name.casefold() for name in folder.children} - MASKS


def sets_inside(here: Folder) -> list[Folder]:
    """The folders that hold a whole set: train/ with classes inside."""

    def is_set(folder: Folder) -> bool:
        inside = folder.unwrapped().children
        return any(
            kind == "train" and len(inside[name].classes().children) > 1
            for name, kind in certain(inside).items()
        )

    return [folder for folder in here.children.values() if is_set(folder)]


def copies_of_the_set(here: Folder) -> list[Folder]:
    """The folders beside classes that hold folders called like these, and no others."""
    names = {same_name(name) for name, folder in here.children.items() if not folder.children}
    return [
        folder
        for folder in here.children.values()
        if len(folder.children) > 1 and {same_name(name) for name in folder.children} <= names
    ]


def refuse_doubtful(here: Folder, where: str) -> None:
    """Refuses folders of which nobody can tell by their names that they are classes.

    Raises:
        DataError: It says what was seen, and the flags that decide.
    """
    level = level_of(here)
    masks = {n for n in here.children if n.casefold() in MASKS}
    if masks and all(n.casefold() in FILLERS for n in {*here.children} - masks):
        raise DataError(
            f"{where}: {some(f'{n}/' for n in here.children)} are pictures and masks of them, as for "
            "segmentation, and no classes. This names one class a picture: expected <class>/<image>."
        )
    mean = f"They are the classes: --classes-from {level}{in_python('classes_from', level)}"
    inner = f"The folders inside are the classes: --classes-from {level + 1}."
    names = sorted(here.children)
    deep = sorted(n for n in names if len(_inside(here.children[n])) > 1)
    seen = [name for n in names for name in _inside(here.children[n])]
    shared = sorted({name for name in seen if seen.count(name) > 1})
    having = [n for n in names if _inside(here.children[n]) & set(shared)]
    if len(shared) > 1 and (len(deep) > 1 or all(map(_is_part, names))):
        first, second = (here.children[n].path for n in (deep + [n for n in having if n not in deep])[:2])
        raise DataError(
            f"{where}: {first}/ and {second}/ hold folders of the same names ({some(shared)}), so they may "
            f"be parts of one set, or classes. Say which. Parts: --train {first} --test {second}. Only one "
            f"of them: --train {first}. All of them together, classes by the inner folders: "
            f"--classes-from {level + 1}. {mean}"
        )
    if len(names) > 1 and all(map(_is_part, names)):
        raise DataError(
            f"{where}: {some(names)} are called like days, patients or parts of a set, and not like classes. "
            f"Say what is right. {inner + ' ' if seen else ''}A CSV file names them: --labels FILE. {mean}"
        )
    doubtful = [n for n in deep if sum(map(_says_something, _inside(here.children[n]))) > 1]
    if doubtful and len(names) > 1:
        one = here.children[doubtful[0]]
        other = f" All of them lie in {one.path}/: --train {one.path}." if len(doubtful) == 1 else ""
        raise DataError(
            f"{where}: in {some(f'{here.children[n].path}/' for n in doubtful)} lie folders "
            f"({some(_inside(one), 3)}), so that the classes may be these or those above. Say which. "
            f"{inner}{other} {mean}"
        )
