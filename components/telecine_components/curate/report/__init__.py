"""A page and pictures of what curation kept, what it rejected, and why."""
