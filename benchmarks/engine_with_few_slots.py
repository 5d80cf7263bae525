"""The embedded engine with so few adapter slots that a handful of models take turns at them, and each is loaded anew."""

import sys

from tunewarden.embedded_engine import worker

SLOTS = 4

if __name__ == "__main__":
    sys.exit(worker.main(["--adapters", str(SLOTS), *sys.argv[1:]]))
