"""`python -m benchmarks.with_echo_engine serve …` is `tunewarden serve …` whose engine is `echo_engine`."""

from tunewarden.__main__ import main
from tunewarden.server import supervisor

if __name__ == "__main__":
    supervisor.ENGINE = "benchmarks.echo_engine"
    main()
