"""Stages of the work on items, and what runs them with equal results: processes on a laptop, Ray on a cluster."""
