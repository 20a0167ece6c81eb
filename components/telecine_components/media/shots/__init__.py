"""Finding the shots of a film: our detector, and Koala-36M's."""
