// rot13 is a SQLite extension with a function rot13(text), a collation of the same name, and a module of virtual tables,
// broken, whose tables can be made and never read. NOTE, a text, makes another file of it that does the same.

#include "sqlite3ext.h"
#include <string.h>

SQLITE_EXTENSION_INIT1

#ifdef NOTE
const char rot13_note[] = NOTE;
#endif

static char rotate(char c) {
	if (c >= 'a' && c <= 'z') {
		return 'a' + (c - 'a' + 13) % 26;
	}
	if (c >= 'A' && c <= 'Z') {
		return 'A' + (c - 'A' + 13) % 26;
	}
	return c;
}

static void rot13(sqlite3_context *ctx, int argc, sqlite3_value **argv) {
	(void)argc;
	const char *in = (const char *)sqlite3_value_text(argv[0]);
	int n = sqlite3_value_bytes(argv[0]);
	if (in == NULL) {
		return; // NULL
	}
	char *out = sqlite3_malloc(n + 1);
	if (out == NULL) {
		sqlite3_result_error_nomem(ctx);
		return;
	}
	for (int i = 0; i < n; i++) {
		out[i] = rotate(in[i]);
	}
	sqlite3_result_text(ctx, out, n, sqlite3_free);
}

static int collate(void *p, int n, const void *a, int m, const void *b) {
	(void)p;
	for (int i = 0; i < n && i < m; i++) {
		int d = rotate(((const char *)a)[i]) - rotate(((const char *)b)[i]);
		if (d != 0) {
			return d;
		}
	}
	return n - m;
}

// A number that differs between processes must not be had from a function of an extension, whatever its name.
static void random_seven(sqlite3_context *ctx, int argc, sqlite3_value **argv) {
	(void)argc, (void)argv;
	sqlite3_result_int(ctx, 7);
}

static int broken_connect(sqlite3 *db, void *p, int argc, const char *const *argv, sqlite3_vtab **out, char **err) {
	(void)p, (void)argc, (void)argv, (void)err;
	*out = sqlite3_malloc(sizeof(sqlite3_vtab));
	if (*out == NULL) {
		return SQLITE_NOMEM;
	}
	memset(*out, 0, sizeof(sqlite3_vtab));
	return sqlite3_declare_vtab(db, "CREATE TABLE t(a)");
}

static int broken_disconnect(sqlite3_vtab *t) {
	sqlite3_free(t);
	return SQLITE_OK;
}

static int broken_index(sqlite3_vtab *t, sqlite3_index_info *info) {
	(void)t, (void)info;
	return SQLITE_OK;
}

static int broken_open(sqlite3_vtab *t, sqlite3_vtab_cursor **out) {
	(void)t, (void)out;
	return SQLITE_IOERR;
}

static sqlite3_module broken = {
	.iVersion = 1,
	.xCreate = broken_connect,
	.xConnect = broken_connect,
	.xBestIndex = broken_index,
	.xDisconnect = broken_disconnect,
	.xDestroy = broken_disconnect,
	.xOpen = broken_open,
};

int sqlite3_extension_init(sqlite3 *db, char **err, const sqlite3_api_routines *api) {
	(void)err;
	SQLITE_EXTENSION_INIT2(api);
	int rc = sqlite3_create_function(db, "rot13", 1, SQLITE_UTF8 | SQLITE_DETERMINISTIC | SQLITE_INNOCUOUS, NULL, rot13, NULL, NULL);
	if (rc == SQLITE_OK) {
		rc = sqlite3_create_function(db, "random", 0, SQLITE_UTF8 | SQLITE_INNOCUOUS, NULL, random_seven, NULL, NULL);
	}
	if (rc == SQLITE_OK) {
		rc = sqlite3_create_collation(db, "rot13", SQLITE_UTF8, NULL, collate);
	}
	if (rc == SQLITE_OK) {
		rc = sqlite3_create_module(db, "broken", &broken, NULL);
	}
	return rc;
}
