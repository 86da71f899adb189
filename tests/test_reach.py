"""Which code a stored number depends on: what is followed, what changes a hash, what a change makes stale."""

import ast
import json
import re
import shutil
import sys
from pathlib import Path

import pytest

from tools.numbers import provenance, trees
from tools.numbers.provenance import ROOT
from tools.numbers.reach import Reach
from tools.numbers.trees import Module

PROFILES = """
from dataclasses import dataclass
@dataclass(frozen=True)
class Profile:
    name: str
    n: int
    seeds: tuple
PROFILES = {"small": Profile("small", 1, (0, 1)), "big": Profile("big", 2, (0, 1))}
def get(name):
    return PROFILES[name]
"""


def write_package(root: Path, **modules: str) -> None:
    """Write a package of these modules, and profiles."""
    package = root / "tlhelpers"
    package.mkdir(exist_ok=True)
    for name, text in ({"__init__": "", "profiles": PROFILES} | modules).items():
        (package / f"{name}.py").write_text(text, encoding="utf-8")


def reached(root: Path, cells: str, profile: str | None = None) -> list[str]:
    """Return what the function `measure` of some cells reaches, as texts."""
    home = Module("n.ipynb", cells)
    found = Reach(root, home, profile=profile)
    found.expression(ast.parse("measure", mode="eval").body)
    return found.text()


def names(root: Path, cells: str) -> set[str]:
    """Return the names that are bound by what `measure` reaches; of package modules as ``module.name``."""
    home = Module("n.ipynb", cells)
    found = Reach(root, home)
    found.expression(ast.parse("measure", mode="eval").body)
    return {
        name if module is home else f"{module.name.removeprefix('tlhelpers.')}.{name}"
        for unit, module in found.units.items()
        for name in unit.binds
    }


MEASURE = "from tlhelpers import a\ndef measure(seed):\n    return a.f(seed)\n"


@pytest.mark.parametrize(
    ("module", "expected"),
    [
        ("def f(x):\n    return g(x)\ndef g(x):\n    return x\ndef h(x):\n    return x\n", {"a.f", "a.g"}),
        ("def f(x):\n    from tlhelpers.b import g as k\n    return k(x)\n", {"a.f", "b.g"}),
        ("from tlhelpers import b\ndef f(x):\n    return b.g(x)\n", {"a.f", "b.g"}),
        ("from . import b\ndef f(x):\n    return b.g(x)\n", {"a.f", "b.g"}),
        ("from .b import g\nf = g\n", {"a.f", "b.g"}),
        ("from tlhelpers.b import g as f\n", {"b.g"}),
        ("import tlhelpers.b\ndef f(x):\n    return tlhelpers.b.g(x)\n", {"a.f", "b.g"}),
        ("import tlhelpers\ndef f(x):\n    return tlhelpers.b.g(x)\n", {"a.f", "b.g"}),
        # A class as a whole, its base, and what a default, a decorator or an annotation names.
        (
            "class B:\n    pass\nclass C(B):\n    def m(self):\n        return g()\nf = C\ng = 1\nh = 2\n",
            {"a.B", "a.C", "a.f", "a.g"},
        ),
        ("K = 3\ndef f(x, k=K):\n    return k\n", {"a.f", "a.K"}),
        # Two bindings of one name.
        ("f = 1\nif f:\n    f = 2\n", {"a.f"}),
        # What looks names up itself.
        ("from tlhelpers import b\ndef f(x):\n    return getattr(b, x)\n", {"a.f", "b.g", "b.h"}),
        ("def f(x):\n    return globals()[x]\ndef g(x):\n    return x\n", {"a.f", "a.g"}),
        ("from tlhelpers.b import *\ndef f(x):\n    return g(x)\n", {"a.f", "b.g", "b.h"}),
        # What happens while it is imported.
        ("from tlhelpers.b import h\nR = {}\nR['x'] = h\ndef f(x):\n    return x\n", {"a.R", "a.f", "b.h"}),
        (
            "def keep(k):\n    return k\n@keep\ndef k(x):\n    return x\ndef f(x):\n    return x\n",
            {"a.keep", "a.k", "a.f"},
        ),
    ],
)
def test_what_is_reached(tmp_path: Path, module: str, expected: set[str]) -> None:
    """Names are followed through functions, modules and ways to import."""
    write_package(tmp_path, a=module, b="def g(x):\n    return x\ndef h(x):\n    return x\n")
    assert names(tmp_path, MEASURE) == expected | {"measure"}


def test_an_import_by_a_computed_name_reaches_the_whole_package(tmp_path: Path) -> None:
    """Nobody can tell which module it is."""
    text = "import importlib\ndef f(x):\n    return importlib.import_module('tlhelpers.' + x)\n"
    write_package(tmp_path, a=text, b="def g(x):\n    return x\n")
    assert {"a.f", "b.g", "profiles.get"} <= names(tmp_path, MEASURE)


@pytest.mark.parametrize(
    ("cells", "counts"),
    [
        ("BOX.append(1)", True),
        ("BOX[0] = 1", True),
        ("BOX += [1]", True),
        ("BOX = [3]", True),
        ("del BOX[0]", True),
        ("a.f(BOX)", True),
        ("a.f([BOX])", True),
        ("a.f({'box': BOX})", True),
        ("for one in BOX:\n    one.trainable = True", True),
        ("other = BOX\nother.append(2)", True),
        ("other = BOX[-1]\nother.trainable = False", True),
        ("for one in (BOX, 3):\n    one.fit()", True),
        ("getattr(BOX, 'append')(2)", True),
        ("def freeze():\n    BOX.append(2)\nfreeze()", True),
        ("def reseed(n):\n    keras.utils.set_random_seed(n)\nreseed(2)", True),
        ("def put(n):\n    global BOX\n    BOX = n\nput(2)", True),
        ("measure.rate = 2", True),
        ("a.TABLE.update(x=1)", True),
        ("%env KERAS_BACKEND=jax", True),
        ("!touch file", True),
        ("%time BOX.append(2)", True),
        ("other = a.f([BOX[0]], k=BOX)", True),
        ("for i in range(2):\n    BOX.append(i)", True),
        ("keras.utils.set_random_seed(0)", True),
        ("os.environ['X'] = '1'", True),
        ("a.f = len", True),
        ("print(len(BOX), sum(BOX))", False),
        ("plots.bars(BOX)", False),
        ("other = BOX[0] + 1", False),
        ("other = BOX.index(1)", False),
        ("def unused():\n    BOX.append(1)", False),
        ("other = [1]\nother.append(2)", False),
    ],
)
def test_statements_that_may_change_what_is_reached(tmp_path: Path, cells: str, counts: bool) -> None:
    """They count; those that only look do not."""
    write_package(tmp_path, a="def f(x, k=0):\n    return x\n")
    base = "import os\nimport keras\nfrom tlhelpers import a, plots\nBOX = [1, 2]\n"
    base += "def measure(seed):\n    return {'x': len(BOX) + seed}\n"
    base, cells = f"{base}\n", ast.unparse(provenance.parse(cells))
    without, with_it = reached(tmp_path, base), reached(tmp_path, f"{base}{cells}\n")
    assert (without != with_it) == counts


def measurement(tmp_path: Path, *cells: str, profile: str = "big") -> str:
    """Return the hash of the measurements `x` of a notebook of these cells."""
    path = tmp_path / "01_n.ipynb"
    code = [{"cell_type": "code", "metadata": {}, "source": cell} for cell in cells]
    path.write_text(json.dumps({"cells": code}), encoding="utf-8")
    return provenance.measurement_code(path, profile, tmp_path)["x"]


CALL = "claims.over_seeds('x', 'big', {}, (0,))"


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (["K = 1\ndef f(n): return n", CALL.format("lambda seed: f(1)")], "lambda seed: f(2)"),
        (["def f(n, s): return n", CALL.format("partial(f, 1)")], "partial(f, 2)"),
        (["class E:\n    def m(self, s): return 1", CALL.format("E(1).m")], "E(2).m"),
    ],
)
def test_what_is_handed_to_over_seeds_counts_itself(tmp_path: Path, before: list[str], after: str) -> None:
    """A lambda, a partial, a bound method: their text is code, too."""
    write_package(tmp_path)
    cells = ["from functools import partial\nfrom tlhelpers.course import claims", *before]
    assert measurement(tmp_path, *cells) != measurement(tmp_path, *cells[:-1], CALL.format(after))


def test_what_stands_below_does_not_count_but_order_above_does(tmp_path: Path) -> None:
    """A notebook runs from the top; a function that is defined twice is used as it was when it was called."""
    write_package(tmp_path)
    cells = ["BOX = [1]", "def measure(seed): return len(BOX)", CALL.format("measure")]
    base = measurement(tmp_path, *cells)
    assert measurement(tmp_path, *cells, "BOX.append(2)") == base
    assert measurement(tmp_path, *cells[:-1], "BOX.append(2)", cells[-1]) != base
    first, second = "def f(): return 1", "def f(): return 2"
    use = "X = f()\ndef measure(seed): return X"
    orders = [(first, use, second), (first, second, use), (second, first, use)]
    assert len({measurement(tmp_path, *order, CALL.format("measure")) for order in orders}) == 3


@pytest.mark.parametrize(
    "cell", ["def go(fn): return claims.over_seeds('x', 'big', fn, (0,))\ngo(len)", CALL.format("missing")]
)
def test_a_measurement_that_cannot_be_followed_is_refused(tmp_path: Path, cell: str) -> None:
    """Inside a function nobody can tell what is measured."""
    write_package(tmp_path)
    with pytest.raises(ValueError, match="at the top level"):
        measurement(tmp_path, cell)


@pytest.mark.parametrize(
    ("text", "same"),
    [
        ("x = ('a %d'\n  % K)", "x = 'a %d' % K"),
        ('x = """a\n!b\n%c"""', "x = 'a\\n!b\\n%c'"),
        ("%matplotlib inline\nx = 1", "get_ipython('%matplotlib inline')\nx = 1"),
        ("if 1:\n    !pip install \\\n  x\n", "if 1:\n    get_ipython('!pip install   x')"),
        ("x = !ls", "x = get_ipython('!ls')"),
        ("len?", "get_ipython('len?')"),
        ("%%time\nx = 1", "x = 1"),
        ("%%html\n<b>", "get_ipython('%%html\\n<b>')"),
        ("%time x = 1", "x = 1"),
    ],
)
def test_lines_of_ipython_are_read(text: str, same: str) -> None:
    """Commands become calls, and nothing else is mistaken for one."""
    assert trees.canonical(provenance.parse(text)) == trees.canonical(ast.parse(same))


def test_names_of_comprehensions_are_their_own_on_every_python() -> None:
    """Since 3.12 Python runs them in the scope around them."""
    unit = trees.unit_of(
        ast.parse("y = [k for k in A] + [j for i in {B for B in C} for j in {v: w for v, w in D}]").body[0]
    )
    assert unit.binds == {"y"}
    assert unit.uses == {"A", "C", "D"}


def test_docstrings_of_scripts_and_attributes_do_not_count(tmp_path: Path) -> None:
    """Wherever they stand."""
    write_package(tmp_path)
    path = tmp_path / "s.py"
    hashes = set()
    for words in ("One.", "Another."):
        path.write_text(f'"""{words}"""\nclass A:\n    x = 1\n    """{words}"""\n', encoding="utf-8")
        hashes.add(provenance.script_code(path, tmp_path))
    assert len(hashes) == 1


def test_locals_are_not_globals(tmp_path: Path) -> None:
    """A parameter or local variable does not reach the cell that binds the same name."""
    write_package(tmp_path, a="def f(x):\n    return x\n")
    cells = "ds = 1\nrows = 2\nuse = 3\n"
    cells += "def measure(seed, ds=0):\n    rows = [use for use in (ds,)]\n    return rows\n"
    assert names(tmp_path, cells) == {"measure"}


def test_of_a_profile_only_its_own_values_count(tmp_path: Path) -> None:
    """Not those of another profile, and not which seeds are asked for, unless they are used."""
    cells = "from tlhelpers import profiles\nP = profiles.get('big')\ndef measure(seed):\n    return P.n\n"

    def text(profiles: str, cells: str = cells) -> list[str]:
        write_package(tmp_path, profiles=profiles)
        return reached(tmp_path, cells, "big")

    base = text(PROFILES)
    assert text(PROFILES.replace('"small", 1', '"small", 7')) == base
    assert text(PROFILES.replace('"big", 2, (0, 1)', '"big", 2, (0, 1, 2)')) == base
    assert text(PROFILES.replace('"big", 2', '"big", 3')) != base
    more = PROFILES.replace('"big", 2, (0, 1)', '"big", 2, (0, 1, 2)')
    for using in (cells.replace("P.n", "P.n, P.seeds"), cells.replace("P.n", "profiles.get('big').seeds")):
        base = text(PROFILES, using)
        assert text(more, using) != base
    other = cells.replace("P.n", "profiles.get('small').n")
    base = text(PROFILES, other)
    assert text(PROFILES.replace('"small", 1', '"small", 7'), other) != base


def test_another_librarys_module_under_the_same_name_counts(tmp_path: Path) -> None:
    """`np` may be something else one day."""
    write_package(tmp_path)
    cells = "import numpy as np\ndef measure(seed):\n    return np.mean(seed)\n"
    assert reached(tmp_path, cells) != reached(tmp_path, cells.replace("import numpy", "import jax.numpy"))


def test_data_files_count_where_they_may_be_read(tmp_path: Path) -> None:
    """A function that knows where it lies may read what lies beside it."""
    beside = (
        "from pathlib import Path\ndef f(x):\n    return Path(__file__).with_name('t.json').read_text()\n"
    )
    inside = "from importlib.resources import files\ndef f(x):\n    return files('tlhelpers')\n"
    for module, counts in ((beside, True), (inside, True), ("def f(x):\n    return x\n", False)):
        write_package(tmp_path, a=module)
        texts = []
        for content in ("1", "2"):
            (tmp_path / "tlhelpers" / "t.json").write_text(content)
            texts.append(reached(tmp_path, MEASURE))
        assert (texts[0] != texts[1]) == counts


@pytest.mark.parametrize(
    ("change", "counts"),
    [
        (lambda s: s.replace("return x + 1", "return x + 2"), True),
        (lambda s: s.replace("return x + 1", "return 1 + x"), True),
        (lambda s: s.replace("x + 1", "(x + 1)  # why"), False),
        (lambda s: s.replace("    return", '    """Says what it does."""\n    return'), False),
        (lambda s: '"""The module."""\n\n\n' + s, False),
        (lambda s: s.replace("def unused", "def renamed"), False),
        (lambda s: "\n".join(reversed(s.split("\n\n"))), False),  # another order of definitions
    ],
)
def test_what_changes_a_hash(tmp_path: Path, change, counts: bool) -> None:
    """Code does; comments, docstrings, layout and what is not reached do not."""
    module = "def f(x):\n    return x + 1\n\ndef unused(x):\n    return x\n"
    write_package(tmp_path, a=module)
    before = reached(tmp_path, MEASURE)
    assert change(module) != module
    write_package(tmp_path, a=change(module))
    assert (reached(tmp_path, MEASURE) != before) == counts


def test_canonical_text_is_the_same_on_every_python() -> None:
    """Written out here, since another Python is not at hand: empty fields are left out."""
    text = trees.canonical(ast.parse("def f(a, *, b=1):\n    'doc'\n    return f'{a}!'\n"))
    assert text == (
        "Module(body=[FunctionDef(name='f',args=arguments(args=[arg(arg='a')],kwonlyargs=[arg(arg='b')],"
        "kw_defaults=[Constant(value=1)]),body=[Return(value=JoinedStr(values=[FormattedValue("
        "value=Name(id='a'),conversion=-1),Constant(value='!')]))])])"
    )


# --- this repository ---


@pytest.fixture(scope="module")
def stamped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the package and the notebooks, with measurements that carry the hashes of today."""
    root = tmp_path_factory.mktemp("copy")
    shutil.copytree(ROOT / "tlhelpers", root / "tlhelpers", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(ROOT / "notebooks", root / "notebooks", ignore=shutil.ignore_patterns(".ipynb*"))
    results = root / provenance.RESULTS
    results.mkdir(parents=True)
    for path in sorted((root / "notebooks").glob("[0-9]*.ipynb")):
        for chapter, code in provenance.measurement_code(path, "laptop", root).items():
            record = {"values": {"x": 0.5}, "by": f"notebooks/{path.name}", "code": code}
            content = {"chapter": chapter, "profile": "laptop", "records": {"0": record}}
            (results / f"{chapter}.laptop.json").write_text(json.dumps(content), encoding="utf-8")
    assert len(list(results.iterdir())) >= 12
    return root


def stale_chapters(root: Path) -> set[str]:
    """Return the names of the measurements that are stale."""
    return {one.what.split()[1].removesuffix(".laptop") for one in provenance.stale_measurements(root)}


def planted(text: str, function: str, line: str) -> str:
    """Return a module with a line at the beginning of a function's body, after its docstring."""
    node = next(n for n in ast.parse(text).body if getattr(n, "name", "") == function)
    first = node.body[1 if trees.is_bare(node.body[0]) else 0]
    lines = text.splitlines(keepends=True)
    return "".join([*lines[: first.lineno - 1], f"    {line}\n", *lines[first.lineno - 1 :]])


@pytest.mark.parametrize(
    ("module", "function", "expected"),
    [
        ("evaluation/transferability", "logme", {"13_choosing_the_source"}),
        ("evaluation/calibration", "fit_temperature", {"12_errors_calibration", "14_your_own_images"}),
        ("course/comparison", "l2_sp", {"08_comparison"}),
        ("losses", "mmd2", set()),
    ],
)
def test_a_planted_change_makes_stale_what_reaches_it(
    stamped: Path, module: str, function: str, expected: set[str]
) -> None:
    """Exactly the measurements that reach the changed function; and none for a comment or a docstring."""
    path = stamped / "tlhelpers" / f"{module}.py"
    text = path.read_text(encoding="utf-8")
    words = re.sub(r'^    """(?=[A-Z])', '    """Indeed: ', planted(text, function, "# why"), flags=re.M)
    assert words.count('"""Indeed: ') > 1
    try:
        path.write_text(planted(text, function, "_ = 0"), encoding="utf-8")
        assert stale_chapters(stamped) == expected
        path.write_text(words, encoding="utf-8")
        assert stale_chapters(stamped) == set()
    finally:
        path.write_text(text, encoding="utf-8")


def test_what_is_stale_is_named_with_its_command(stamped: Path) -> None:
    """Other code, no hash, another profile, another maker: each line says what to do."""
    file = stamped / provenance.RESULTS / "12_errors_calibration.laptop.json"
    before = file.read_text(encoding="utf-8")
    content = json.loads(before)
    record = content["records"]["0"]
    content["records"] |= {"1": record | {"code": "0" * 64}, "2": {"values": {"x": 0.5}}}
    try:
        file.write_text(json.dumps(content), encoding="utf-8")
        lines = sorted(map(str, provenance.stale_measurements(stamped)))
    finally:
        file.write_text(before, encoding="utf-8")
    command = "make notebooks NOTEBOOK=12_errors_calibration MEASURE=1"
    assert lines == [
        f"measurements 12_errors_calibration.laptop: seed 1 measured by other code; {command}",
        "measurements 12_errors_calibration.laptop: seed 2 measured before code was stored with them; "
        + command,
    ]


def test_every_chapters_measurements_can_be_hashed() -> None:
    """Each file of measurements belongs to a notebook that names it; what is stale is printed, not failed."""
    found = provenance.stale()
    orphans = [str(one) for one in found if "no notebook measures them" in one.why]
    assert not orphans
    print(f"{len(found)} stored results are not by the code of today:", *found, sep="\n  ", file=sys.stderr)


def test_measurements_are_named_outright(tmp_path: Path) -> None:
    """A computed name could not be followed."""
    bad = Module("n.ipynb", "claims.over_seeds(name, 'laptop', measure, (0,))")
    with pytest.raises(ValueError, match="outright"):
        provenance.measured(bad)
    twice = Module("n.ipynb", "over_seeds('a', 'laptop', f, (0,))\nover_seeds('a', 'laptop', measure=f)")
    with pytest.raises(ValueError, match="twice"):
        provenance.measured(twice)


def test_outputs_depend_on_every_cell_and_measurements_on_theirs(stamped: Path) -> None:
    """A changed plot outdates a notebook's outputs, and no measurement."""
    path = stamped / "notebooks" / "12_errors_calibration.ipynb"
    before = path.read_text(encoding="utf-8")
    notebook = json.loads(before)
    cell = next(
        c for c in notebook["cells"] if c["cell_type"] == "code" and "plt.subplots" in "".join(c["source"])
    )
    cell["source"] = ["".join(cell["source"]) + "\nax.set(title='another')"]
    code, measured = (
        provenance.output_code(path, stamped),
        provenance.measurement_code(path, "laptop", stamped),
    )
    try:
        path.write_text(json.dumps(notebook), encoding="utf-8")
        assert provenance.output_code(path, stamped) != code
        assert provenance.measurement_code(path, "laptop", stamped) == measured
    finally:
        path.write_text(before, encoding="utf-8")
