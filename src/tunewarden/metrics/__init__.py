"""What the server counts: its metrics (`families.py`), and the memory that its processes count in (`memory.py`)."""
