"""Writes quantities for people: costs with a decimal unit, durations."""


def format_quantity(value: float) -> str:
    """A cost with a decimal unit: 950, 12.3K, 4.56M."""
    for limit, unit in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e4, "K")):
        if value >= limit:
            return f"{value / (1e3 if unit == 'K' else limit):.3g}{unit}"
    return f"{value:,.0f}"
