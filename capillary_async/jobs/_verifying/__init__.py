"""What `verify` checks: the manifest, the shards, the database, the failures, and a sample from the service."""
