"""Folder names that mean a split, in the spellings that people use: Training, seg_train, val2017."""

from __future__ import annotations

import functools
import re
import unicodedata
from collections.abc import Iterable

__all__ = ["FLAT_KINDS", "certain", "kind_of", "same_name"]

_WORDS = {
    "train": """train training trains trained trn trainval trainingsdaten trainingsbilder entrenamiento
        entrainement apprentissage treino treinamento addestramento 训练 训练集 訓練""",
    "val": """val vals valid validate validating validation vali dev devel eval evaluate evaluation
        validierung validacion validação validazione 验证 验证集 検証""",
    "test": """test tests testing tst holdout heldout testdaten testbilder prueba pruebas teste
        测试 测试集 テスト""",
    "predict": """pred preds predict predicting prediction predictions inference unlabeled unlabelled unlabel
        nolabel nolabels submission 预测""",
}
_KINDS = {word: kind for kind, words in _WORDS.items() for word in words.split()}
#: Words that say nothing about which split a folder is.
_FILLER_WORDS = """set sets data dataset datasets image images img imgs picture pictures pic pics photo photos
    split splits folder folders dir directory file files final cropped resized new single part subset the of
    for my to labeled labelled orig original raw jpg jpeg png full all sample samples clean"""
_FILLERS = frozenset(_FILLER_WORDS.split())
#: Images of these may have no labels: then the finished model names their classes.
FLAT_KINDS = ("test", "predict")
_GLUED = re.compile(
    "(data|dataset|images?|imgs?|seg|my)?"
    f"({'|'.join(sorted((w for w in _KINDS if w.isascii()), key=len, reverse=True))})"
    "(sets?|data|dataset|images?|imgs?|pics?|pictures|photos|folder|dir|split)?"
)


@functools.cache
def kind_of(name: str) -> tuple[str, frozenset[str]] | None:
    """Which split a folder's name speaks of: "train", "val", "test", "predict".

    Args:
        name: Of one folder, without a path.

    Returns:
        The split, and the words of the name that have nothing to do with it; None for any other name.
    """
    text = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", unicodedata.normalize("NFKC", name)).casefold()
    text = re.sub(r"\b(hold|held)[\W_]*out\b", "holdout", text)
    text = re.sub(r"\bun[\W_]*label", "unlabel", text)
    kinds: set[str] = set()
    rest = set()
    for word in re.findall(r"[^\W\d_]+", text):
        glued = _GLUED.fullmatch(word)
        if word in _KINDS or glued:
            kinds.add(_KINDS[word] if word in _KINDS else _KINDS[glued[2]])  # type: ignore[index]
        elif word not in _FILLERS:
            rest.add(word)
    if kinds == {"train", "val"}:  # as in trainval
        kinds = {"train"}
    return (kinds.pop(), frozenset(rest)) if len(kinds) == 1 else None


def certain(names: Iterable[str]) -> dict[str, str]:
    """Neighbouring folders whose names are those of splits -> the split.

    A name with other words in it, such as seg_train, counts where a neighbour of another split has the same
    words, such as seg_test: a class "test tube" is no split.
    """
    found = {name: kind for name in names if (kind := kind_of(name)) is not None}
    return {
        name: kind
        for name, (kind, rest) in found.items()
        if not rest or any(other[1] == rest and other[0] != kind for other in found.values())
    }


def same_name(name: str) -> str:
    """A class name without what people spell in two ways: case, blanks, hyphens, form of accents."""
    return re.sub(r"[\s_-]+", " ", unicodedata.normalize("NFC", name)).strip().casefold() or name
