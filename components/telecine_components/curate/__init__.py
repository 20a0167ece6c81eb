"""From raw footage to training shards."""
