"""What the page sends is checked here before anybody uses it: the browser's own limits are no limits."""

from pydantic import TypeAdapter, ValidationError

from transfer.errors import PointError

FINITE: TypeAdapter[float] = TypeAdapter(float)


def number(value: object, name: str, low: float, high: float) -> float:
    """A finite number within bounds. Raises PointError that names the field."""
    try:
        found = FINITE.validate_python(value)
    except (ValidationError, ArithmeticError) as error:
        raise PointError(f"{name} must be a number.") from error
    if not low <= found <= high:  # also for NaN
        raise PointError(f"{name} must lie between {low:,.12g} and {high:,.12g}.")
    return found


def whole(value: object, name: str, low: int, high: int) -> int:
    """A whole number within bounds. Raises PointError."""
    found = number(value, name, low, high)
    if found != int(found):
        raise PointError(f"{name} must be a whole number.")
    return int(found)


def words(value: object, name: str, most: int) -> str:
    """Text of bounded length. Raises PointError."""
    text = value.encode("utf-8", "replace").decode() if isinstance(value, str) else ""  # half a surrogate is no text
    if len(text) > most:
        raise PointError(f"{name} has {len(text):,} characters; at most {most:,} are taken.")
    return text
