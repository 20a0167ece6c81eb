"""Mark clips that copy or resemble a better one."""
