"""What models exist, and in which state."""
