"""`python -m benchmarks.peers.with_stand_in serve …` is `tunewarden serve …` whose engine is the stand-in in C."""

from tunewarden.__main__ import main
from tunewarden.server import supervisor

if __name__ == "__main__":
    supervisor.ENGINE = "benchmarks.peers.stand_in"
    main()
