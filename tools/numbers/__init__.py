"""Running the notebooks, storing what they measure, and knowing which code a stored number belongs to.

- `run`: the command: runs chapters, stores outputs, measures seeds.
- `kernel`: runs one notebook in a fresh kernel, cleans its outputs, says in one line why it failed.
- `tidy`: removes what editors and runners write beside code and outputs.
- `stored`: reads what was recorded: claims, measurements, benchmarks, times.
- `trees`, `effects`: statements, what they bind and use, and what they may change.
- `reach`: which definitions of a notebook and of the package a piece of code depends on.
- `provenance`: the hash of that code, and what is stored that other code has made.
- `stamp`: writes today's hash under old measurements, after measuring one of them again.
- `contrasts`: what sentences that compare rest on, tested on the stored seeds.
- `bands`: where a new measurement is expected, and what leaves that place.

All but `run`, `kernel`, `stamp` and `bands` need the standard library alone: the website is built with them.
"""
