"""The plugin as vLLM sees it: `register` is the entry point, and what it registers or starts stands beside it.

`configure` changes vLLM's configuration at start-up, with `refusals` as the list of what cannot run; `connector` is the
KV connector, which passes messages between scheduler and workers; `parent_watch` ends a process with the harness.
"""
