# shellcheck shell=sh disable=SC2154
# Sourced by the other scripts, which set $root to the repository first. Sets $uv to a uv that works in it.
#
# A machine may have uv in several ways or not at all, and pyenv's shims make it harder: inside this repository
# they look for the Python that .python-version names, and refuse to run anything if they have another. So a
# command counts only if it runs here, and interpreters are asked from outside for the file they really are.

# Some machines forbid Python to keep what it compiled: then every process compiles all its libraries as it starts.
unset PYTHONDONTWRITEBYTECODE

pyenv=${PYENV_ROOT:-${HOME:-/nonexistent}/.pyenv}

works_here() {
    case $(cd "$root" && "$1" --version 2>/dev/null) in
        'uv 0.'[0-7].*) return 1 ;; # too old for the lock file
        'uv '*) return 0 ;;
        *) return 1 ;;
    esac
}

list_pythons() {
    for candidate in python3 python3.14 python3.13 python3.12 python3.11 python3.10 python3.9 python \
        "$pyenv"/versions/*/bin/python3 /usr/bin/python3 /usr/local/bin/python3 /opt/homebrew/bin/python3; do
        (cd / && "$candidate" -c 'import sys; sys.version_info >= (3, 9) and print(sys.executable)') \
            </dev/null 2>/dev/null || true
    done
}

find_uv() {
    for candidate in "$(command -v uv)" "$root/.data/uv/bin/uv" "${HOME:-/nonexistent}/.local/bin/uv" \
        "${HOME:-/nonexistent}/.cargo/bin/uv" /opt/homebrew/bin/uv /usr/local/bin/uv "$pyenv"/versions/*/bin/uv; do
        if works_here "$candidate"; then
            echo "$candidate"
            return
        fi
    done
    list_pythons | while IFS= read -r python; do
        candidate=$("$python" -c 'import uv; print(uv.find_uv_bin())' </dev/null 2>/dev/null) || continue
        if works_here "$candidate"; then
            echo "$candidate"
            break
        fi
    done
}

# Only the program itself is kept: it needs no Python, so it survives the one that fetched it.
fetch_uv() {
    echo "Fetching uv into $root/.data/uv" >&2
    mkdir -p "$root/.data/uv/bin"
    trial=$(mktemp -d "$root/.data/uv/fetch.XXXXXX")
    list_pythons | while IFS= read -r python; do
        {
            "$python" -m venv "$trial" && "$trial/bin/python" -m pip install --quiet 'uv>=0.8' ||
                "$python" -m pip install --quiet --target "$trial" 'uv>=0.8'
        } </dev/null >&2 || continue
        mv "$trial/bin/uv" "$root/.data/uv/bin/uv"
        echo "$root/.data/uv/bin/uv"
        break
    done
    rm -rf "$trial"
}

uv=$(find_uv)
[ -n "$uv" ] || uv=$(fetch_uv)
if [ -z "$uv" ]; then
    echo "Neither uv nor a Python (3.9 or later, with venv or pip) was found that could fetch it: install one." >&2
    exit 1
fi

# A Python 3.13 that pyenv has but PATH has not: uv looks only along PATH, and would download another.
for folder in "$pyenv"/versions/3.13*/bin; do
    [ ! -d "$folder" ] || PATH=$PATH:$folder
done
export PATH

# Another project's activated environment is not ours.
unset VIRTUAL_ENV
python=${UV_PROJECT_ENVIRONMENT:-$root/.venv}/bin/python
