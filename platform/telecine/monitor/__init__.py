"""What a machine and its runs are doing, for a terminal and for Prometheus."""
