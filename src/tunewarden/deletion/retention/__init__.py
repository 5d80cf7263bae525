"""What goes by its age: retention rules of models, expiry of files; and what pauses both."""
