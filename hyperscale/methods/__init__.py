"""KV-compression methods: one file each, registered by name."""
