"""The contract of a method and the bases that methods share."""
