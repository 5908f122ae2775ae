"""What a number of a setting must be, said by name where it is not."""


def at_least(name: str, value: float, least: float) -> None:
    """Raises ValueError: `value` is smaller, or no number."""
    if not value >= least:
        raise ValueError(f"{name} must be at least {least}, got {value}")


def between(name: str, value: float, low: float, high: float) -> None:
    """Raises ValueError: `value` lies outside, or is no number."""
    if not low <= value <= high:
        raise ValueError(f"{name} must be between {low} and {high}, got {value}")
