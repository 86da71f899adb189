"""Contrasts: what sentences of the book say of measured quantities, tested on the stored seeds.

`book/contrasts.toml` gives each contrast a name and a relation, written down before it is measured; at most
eight of a chapter are tested. A sentence that compares carries ``{finds}`name``` before its full stop.

    tuned_wins = "first_tuned > first_scratch"             the sign of a difference
    wins_much = "first_tuned > first_scratch + 10 points"  its size
    in_order = "first_tuned > first_head > first_scratch"  of all neighbours
    no_matter = "lpft = plain"                             no difference was seen; needs eight seeds
    nobody_knows = "lpft ? plain"                          open: the interval contains zero
    here = "each seed: lpft > plain"                       describes these seeds

Quantities are those of the stored measurements, and the claims that notebooks derive from them; they may be
added and subtracted. The first three are decided by a paired t test over the seeds, two-sided at 5 %,
corrected for their number in the chapter (Holm, 1979). "No difference" and "open" are not corrected, since
that would make them easier: they say how small a difference would have been seen, in four cases of five. The
last two have no verdict, and a mark of their own.

Standard library only: the website's small environment uses it.
"""

import itertools
import math
import re
import tomllib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from tlhelpers.intervals import format_value, t_inside, t_quantile
from tools.numbers import stored
from tools.numbers.provenance import ROOT, STORED

FILE = Path("book") / "contrasts.toml"
MOST, LEVEL, POWER = 8, 0.05, 0.8
FEWEST, FEWEST_EQUAL = 3, 8  # seeds
EACH = "each seed: "
ROLE = re.compile(r"\{finds\}`(\w+)`")
PART = re.compile(r"\s*([+-]?)\s*(?:(\d+(?:\.\d+)?)(?:\s*(%|points))?|([a-z_]\w*))\s*")
Quantities = dict[str, dict[str, float]]


@dataclass(frozen=True)
class Contrast:
    """A relation and what the stored seeds say of it.

    Attributes:
        name: Unique in the book.
        chapter: The notebook among whose contrasts it is.
        relation: As it is written down.
        gaps: For each two neighbours, how far the first is ahead of the second: one number a seed.
        unit: Of the gaps.
        p: Of the test, corrected where that is due; ``None`` without a test.
        holds: Whether the seeds bear the relation out.
    """

    name: str
    chapter: str
    relation: str
    gaps: tuple[tuple[float, ...], ...]
    unit: str
    p: float | None
    holds: bool

    @property
    def decided(self) -> bool:
        """Whether it claims more than that these seeds were so, or that nobody knows."""
        return self.p is not None and "?" not in self.relation

    @property
    def gap(self) -> str:
        """The gaps in words: mean and interval, or, where nothing is tested, each seed's."""
        if self.p is not None:
            return "; ".join(stored.with_interval(gap, self.unit) for gap in self.gaps)
        texts = [[format_value(value, self.unit) for value in gap] for gap in self.gaps]
        return "; ".join(", ".join([*(text.split()[0] for text in seeds[:-1]), seeds[-1]]) for seeds in texts)

    @property
    def verdict(self) -> str:
        """What follows, in words."""
        seeds = len(self.gaps[0])
        if self.p is None:
            return f"{'so' if self.holds else 'not so'} in each of {seeds} seeds; no test"
        found = "p\u00a0<\u00a00.001" if self.p < 0.001 else f"p\u00a0=\u00a0{self.p:.2g}"
        if ">" in self.relation:
            return f"{'holds' if self.holds else 'not borne out'}, {found}"
        if "=" in self.relation and seeds < FEWEST_EQUAL:
            return f"“no difference” needs {FEWEST_EQUAL} seeds"
        if not self.holds:
            return f"they differ, {found}"
        seen = format_value(max(map(detectable, self.gaps)), self.unit)
        return f"{'open' if '?' in self.relation else 'no difference'}, {found}; {seen} would have been seen"


def detectable(gap: tuple[float, ...]) -> float:
    """Return the difference that a test of so many seeds finds in four cases of five."""
    n, mean = len(gap), math.fsum(gap) / len(gap)
    spread = math.sqrt(math.fsum((v - mean) ** 2 for v in gap) / (n - 1))
    return (t_quantile(n - 1, 1 - LEVEL) + t_quantile(n - 1, 2 * POWER - 1)) * spread / math.sqrt(n)


def p_value(gap: Iterable[float]) -> float:
    """Return the two-sided p value of a mean of zero."""
    v = list(gap)
    mean = math.fsum(v) / len(v)
    spread = math.sqrt(math.fsum((x - mean) ** 2 for x in v) / (len(v) - 1))
    if spread <= 1e-12 * abs(mean) or not spread:
        return 1.0 if not mean else 0.0
    return 1 - t_inside(mean / spread * math.sqrt(len(v)), len(v) - 1)


def holm(p: dict[str, float]) -> dict[str, float]:
    """Return p values corrected for their number (Holm, 1979): a name to the smallest level that finds it."""
    corrected, least = {}, 0.0
    for done, name in enumerate(sorted(p, key=p.__getitem__)):
        least = max(least, min(1.0, (len(p) - done) * p[name]))
        corrected[name] = least
    return corrected


def term(text: str) -> tuple[dict[str, int], float]:
    """Return a side of a relation: each quantity with its sign, and the numbers added up.

    Raises:
        ValueError: it is no sum of quantities and numbers.
    """
    signs: dict[str, int] = {}
    number, end = 0.0, 0
    while end < len(text) or not end:
        found = PART.match(text, end)
        if not found or bool(end) != bool(found[1]):
            raise ValueError(f"{text!r} is no sum of quantities and numbers.")
        sign, end = -1 if found[1] == "-" else 1, found.end()
        if found[4]:
            signs[found[4]] = signs.get(found[4], 0) + sign
        else:
            number += sign * float(found[2]) / (100 if found[3] else 1)
    return signs, number


def gaps(relation: str, known: Quantities) -> list[tuple[tuple[float, ...], float]]:
    """Return for each two neighbours of a relation their difference per seed, and how large it must be.

    Raises:
        ValueError: the relation cannot be read, or its quantities are not stored for the same three seeds.
    """
    sides = re.split(r"[>=?]", relation.removeprefix(EACH))
    if (
        len(sides) < 2
        or len({">", "=", "?"} & set(relation)) > 1
        or (EACH in relation and ">" not in relation)
    ):
        raise ValueError(f"write a > b, a > b > c, a = b or a ? b, not {relation!r}.")
    found = []
    for (signs, number), (less, margin) in itertools.pairwise(map(term, sides)):
        signs = {name: signs.get(name, 0) - less.get(name, 0) for name in {**signs, **less}}
        if unknown := sorted(set(signs) - set(known)):
            raise ValueError(f"no measurement is stored for {', '.join(unknown)}.")
        seeds = [set(known[name]) for name in signs]
        if not seeds or any(s != seeds[0] for s in seeds) or len(seeds[0]) < FEWEST:
            raise ValueError(f"{relation!r} needs the same {FEWEST} seeds or more for each quantity.")
        ordered = sorted(seeds[0], key=int)
        gap = tuple(math.fsum(k * known[name][seed] for name, k in signs.items()) for seed in ordered)
        found.append((gap, margin - number))
    return found


def family(
    chapter: str, relations: dict[str, str], known: Quantities, units: dict[str, str]
) -> list[Contrast]:
    """Return the contrasts of a chapter, decided.

    Raises:
        ValueError: more than eight are tested, or a relation cannot be decided.
    """
    tested = [relation for relation in relations.values() if EACH not in relation]
    if len(tested) > MOST:
        raise ValueError(f"{FILE}: {chapter} tests {len(tested)} contrasts; {MOST} are the most.")
    found: dict[str, list[tuple[tuple[float, ...], float]]] = {}
    p: dict[str, float] = {}
    for name, relation in relations.items():
        try:
            found[name] = gaps(relation, known)
        except ValueError as error:
            raise ValueError(f"{FILE}, {chapter}, {name}: {error}") from None
        tests = [p_value(v - margin for v in gap) for gap, margin in found[name]]
        if ">" not in relation:
            p[name] = min(tests)
        elif EACH not in relation:
            ahead = all(math.fsum(gap) > len(gap) * margin for gap, margin in found[name])
            p[name] = max(tests) if ahead else 1.0
    p |= holm({name: value for name, value in p.items() if ">" in relations[name]})
    contrasts = []
    for name, relation in relations.items():
        pairs = found[name]
        if name not in p:
            holds = all(v > margin for gap, margin in pairs for v in gap)
        elif ">" in relation:
            holds = p[name] < LEVEL
        else:
            holds = p[name] >= LEVEL and ("?" in relation or len(pairs[0][0]) >= FEWEST_EQUAL)
        named = [units[word] for word in re.findall(r"\w+", relation) if word in units]
        unit = next(
            (unit for unit in named if unit not in ("%", "pp")), "s" if "_seconds" in relation else "pp"
        )
        seeds = tuple(gap for gap, _ in pairs)
        contrasts.append(Contrast(name, chapter, relation, seeds, unit, p.get(name), holds))
    return contrasts


def read(root: Path = ROOT) -> dict[str, Contrast]:
    """Return all contrasts by name.

    Raises:
        ValueError: as `family`, or a name is used twice.
    """
    claims = stored.read_claims(root)
    units = {name: claim["unit"] for name, claim in claims.items()}
    # A derived claim has one value a seed, in order: 0, 1, 2 ...
    known = {name: {str(k): v for k, v in enumerate(claim["values"])} for name, claim in claims.items()}
    known |= stored.quantities(STORED, root)
    contrasts: dict[str, Contrast] = {}
    for chapter, relations in tomllib.loads((root / FILE).read_text(encoding="utf-8")).items():
        if twice := sorted(set(relations) & set(contrasts)):
            raise ValueError(f"{FILE}: the contrast {twice[0]!r} stands there twice.")
        contrasts |= {contrast.name: contrast for contrast in family(chapter, relations, known, units)}
    return contrasts


def broken(contrasts: dict[str, Contrast], root: Path = ROOT) -> list[str]:
    """Return a line for each sentence whose contrast is unknown, or not borne out by the stored seeds."""
    lines = []
    for path, sentence in stored.each_sentence(root):
        for name in ROLE.findall(sentence):
            where = f"{path.relative_to(root)}: “{ROLE.sub('', sentence)}”"
            if name not in contrasts:
                lines.append(f"{where} names the contrast {name!r}, which {FILE} does not have.")
            elif not (found := contrasts[name]).holds:
                lines.append(
                    f"{where} is not borne out: {name} ({found.relation}): {found.gap}, {found.verdict}."
                )
    return lines
