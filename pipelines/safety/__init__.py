"""Guards: limits of what is read of files from strangers, their zips, and credentials that nobody may see."""
