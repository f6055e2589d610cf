"""Writes quantities for people: costs with a decimal unit, durations."""


def format_quantity(value: float) -> str:
    """A cost with a decimal unit: 950, 12.3K, 4.56M; three digits below 10, where seconds would be lost: 0.42, 3."""
    for limit, unit in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e4, "K")):
        if value >= limit:
            return f"{value / (1e3 if unit == 'K' else limit):.3g}{unit}"
    return f"{value:.3g}" if value < 10 else f"{value:,.0f}"


def format_length(number: float) -> str:
    """A number with a binary prefix where that is exact, as L in W-L-CR: 512, 1K, 16K, 1M."""
    for power, prefix in ((30, "G"), (20, "M"), (10, "K")):
        if number >= 2**power and number % 2**power == 0:
            return f"{int(number) >> power}{prefix}"
    return f"{number:g}"


def format_duration(seconds: float) -> str:
    """A duration in its largest sensible unit: 40 seconds, 3.2 hours, 12 days."""
    for unit, size in (("days", 86400.0), ("hours", 3600.0), ("minutes", 60.0)):
        if seconds >= 2 * size:
            amount = seconds / size
            return f"{amount:,.1f} {unit}" if amount < 10 else f"{amount:,.0f} {unit}"
    return f"{seconds:,.0f} seconds"


def format_speed(speed: float) -> str:
    """Tokens per second, with decimals where there are few: 1,234, 2.5, 0.049."""
    return f"{speed:,.0f}" if speed >= 10 else f"{speed:.2g}"


def format_price(amount: float) -> str:
    """An amount of whatever money its price was in, with cents where they count: 0.42, 31.50, 1,260."""
    return f"{amount:,.2f}" if amount < 100 else f"{amount:,.0f}"
