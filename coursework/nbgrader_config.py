"""Settings of the nbgrader course. The folder of this file is the course root, wherever it is copied."""

import os
import sys

root = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, root)

from nbgrader.preprocessors import (
    CheckCellMetadata,
    ClearHiddenTests,
    ClearOutput,
    ComputeChecksums,
    IncludeHeaderFooter,
    LockCells,
    SaveCells,
)
from plant_faults import PlantFaults

c = get_config()

c.CourseDirectory.course_id = "transfer-learning"
c.CourseDirectory.root = root

# nbgrader's own steps, but the place of a solution is taken by the fault to repair.
c.GenerateAssignment.preprocessors = [
    IncludeHeaderFooter,
    LockCells,
    PlantFaults,
    ClearOutput,
    CheckCellMetadata,
    ComputeChecksums,
    SaveCells,
    ClearHiddenTests,
    ComputeChecksums,
    CheckCellMetadata,
]
