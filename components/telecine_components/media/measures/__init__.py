"""What is measured of footage: pure functions on small pictures, each defined where it is computed."""
