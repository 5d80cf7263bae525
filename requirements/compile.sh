#!/usr/bin/env bash
# compile.sh UV [DATE]: write the lock, requirements/*.txt, from both pyproject.toml and requirements/*.in.
#
# DATE (YYYY-MM-DD): releases from that day on are left out, so that the same date gives the same lock. Default:
# COOL_DOWN_DAYS ago; a bad release is usually withdrawn within days.
set -euo pipefail
cd "$(dirname "$0")/.."
uv=$1
COOL_DOWN_DAYS=7
date=${2:-$(date --utc --date "$COOL_DOWN_DAYS days ago" +%F)}
work=.cache/lock # a fixed name: the lock quotes it
mkdir -p "$work"
# torch's builds differ from machine to machine (docs/decisions/0012); the verifier of receipts is in this tree, and the
# index may not have its release yet (docs/decisions/0020). What the verifier needs is locked.
printf '%s\n' torch tunewarden-receipts >"$work/excludes"
projects=(pyproject.toml packages/receipts/pyproject.toml)

compile() {
  "$uv" pip compile --quiet --no-config --universal --python-version 3.11 --exclude-newer "${date}T00:00:00Z" \
    --excludes "$work/excludes" --custom-compile-command "make lock DATE=$date" "$@"
}

# All at once first: the sets are installed into one environment, so they must agree.
compile --no-header "${projects[@]}" requirements/{build,torch}.in --all-extras --output-file "$work/all.txt"
one() {
  local name=$1
  shift
  compile --constraints "$work/all.txt" --generate-hashes --output-file "$work/$name" "$@"
  mv "$work/$name" "requirements/$name"
}
one core.txt "${projects[@]}"
one local.txt "${projects[@]}" requirements/torch.in --extra local
one dev.txt "${projects[@]}" --extra dev
one build.txt requirements/build.in
one suite.txt --no-deps requirements/suite.in
# Each of these has a place of its own.
compile --generate-hashes --output-file requirements/openai2.txt requirements/openai2.in
compile --generate-hashes --output-file requirements/docs.txt requirements/docs.in
compile --generate-hashes --output-file requirements/browser.txt requirements/browser.in
compile --generate-hashes --output-file requirements/uv.txt requirements/uv.in
# torch's extensions for sound and pictures come as CUDA builds, which do not load beside a CPU build of torch; text needs
# none of them, and a CPU no triton.
printf '%s\n' torchaudio torchcodec torchvision triton >>"$work/excludes"
for release in 0.31 0.32; do # what tunewarden-vllm supports
  compile --generate-hashes --output-file "requirements/vllm-$release.txt" "requirements/vllm-$release.in" requirements/torch.in
done
