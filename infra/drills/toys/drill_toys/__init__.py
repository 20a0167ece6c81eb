"""Toy components for the drills, installed for a drill the way anybody's own components would be."""
