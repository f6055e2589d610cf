"""hyperscale: how accurate can a reasoning model be at a given budget of KV-cache reads or memory?"""

__version__ = "0.1.0"
