#!/usr/bin/env bash
# try_set.sh UV SET [PYTEST ARGUMENT…]: run tests on another set of packages, in .cache/sets.
#
# SET: `locked`: the lock without the engine, on each Python that pyproject.toml names and this machine has, but the first.
# `floors`: the lowest versions that pyproject.toml allows, on the oldest Python. `newest`: the newest that PyPI has; the
# exit status is 0 whatever fails, because a new release of others is no fault of a change here.
#
# FAILED_ONCE: a file. If at most three tests fail, they run again, alone, and the names of those that pass then are
# appended to it (.ci/run).
set -euo pipefail
cd "$(dirname "$0")/.."
uv=$1
kind=$2
shift 2
sets=.cache/sets
torch=${TORCH_VERSION:?} build=${TORCH_BUILD:?}
mkdir -p "$sets"

named() { sed -n 's/.*"Programming Language :: Python :: \(3\.[0-9]*\)".*/\1/p' pyproject.toml; }

# A pyenv shim may be there for a version that is not switched on, so each is tried.
interpreter() {
  local one
  for one in "python$1" "${PYENV_ROOT:-$HOME/.pyenv}"/versions/"$1".*/bin/python; do
    if "$one" -c '' 2>/dev/null; then
      "$one" -c 'import sys; print(sys.executable)'
      return
    fi
  done
  return 1
}

create() { # NAME INTERPRETER: an empty environment
  venv=$sets/$1
  rm -rf "$venv"
  "$2" -m venv "$venv"
  install=("$uv" pip install --quiet --no-config --python "$venv/bin/python")
}

package() { # The wheel's build backend is the pinned one.
  "${install[@]}" --no-deps --require-hashes --requirement requirements/build.txt
  "${install[@]}" --no-deps --no-build-isolation --editable packages/receipts --editable . --editable packages/vllm --editable packages/demo
}

try() {
  # What needs an environment or a cache of its own has a group of its own (tests/groups.py), and is not tried here.
  local run=("$venv/bin/python" -m pytest --group test -o "cache_dir=$sets/results-$(basename "$venv")") failed
  rm -rf "$sets/results-$(basename "$venv")"
  "${run[@]}" --numprocesses "${JOBS:-2}" --dist loadfile --no-loadscope-reorder "$@" && return
  [ -n "${FAILED_ONCE:-}" ] || return 1
  failed=$("${run[@]}" --cache-show cache/lastfailed | grep -o "'tests/.*::.*'" || true)
  [ "$(wc -l <<<"$failed")" -le 3 ] && "${run[@]}" --last-failed --last-failed-no-failures none "$@" && echo "$failed" >>"$FAILED_ONCE"
}

case $kind in
locked)
  failed=0
  for number in $(named | tail -n +2); do
    if ! python=$(interpreter "$number"); then
      echo "Python $number is not on this machine: not tried."
      continue
    fi
    create "locked-$number" "$python"
    for file in core dev; do "${install[@]}" --no-deps --require-hashes --requirement requirements/$file.txt; done
    package
    echo "Python $number, the lock, without the engine:"
    try "$@" || failed=1
  done
  exit "$failed"
  ;;
floors | newest)
  create "$kind" "$(interpreter "$(named | head -n 1)")"
  "$venv/bin/python" requirements/install_torch.py "$torch" "$build" "$(dirname "$(dirname "$uv")")"
  if [ "$kind" = floors ]; then resolution=lowest-direct; else resolution=highest; fi
  # There is one build of torch here, which stays; the verifier of receipts comes from this tree.
  printf '%s\n' torch tunewarden-receipts >"$sets/excludes"
  "$uv" pip compile --quiet --no-config --python-version "$(named | head -n 1)" --resolution "$resolution" --excludes "$sets/excludes" \
    --no-header --no-annotate --output-file "$sets/$kind.txt" --all-extras pyproject.toml packages/receipts/pyproject.toml
  "${install[@]}" --no-deps --requirement "$sets/$kind.txt"
  "${install[@]}" --requirement requirements/torch.in --requirement requirements/build.in
  "${install[@]}" --no-deps --no-build-isolation --editable packages/receipts --editable . --editable packages/vllm --editable packages/demo
  if [ "$kind" = newest ]; then
    # What is newer than the lock, which is what a failure may come from.
    diff <(grep -ho '^[a-z0-9._-]*==[^ ;\\]*' requirements/{core,local,dev}.txt | sort -u) "$sets/newest.txt" | grep '^>' || true
    try "$@" || echo "Some tests fail with the newest packages: a range in pyproject.toml, or code, must follow."
  else
    try "$@"
  fi
  ;;
*)
  echo "unknown set: $kind" >&2
  exit 2
  ;;
esac
