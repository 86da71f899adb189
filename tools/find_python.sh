#!/bin/sh
# Print a Python this project runs on: 3.11 to 3.13, able to make a virtual environment.
# $PYTHON, when set, is the only candidate. Prints why and exits with 1 if there is none.
set -u
seen=""
for candidate in ${PYTHON:-python3.13 python3.12 python3.11 python3}; do
    version=$("$candidate" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null) || continue
    case "$version" in
        3.11 | 3.12 | 3.13) ;;
        *)
            seen="$seen
  $candidate is Python $version"
            continue
            ;;
    esac
    if "$candidate" -c 'import ensurepip, venv' 2>/dev/null; then
        # The path rather than the name, so that an activated environment does not change the answer midway.
        "$candidate" -c 'import sys; print(sys.executable)'
        exit 0
    fi
    seen="$seen
  $candidate is Python $version, but cannot make environments; on Debian or Ubuntu: apt-get install python$version-venv"
done
{
    echo "No usable Python. Needed: Python 3.11, 3.12 or 3.13 with the modules venv and ensurepip."
    if [ -n "$seen" ]; then echo "Found:$seen"; else echo "Tried: ${PYTHON:-python3.13 python3.12 python3.11 python3}"; fi
    echo "Install one, or name it: make PYTHON=/path/to/python3.12 ..."
} >&2
exit 1
