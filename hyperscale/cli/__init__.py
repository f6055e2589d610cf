"""The command line: `main` starts it, ``commands/`` has one file a command, ``display/`` what a run looks like."""
