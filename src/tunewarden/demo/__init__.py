"""A small real base and a real fine-tune of it, made here in under a minute without a network."""
