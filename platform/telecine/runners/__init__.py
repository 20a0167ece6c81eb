"""Where a component can be started: a runner is a module with functions, chosen by TELECINE_RUNNER."""
