"""Pages for people, below `/console`: rendered here, without a script of anybody else's (DESIGN, section 16)."""
