"""Models of vLLM with the plugin's attention."""
