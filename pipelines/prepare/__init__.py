"""Raw datasets to prepared data: Parquet shards, a manifest, and a quarantine of what could not be used."""
