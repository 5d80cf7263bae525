"""Schema migrations, each applied once, in order."""

from importlib import resources


def found() -> list[tuple[int, str, str]]:
    """Return the version, the name and the SQL of each migration, in order."""
    folder = resources.files(__name__)
    migrations = [
        (int(entry.name[:4]), entry.name, entry.read_text("utf-8"))
        for entry in folder.iterdir()
        if entry.name.endswith(".sql")
    ]
    return sorted(migrations)
