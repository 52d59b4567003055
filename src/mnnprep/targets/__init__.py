"""Where a converted model runs, other than here: the kit for a device, and what comes back from one."""
