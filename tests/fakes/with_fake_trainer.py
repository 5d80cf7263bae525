"""`python -m tests.fakes.with_fake_trainer serve …`: a server whose engine and trainers are stand-ins."""

from tunewarden.__main__ import main
from tunewarden.server import supervisor

if __name__ == "__main__":
    supervisor.ENGINE = "tests.fakes.engine_server"
    supervisor.RUNNER = "tests.fakes.runner_with_fake_trainer"
    main()
