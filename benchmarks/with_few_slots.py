"""`python -m benchmarks.with_few_slots serve …` is `tunewarden serve …` whose engine is `engine_with_few_slots`."""

from tunewarden.__main__ import main
from tunewarden.server import supervisor

if __name__ == "__main__":
    supervisor.ENGINE = "benchmarks.engine_with_few_slots"
    main()
