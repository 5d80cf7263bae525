#!/usr/bin/env bash
# prepare.sh DIR PIP…: what the image is built from where no registry can be reached: a root of Debian packages in DIR/base,
# and in DIR/wheels the wheels of the locks, which PIP fetches for that root's Python.
set -euo pipefail
cd "$(dirname "$0")/../.."
directory=$1
shift
python=3.11
for tool in buildah debootstrap podman runc; do
  command -v "$tool" >/dev/null || { echo "apt-get install buildah debootstrap podman runc, which this needs" >&2; exit 1; }
done
[ "$(id -u)" = 0 ] || { echo "This needs root, for debootstrap and for containers." >&2; exit 1; }
mkdir -p "$directory/wheels"
"$@" download --python-version "$python" --only-binary :all: --no-deps --require-hashes --dest "$directory/wheels" \
  --requirement requirements/core.txt --requirement requirements/build.txt
if [ ! -e "$directory/base/usr/bin/tini-static" ]; then
  rm -rf "$directory/base"
  debootstrap --variant=minbase --include=ca-certificates,python3,python3-venv,tini bookworm "$directory/base"
  rm -rf "$directory"/base/var/{cache/apt,lib/apt/lists,log}/* "$directory"/base/usr/share/{doc,locale,man}/*
fi
