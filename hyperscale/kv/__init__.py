"""The ragged per-head KV cache and the ledger: the one definition of cost."""
