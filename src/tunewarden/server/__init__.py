"""The server's processes: supervisor, worker, runner; and the first start."""
