"""Releases and grades the coursework.

- `course`: what an assignment is: its notebook, its items, its checks; the secret.
- `release`: the students' notebooks, made by nbgrader.
- `who`: finds submissions, and whose they are: names of platforms, roster, groups.
- `collect`: reads whatever was handed in, and puts the test cells back.
- `sandbox`: where a submission runs, and what it may not do there. `box` is all of this package that it sees.
- `run`: one start of a submission: cells, then probes. `engine`: as many as it takes, and the points.
- `compare`: whether an answer is right: shape, kind, finiteness, value.
- `row`: one student's result, on disk as soon as it is there.
- `tables`, `report`: tables for people and platforms; pages.
"""
