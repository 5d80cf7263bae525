"""Where deletion happens: the protocol, its steps, their executor, and recovery."""
