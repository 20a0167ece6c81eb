"""deploy.serve: text to video over HTTP, one task at a time."""
