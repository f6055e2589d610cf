"""One verdict from the W chains of a problem."""
