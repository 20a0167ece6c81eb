"""Telecine's platform library: the contract that every component, runner and DAG meets.

Torch-free and safe to import while Airflow parses a DAG.
"""

__version__ = "0.1.0"
