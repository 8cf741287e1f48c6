// SQLite extensions: shared objects of the operator's, loaded into each connection. load_extension() stays refused.

#include "sqlite.h"
#include <dlfcn.h>
#include <stdio.h>

#define WEAK __attribute__((weak))

WEAK int sqlite3_load_extension(sqlite3 *, const char *, const char *, char **);
WEAK int sqlite3_db_config(sqlite3 *, int, ...);

// Numbers of sqlite3.h.
enum { OK = 0, DBCONFIG_ENABLE_LOAD_EXTENSION = 1005 };

// db_library_keep loads a shared object for as long as the process runs, and says in err why it can't be. SQLite, which
// would try other names as well, tells the reason for the last of them. A library must not come and go with connections:
// some cannot go, and loading one takes long.
int db_library_keep(const char *path, char *err, size_t n) {
	if (dlopen(path, RTLD_NOW | RTLD_GLOBAL | RTLD_NODELETE) != NULL) {
		return 1;
	}
	const char *reason = dlerror();
	snprintf(err, n, "%s", reason != NULL ? reason : "unknown reason");
	return 0;
}

// db_load_extensions loads the libraries into a connection. It leaves the words of one that does not like it in
// c->refusal.
int db_load_extensions(db_conn *c, const char *const *paths, int n) {
	if (n == 0) {
		return OK;
	}
	int rc = sqlite3_db_config(c->db, DBCONFIG_ENABLE_LOAD_EXTENSION, 1, NULL); // not the SQL function
	for (int i = 0; i < n && rc == OK; i++) {
		rc = sqlite3_load_extension(c->db, paths[i], NULL, &c->refusal);
		if (rc != OK) {
			c->refused = i;
		}
	}
	int off = sqlite3_db_config(c->db, DBCONFIG_ENABLE_LOAD_EXTENSION, 0, NULL);
	return rc != OK ? rc : off;
}
