"""deploy.promote: a person's decision about a version, carried out and recorded."""
