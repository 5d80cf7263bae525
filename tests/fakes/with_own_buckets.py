"""`python -m tests.fakes.with_own_buckets serve …`: each worker counts rate limits in a memory of its own.

The control of what is counted over all workers: it lets through as many times more as there are workers.
"""

from tunewarden.__main__ import main
from tunewarden.server import supervisor

if __name__ == "__main__":
    supervisor.WORKER = "tests.fakes.own_buckets_worker"
    main()
