"""`python -m tests.fakes.with_fake_engine serve …` is `tunewarden serve …` with the engine's stand-in."""

from tunewarden.__main__ import main
from tunewarden.server import supervisor

if __name__ == "__main__":
    supervisor.ENGINE = "tests.fakes.engine_server"
    main()
