# Sourced by train.bash, eval.bash and run_tests.bash: sets PYTHON to an interpreter that satisfies a requirements file.
# The active Python is used if it does; otherwise a virtual environment is made in .venv, or where PSPD_VENV says
# (several clones may share one: it takes 5.5 GB). What is installed are the tested versions, those of constraints.txt;
# PSPD_CONSTRAINTS names another such file, or "none" for the newest versions that the requirements allow.
PSPD_CONSTRAINTS=${PSPD_CONSTRAINTS:-constraints.txt}

PACKAGES=$(dirname "${BASH_SOURCE[0]}")/packages.py

satisfies() { # interpreter, requirements file; says which versions are others than the tested ones
    "$1" "$PACKAGES" check "$2" "$PSPD_CONSTRAINTS" 2>/dev/null >&3
} 3>&2

# Installs the requirements with the pins. A pin that can't be had is told and gives way to the nearest release allowed.
install_packages() { # requirements file
    local pip=("$PYTHON" -m pip --disable-pip-version-check install --quiet) message
    if [ "$PSPD_CONSTRAINTS" = none ]; then
        "${pip[@]}" -r "$1"
        return
    fi
    if message=$("${pip[@]}" --only-binary :all: -r "$1" -c "$PSPD_CONSTRAINTS" 2>&1); then return; fi
    if [[ $message == *"Retrying (Retry"* ]] || ! [[ $message == *"No matching distribution"* || $message == *"conflicting dependencies"* ]]; then
        echo "$message" >&2 # no network, no room: other versions would not help
        return 1
    fi
    install_nearest "$1" && return
    echo "The tested versions do not install together here: the newest that the requirements allow are taken." >&2
    "${pip[@]}" -r "$1"
}

install_nearest() { # requirements file
    local pip=("$PYTHON" -m pip --disable-pip-version-check install --quiet) folder message code=1
    folder=$(mktemp -d)
    cp "$PSPD_CONSTRAINTS" "$folder/pins"
    while "$PYTHON" "$PACKAGES" checkable "$folder/pins" > "$folder/asked"; do # until each pin, asked for by itself, is there
        if message=$("${pip[@]}" --dry-run --no-deps --only-binary :all: -r "$folder/asked" 2>&1); then code=0; break; fi
        "$PYTHON" "$PACKAGES" relax "$folder/pins" "$1" "$message" >&2 || break
    done
    if [ "$code" = 0 ]; then
        message=$("${pip[@]}" --prefer-binary -r "$1" -c "$folder/pins" 2>&1) || code=1
    fi
    [ "$code" = 0 ] || echo "$message" | tail -n 5 >&2
    rm -rf "$folder"
    return "$code"
}

set_up_environment() { # requirements file
    local requirements=$1 active environment
    if [ "$PSPD_CONSTRAINTS" != none ] && [ ! -f "$PSPD_CONSTRAINTS" ]; then
        echo "There is no file $PSPD_CONSTRAINTS (PSPD_CONSTRAINTS): name one with pinned versions, or none." >&2
        exit 1
    fi
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
        install_packages "$requirements" || {
            echo "Installing the packages of $requirements failed: see pip's message above; run the same command again." >&2
            exit 1
        }
        satisfies "$PYTHON" "$requirements" || true # says what differs
    fi
    exec 9>&-
}
