"""From an admitted request to an engine and back."""
