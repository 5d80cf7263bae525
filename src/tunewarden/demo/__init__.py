"""The demo: a small real base model and one fine-tune of it."""
