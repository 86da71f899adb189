"""Releases and grades the coursework.

- `course`: what an assignment is: its notebook, its items, its checks; the secret.
- `release`: the students' notebooks, made by nbgrader.
- `collect`: finds submissions, reads whatever was handed in, and puts the test cells back.
- `sandbox`: where a submission runs, and what it may not do there. `box` is all of this package that it sees.
- `engine`: runs, checks, counts points.
- `report`: tables and pages.
"""
