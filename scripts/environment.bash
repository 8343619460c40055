# Sourced by train.bash, eval.bash and run_tests.bash: sets PYTHON to an interpreter that satisfies a requirements file.
# The active Python is used if it does; otherwise a virtual environment is made in .venv, or where PSPD_VENV says
# (several clones may share one: it takes 5.5 GB).

satisfies() { # interpreter, requirements file
    "$1" - "$2" <<'PY' 2>/dev/null
import re, sys
from importlib.metadata import PackageNotFoundError, version

if sys.version_info < (3, 11):
    sys.exit(1)

def numbers(text):
    return [int(part) for part in re.findall(r"\d+", text.split("+")[0])[:3]]

def lines(path):
    from pathlib import Path
    for line in Path(path).read_text().splitlines():
        line = line.split("#")[0].strip()
        if line.startswith("-r "):
            yield from lines(Path(path).parent / line[3:].strip())
        elif line:
            yield line

for line in lines(sys.argv[1]):
    name, _, least = line.partition(">=")
    try:
        if numbers(version(name.strip())) < numbers(least):
            sys.exit(1)
    except PackageNotFoundError:
        sys.exit(1)
PY
}

set_up_environment() { # requirements file
    local requirements=$1 active environment
    active=$(command -v python3 || command -v python || true)
    if [ -n "$active" ] && [ -z "${PSPD_VENV:-}" ] && satisfies "$active" "$requirements"; then
        PYTHON=$active
        return
    fi
    environment=${PSPD_VENV:-$PWD/.venv}
    PYTHON=$environment/bin/python
    if [ -x "$PYTHON" ] && satisfies "$PYTHON" "$requirements"; then
        return
    fi
    if [ -z "$active" ]; then
        echo "Python 3.11 or newer is needed and no python3 was found: install it first." >&2
        exit 1
    fi
    if ! "$active" -c 'import sys; sys.exit(sys.version_info < (3, 11))'; then
        echo "Python 3.11 or newer is needed; $active is $("$active" -V 2>&1)." >&2
        exit 1
    fi
    echo "Setting up Python packages in $environment (once; about 5.5 GB and a few minutes) ..." >&2
    mkdir -p "$environment"
    exec 9>"$environment.lock" # a second run that starts meanwhile waits here instead of installing as well
    command -v flock >/dev/null && flock 9
    if ! satisfies "$PYTHON" "$requirements"; then
        "$active" -m venv "$environment" || { echo "Making $environment failed: is python3-venv installed?" >&2; exit 1; }
        "$PYTHON" -m pip install --quiet --disable-pip-version-check -r "$requirements" || {
            echo "Installing the packages of $requirements failed: see pip's message above; run the same command again." >&2
            exit 1
        }
    fi
    exec 9>&-
}
