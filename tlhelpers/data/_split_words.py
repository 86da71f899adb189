"""Folder names that mean a split, in the spellings that people use: Training, seg_train, val2017."""

from __future__ import annotations

import functools
import re
import unicodedata
from collections.abc import Iterable

__all__ = ["FILLERS", "FLAT_KINDS", "certain", "kind_of", "same_name"]


def _folded(text: str) -> str:
    """Small letters without the accents of Latin ones."""
    apart = unicodedata.normalize("NFKD", text).casefold()
    return unicodedata.normalize("NFC", re.sub("[\u0300-\u036f]", "", apart))


_WORDS = {
    "train": """train training trains trained trn trainval trainings entrenamiento entrainement apprentissage
        treino treinamento addestramento trainen treningowy treningowe egitim обучение обучающая тренировка
        тренировочная 训练 訓練 学習 학습 훈련""",
    "val": """val vals valid validate validating validation vali dev devel eval evaluate evaluation
        validierung validierungs validacion validacao validazione валидация валидационная 验证 驗證 検証
        검증""",
    "test": """test tests testing tst holdout heldout prueba pruebas teste essai essais prova testen testowy
        testowe тест тестовая 测试 測試 テスト 테스트""",
    "predict": """pred preds predict predicting prediction predictions inference unlabeled unlabelled unlabel
        nolabel nolabels unsorted unsortiert todo tosort submission 预测""",
}
_KINDS = {_folded(word): kind for kind, words in _WORDS.items() for word in words.split()}
#: Words that say nothing about which split a folder is.
_FILLER_WORDS = """set sets data dataset datasets image images img imgs picture pictures pic pics photo photos
    split splits folder folders dir directory file files final cropped resized new single part subset the of
    for my to labeled labelled orig original raw jpg jpeg png full all sample samples clean"""
FILLERS = frozenset(_FILLER_WORDS.split())
#: Images of these may have no labels: then the finished model names their classes.
FLAT_KINDS = ("test", "predict")
_GLUED = re.compile(
    "(data|dataset|images?|imgs?|seg|my)?"
    f"({'|'.join(sorted(_KINDS, key=len, reverse=True))})"
    "(sets?|data|dataset|images?|imgs?|pics?|pictures|photos|folder|dir|split|daten(satz)?|bilder|数据集?"
    f"|集合?|图[片像]|用|{_folded('データ')}(セット)?|画像|{_folded('데이터')}(셋|세트)?)?"
)


@functools.cache
def kind_of(name: str) -> tuple[str, frozenset[str]] | None:
    """Which split a folder's name speaks of: "train", "val", "test", "predict".

    Args:
        name: Of one folder, without a path.

    Returns:
        The split, and the words of the name that have nothing to do with it; None for any other name.
    """
    text = _folded(re.sub(r"(?<=[a-z])(?=[A-Z])", " ", unicodedata.normalize("NFKC", name)))
    text = re.sub(r"\b(hold|held)[\W_]*out\b", "holdout", text)
    text = re.sub(r"\bun[\W_]*label", "unlabel", text)
    kinds: set[str] = set()
    rest = set()
    for word in re.findall(r"[^\W\d_]+", text):
        glued = _GLUED.fullmatch(word)
        if word in _KINDS or glued:
            kinds.add(_KINDS[word] if word in _KINDS else _KINDS[glued[2]])  # type: ignore[index]
        elif word not in FILLERS:
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
    """A class name without what people spell in two ways: case, blanks, hyphens, form of accents, copies."""
    plain = re.sub(r"[\s_-]+", " ", unicodedata.normalize("NFC", name)).strip().casefold()
    return re.sub(r" \(?(copy|kopie|copia|copie)\)?( \(?\d+\)?)?$", "", plain) or name
