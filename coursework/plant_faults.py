"""Put the fault where the solution was: one source for the solution and the broken notebook."""

import re

from nbformat.notebooknode import NotebookNode
from nbgrader.preprocessors import ClearSolutions

BROKEN = re.compile(r"^(\s*)### BROKEN: (.*)$")


class PlantFaults(ClearSolutions):
    """Like ClearSolutions, but a solution region may say which code the student gets instead.

    In a region between BEGIN SOLUTION and END SOLUTION, lines such as ``### BROKEN: x = x / 255`` are the
    broken code. They replace the region, without the mark. A region without them is replaced by
    nbgrader's stub.
    """

    def _replace_solution_region(self, cell: NotebookNode, language: str) -> bool:
        region: list[str] | None = None
        lines: list[str] = []
        for line in cell.source.split("\n"):
            if self.begin_solution_delimeter in line and region is None:
                region = [line]
            elif region is None:
                lines.append(line)
            else:
                region.append(line)
                if self.end_solution_delimeter in line:
                    broken = [match for match in map(BROKEN.match, region) if match]
                    lines.extend([match[1] + match[2] for match in broken] or region)
                    region = None
        planted = "\n".join([*lines, *(region or [])])
        changed = planted != cell.source
        cell.source = planted
        return super()._replace_solution_region(cell, language) or changed
