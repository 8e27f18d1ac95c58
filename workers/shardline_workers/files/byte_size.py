"""Numbers of bytes as people read them."""


def shown_bytes(num_bytes: int) -> str:
    """Decimal units, three digits or so: 98.4 MB."""
    if num_bytes < 1000:
        return f"{num_bytes} B"
    size = num_bytes / 1000
    for unit in ("kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} TB"
