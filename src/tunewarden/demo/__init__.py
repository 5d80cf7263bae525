"""The demo: a small real base and a real fine-tune of it, trained here in minutes, without a network."""
