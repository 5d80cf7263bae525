"""Run in the Python of the tree that is measured: its server, until standard input ends.

`python -P served.py DIRECTORY STAND_IN`. Prints a line of JSON: port, key, model, process. Everything it imports is
the other tree's, which may be an older one.
"""

import contextlib
import json
import sys
from pathlib import Path

from benchmarks.peers import subjects


def main() -> None:
    here, stand_in = map(Path, sys.argv[1:])
    with contextlib.ExitStack() as running:
        bench = subjects.Bench(here, stand_in, running)
        with contextlib.redirect_stdout(sys.stderr):
            subjects.start(bench, ["tunewarden"])
        one = next(one for one in bench.subjects if one.name == subjects.TUNEWARDEN)
        told = {"port": one.port, "key": one.key, "model": one.model, "process": one.process}
        print(json.dumps(told), flush=True)
        sys.stdin.read()


if __name__ == "__main__":
    main()
