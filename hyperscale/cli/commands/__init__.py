"""The commands, one file each: options in, results printed. Heavy imports wait until a command runs."""
