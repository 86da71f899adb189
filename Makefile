# make help prints what there is. Needs GNU make, a POSIX shell, and Python 3.11 to 3.13 with venv.
VENV ?= .venv
BOOK_VENV ?= .venv-book
PROFILE ?= laptop
NOTEBOOK ?=
MEASURE ?=
PARAMS ?=
PYTEST_ARGS ?=
PORT ?= 8000
SUBMISSIONS ?=
GRADE_ARGS ?=

# Expanded only where a recipe uses it, so that targets without Python run without Python.
FIND_PYTHON = python=$$(PYTHON="$(PYTHON)" sh tools/find_python.sh)

.PHONY: help book serve pdf links test env notebooks stale stamp assignments grade lock repo-url text-weights clean
.DEFAULT_GOAL := help

help:
	@echo "make book                      build the website from the stored outputs (small environment, no TensorFlow)"
	@echo "make serve                     build it and serve it on localhost"
	@echo "make pdf                       build it and print each chapter, and all in one file, to _build/pdf (Chromium)"
	@echo "make links                     build it and list its external links in book/links.txt; nothing is fetched"
	@echo "make test                      everything that CI runs; extra options: PYTEST_ARGS='-k data -x'"
	@echo "make env                       only make the environment $(VENV) from the lock"
	@echo "make notebooks PROFILE=laptop  re-run the chapters and store their outputs; profiles: smoke, laptop, gpu"
	@echo "     NOTEBOOK=03_model_based   ... one chapter; MEASURE=1 first measures its missing and stale seeds"
	@echo "make stale                     list what is stored and was made by other code than today's; needs no environment"
	@echo "make stamp NOTEBOOK=name       after a change that changes no number: measure one seed again, stamp the others"
	@echo "make assignments               build the students' notebooks into build/assignments"
	@echo "make grade SUBMISSIONS=dir     grade a folder of submissions into build/graded: tables, feedback, summary"
	@echo "make lock                      resolve the dependencies again (LOCK_ARGS=--upgrade for the newest)"
	@echo "make repo-url URL=https://...  write the repository's address into badges, links and Colab cells"
	@echo "make text-weights              install the pretrained weights of chapter 16, and check their hash"
	@echo "make clean                     remove what was built; environments stay"

book:
	@$(FIND_PYTHON) && "$$python" -m tools.make_env --dir "$(BOOK_VENV)" --lock book-py
	@"$(BOOK_VENV)/bin/python" -m tools.build_book

serve: book
	@echo "Serving the book on http://localhost:$(PORT) (stop with Ctrl-C; another port: make serve PORT=8080)"
	@"$(BOOK_VENV)/bin/python" -m http.server $(PORT) --bind 127.0.0.1 --directory _build/html

pdf: book
	@"$(BOOK_VENV)/bin/python" -m tools.print_pdf

links: book
	@"$(BOOK_VENV)/bin/python" -m tools.links

env:
	@$(FIND_PYTHON) && "$$python" -m tools.make_env --dir "$(VENV)" --lock py --editable

test: env
	@"$(VENV)/bin/python" -m pytest tests -n 2 --dist loadgroup --no-loadscope-reorder $(PYTEST_ARGS)

notebooks: env
	@"$(VENV)/bin/python" -m tools.numbers.run --profile "$(PROFILE)" $(if $(NOTEBOOK),--notebook "$(NOTEBOOK)") \
		$(if $(filter-out 0,$(MEASURE)),--measure) $(foreach p,$(PARAMS),--set "$(p)")

stale:
	@$(FIND_PYTHON) && "$$python" -m tools.numbers.provenance

stamp:
	@test -n "$(NOTEBOOK)" || { echo "Say which: make stamp NOTEBOOK=03_model_based" >&2; exit 1; }
	@$(MAKE) --no-print-directory env
	@"$(VENV)/bin/python" -m tools.numbers.stamp "$(NOTEBOOK)" --profile "$(PROFILE)"

assignments: env
	@"$(VENV)/bin/python" -m tools.coursework release

grade:
	@test -n "$(SUBMISSIONS)" || { echo "Say which: make grade SUBMISSIONS=folder" >&2; exit 1; }
	@$(MAKE) --no-print-directory env
	@"$(VENV)/bin/python" -m tools.coursework grade "$(SUBMISSIONS)" $(GRADE_ARGS)

lock:
	@$(FIND_PYTHON) && { test -x .venv-lock/bin/uv || { "$$python" -m venv .venv-lock \
		&& .venv-lock/bin/pip install --quiet --disable-pip-version-check uv; }; }
	@.venv-lock/bin/python -m tools.lock $(LOCK_ARGS)

repo-url:
	@test -n "$(URL)" || { echo "Say which: make repo-url URL=https://github.com/you/transfer-learning-keras" >&2; exit 1; }
	@$(FIND_PYTHON) && "$$python" -m tools.repo_url "$(URL)"

# They cannot be a dependency: the package names PyTorch as a need, which the chapter does without.
text-weights: env
	@"$(VENV)/bin/python" -m tools.text_weights

clean:
	rm -rf _build build dist *.egg-info .pytest_cache .ruff_cache .mypy_cache
	find . -name __pycache__ -not -path './.venv*' -prune -exec rm -rf {} +
