"""Methods named ``kvpress:NAME``: presses of the installed kvpress, read by name and given their nominal CR."""
