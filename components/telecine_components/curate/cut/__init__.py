"""Cut kept clips out of their films, into shards of alike clips."""
