// empty is a shared object that is no SQLite extension.

int nothing_to_load;
