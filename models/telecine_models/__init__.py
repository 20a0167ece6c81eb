"""Models of Telecine: pure mathematics of video generation. No network, no files except a path passed in."""
