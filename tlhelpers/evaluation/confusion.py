"""Which classes are taken for which, with the pictures behind the numbers."""

import base64
import html
import io
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from tlhelpers import checks

PER_CELL = 6  # pictures of one confusion
MAX_PICTURES = 60
MAX_BYTES = 140_000  # of all pictures as text: a notebook with its outputs must stay small
SIDE = 64  # larger pictures are made smaller; smaller ones stay as they are


@dataclass(frozen=True)
class Confusion:
    """A confusion matrix. A notebook shows it as a table with the pictures behind the largest errors.

    Returned by `confusion`.

    Attributes:
        counts: int ``(k, k)``: how often an image of class i (row) was taken for class j (column).
        class_names: The names of the k classes.
        pictures: (i, j) -> images of class i that were taken for j, as (index, JPEG in base64), the most
            frequent confusion first.
    """

    counts: np.ndarray
    class_names: tuple[str, ...]
    pictures: dict[tuple[int, int], list[tuple[int, str]]]

    def __repr__(self) -> str:
        """The counts as text."""
        rows = [["true \\ predicted", *self.class_names]]
        rows += [[n, *map(str, c)] for n, c in zip(self.class_names, self.counts.tolist(), strict=True)]
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        return "\n".join("  ".join(map(str.rjust, row, widths)) for row in rows)

    def _repr_html_(self) -> str:
        """The table, then a list of confusions that open to show their pictures. It needs no script.

        On the course's website a script moves the pictures behind the cells of the table.
        """
        names = [html.escape(name) for name in self.class_names]
        head = "".join(f'<th scope="col">{name}</th>' for name in names)
        rows = "".join(
            f'<tr><th scope="row">{name}</th>{"".join(self._cell(i, j) for j in range(len(names)))}</tr>'
            for i, name in enumerate(names)
        )
        label = "Confusion matrix: a row is the true class, a column the predicted class"
        table = (
            f'<div class="tl-scroll" role="region" tabindex="0" aria-label="{label}" '
            'style="overflow-x: auto"><table class="dataframe">'
            f'<thead><tr><th scope="col">true \\ predicted</th>{head}</tr></thead>'
            f"<tbody>{rows}</tbody></table></div>"
        )
        return f'<div class="tl-confusion">{table}{"".join(map(self._details, self.pictures))}</div>'

    def _cell(self, i: int, j: int) -> str:
        count = int(self.counts[i, j])
        # Blue for hits, orange for errors, stronger for more; weak enough for dark and light text on it.
        share = count / max(1, int(self.counts[i].sum()))
        color = "0, 114, 178" if i == j else "230, 159, 0"
        style = f"background-color: rgba({color}, {0.5 * share**0.5:.2f}); text-align: right"
        return f'<td data-cell="{i}-{j}" style="{style}">{count}</td>'

    def _details(self, cell: tuple[int, int]) -> str:
        i, j = cell
        words = html.escape(f"{self.class_names[i]}, taken for {self.class_names[j]}")
        images = "".join(
            f'<img src="data:image/jpeg;base64,{text}" alt="{words}: image {index}" title="image {index}" '
            f'width="{SIDE}" style="display: inline-block; margin: 2px">'
            for index, text in self.pictures[cell]
        )
        count, shown = int(self.counts[i, j]), len(self.pictures[cell])
        number = f"{count} image{'s' if count > 1 else ''}" + (f", {shown} shown" if shown < count else "")
        return f'<details data-cell="{i}-{j}"><summary>{words}: {number}</summary>{images}</details>'


def confusion(x: np.ndarray, y: np.ndarray, predicted: np.ndarray, class_names: Sequence[str]) -> Confusion:
    """Counts which class is taken for which, and picks pictures of the most frequent confusions.

    At most 60 pictures are kept, at most 6 of one confusion, so that a notebook stays small.

    Args:
        x: Images uint8 ``(n, h, w, 3)``.
        y: True labels ``(n,)``, 0..k-1.
        predicted: Predicted labels ``(n,)``.
        class_names: The k names.

    Returns:
        The matrix. In a notebook it is shown with its pictures.

    Raises:
        ValueError: If the sizes differ, there is nothing to count, or a label has no name.

    Example:
        >>> import numpy as np
        >>> from tlhelpers.evaluation.confusion import confusion
        >>> x, y, predicted = np.zeros((3, 8, 8, 3), np.uint8), np.array([0, 1, 1]), np.array([0, 0, 1])
        >>> confusion(x, y, predicted, ["cat", "dog"]).counts.tolist()
        [[1, 0], [1, 1]]
    """
    k = len(class_names)
    y, predicted = checks.pair(y, predicted, k)
    if getattr(x, "dtype", None) != np.uint8 or x.shape[0] != len(y) or x.shape[3:] != (3,):
        found = f"{type(x).__name__} {getattr(x, 'dtype', '')} {getattr(x, 'shape', '')}"
        raise ValueError(
            f"confusion takes {len(y)} images, uint8 (n, h, w, 3), one a label; these are {found}."
        )
    counts = np.zeros((k, k), int)
    np.add.at(counts, (y, predicted), 1)
    wrong = sorted(((i, j) for i, j in np.ndindex(k, k) if i != j and counts[i, j]), key=lambda c: -counts[c])
    pictures: dict[tuple[int, int], list[tuple[int, str]]] = {}
    number = size = 0
    for i, j in wrong:
        for index in np.flatnonzero((y == i) & (predicted == j))[:PER_CELL].tolist():
            text = _jpeg(x[index])
            number, size = number + 1, size + len(text)
            if number > MAX_PICTURES or size > MAX_BYTES:
                return Confusion(counts, tuple(class_names), pictures)
            pictures.setdefault((i, j), []).append((index, text))
    return Confusion(counts, tuple(class_names), pictures)


def _jpeg(image: np.ndarray) -> str:
    """An image uint8 ``(h, w, 3)`` as JPEG in base64, at most ``SIDE`` pixels a side."""
    picture = Image.fromarray(np.asarray(image))
    picture.thumbnail((SIDE, SIDE))
    stream = io.BytesIO()
    picture.save(stream, "JPEG", quality=90)
    return base64.b64encode(stream.getvalue()).decode()
