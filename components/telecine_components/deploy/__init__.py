"""The way of a model out of the platform, and of a report to people."""
