"""Reading customers and writing their shards."""
