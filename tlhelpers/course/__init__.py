"""For the notebooks of this course alone: sizes of runs, recorded numbers, the comparison of chapter 8."""
