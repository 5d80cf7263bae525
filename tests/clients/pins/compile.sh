#!/usr/bin/env bash
# compile.sh UV [DATE]: write the pins of every client's environment, NAME.txt, from NAME.in (docs/decisions/0029).
#
# DATE (YYYY-MM-DD): releases from that day on are left out. Default: COOL_DOWN_DAYS ago, as for the lock of the server.
set -euo pipefail
uv=$(realpath "$1")
COOL_DOWN_DAYS=7
date=${2:-$(date --utc --date "$COOL_DOWN_DAYS days ago" +%F)}
cd "$(dirname "$0")"
# A gigabyte that no client of a server needs.
excludes=$(mktemp)
trap 'rm "$excludes"' EXIT
echo torch >"$excludes"
for file in ${ONLY:-*.in}; do
  "$uv" pip compile --quiet --no-config --universal --python-version 3.11 --exclude-newer "${date}T00:00:00Z" \
    --excludes "$excludes" --no-annotate --custom-compile-command "make lock-clients DATE=$date" --output-file "${file%.in}.txt" "$file"
done
