#include "equal.h"
#include "bounds.h"
#include <stdlib.h>
#include <string.h>

typedef struct sqlite3_context sqlite3_context;
typedef struct sqlite3_value sqlite3_value;

#define WEAK __attribute__((weak))

WEAK int sqlite3_open_v2(const char *, sqlite3 **, int, const char *);
WEAK int sqlite3_close_v2(sqlite3 *);
WEAK int sqlite3_exec(sqlite3 *, const char *, int (*)(void *, int, char **, char **), void *, char **);
WEAK int sqlite3_prepare_v3(sqlite3 *, const char *, int, unsigned, sqlite3_stmt **, const char **);
WEAK int sqlite3_finalize(sqlite3_stmt *);
WEAK int sqlite3_step(sqlite3_stmt *);
WEAK int sqlite3_reset(sqlite3_stmt *);
WEAK int sqlite3_clear_bindings(sqlite3_stmt *);
WEAK int sqlite3_bind_parameter_count(sqlite3_stmt *);
WEAK int sqlite3_bind_text64(sqlite3_stmt *, int, const char *, uint64_t, void (*)(void *), unsigned char);
WEAK int sqlite3_bind_blob64(sqlite3_stmt *, int, const void *, uint64_t, void (*)(void *));
WEAK int sqlite3_stmt_readonly(sqlite3_stmt *);
WEAK int sqlite3_stmt_isexplain(sqlite3_stmt *);
WEAK int sqlite3_stmt_status(sqlite3_stmt *, int, int);
WEAK int sqlite3_column_count(sqlite3_stmt *);
WEAK const char *sqlite3_column_name(sqlite3_stmt *, int);
WEAK const char *sqlite3_column_decltype(sqlite3_stmt *, int);
WEAK const char *sqlite3_column_table_name(sqlite3_stmt *, int);
WEAK int sqlite3_column_type(sqlite3_stmt *, int);
WEAK int64_t sqlite3_column_int64(sqlite3_stmt *, int);
WEAK double sqlite3_column_double(sqlite3_stmt *, int);
WEAK const unsigned char *sqlite3_column_text(sqlite3_stmt *, int);
WEAK const void *sqlite3_column_blob(sqlite3_stmt *, int);
WEAK int sqlite3_column_bytes(sqlite3_stmt *, int);
WEAK int sqlite3_stmt_busy(sqlite3_stmt *);
WEAK int sqlite3_get_autocommit(sqlite3 *);
WEAK int64_t sqlite3_total_changes64(sqlite3 *);
WEAK int sqlite3_set_authorizer(sqlite3 *, int (*)(void *, int, const char *, const char *, const char *, const char *), void *);
WEAK void sqlite3_progress_handler(sqlite3 *, int, int (*)(void *), void *);
WEAK void sqlite3_interrupt(sqlite3 *);
WEAK int sqlite3_busy_timeout(sqlite3 *, int);
WEAK int sqlite3_db_config(sqlite3 *, int, ...);
WEAK int sqlite3_extended_result_codes(sqlite3 *, int);
WEAK int sqlite3_table_column_metadata(sqlite3 *, const char *, const char *, const char *, const char **, const char **, int *, int *, int *);
WEAK int sqlite3_create_function(sqlite3 *, const char *, int, int, void *, void (*)(sqlite3_context *, int, sqlite3_value **),
	void (*)(sqlite3_context *, int, sqlite3_value **), void (*)(sqlite3_context *));
WEAK void *sqlite3_user_data(sqlite3_context *);
WEAK int64_t sqlite3_value_int64(sqlite3_value *);
WEAK void sqlite3_result_int64(sqlite3_context *, int64_t);
WEAK void sqlite3_result_blob64(sqlite3_context *, const void *, uint64_t, void (*)(void *));
WEAK void sqlite3_result_error_toobig(sqlite3_context *);
WEAK void sqlite3_result_error_nomem(sqlite3_context *);
WEAK void sqlite3_randomness(int, void *);
WEAK int sqlite3_limit(sqlite3 *, int, int);
WEAK void *sqlite3_malloc64(uint64_t);
WEAK void sqlite3_free(void *);
WEAK int sqlite3_wal_checkpoint_v2(sqlite3 *, const char *, int, int *, int *);
WEAK int sqlite3_stricmp(const char *, const char *);
WEAK int sqlite3_strnicmp(const char *, const char *, int);

// Numbers of sqlite3.h.
enum {
	OK = 0, NOMEM = 7, INTERRUPT = 9, FULL = 13, TOOBIG = 18, MISUSE = 21, ROW = 100, DONE = 101,
	DENY = 1, IGNORE = 2,
	UTF8 = 1, INNOCUOUS = 0x200000, PREPARE_PERSISTENT = 1,
	TYPE_INTEGER = 1, TYPE_FLOAT = 2, TYPE_TEXT = 3, TYPE_BLOB = 4,
	STMTSTATUS_VM_STEP = 4, STMTSTATUS_REPREPARE = 5, AUTH = 23,
	LIMIT_LENGTH = 0, LIMIT_SQL_LENGTH = 1, LIMIT_WORKER_THREADS = 11,
	DBCONFIG_LOOKASIDE = 1001, DBCONFIG_ENABLE_FKEY = 1002, DBCONFIG_NO_CKPT_ON_CLOSE = 1006, DBCONFIG_DEFENSIVE = 1010,
};
#define TRANSIENT ((void (*)(void *))-1)

const char *db_vfs_name(struct db_vfs *v);
void db_vfs_room(struct db_vfs *v, int64_t room);
int db_vfs_main_size(struct db_vfs *v, int64_t *out);
int db_vfs_disk_full(struct db_vfs *v);
int db_vfs_temp_full(struct db_vfs *v);
int db_vfs_locked_out(struct db_vfs *v);
int db_vfs_read_refused(void);

// ---- What statements may do ----

static int listed(const char *const *names, const char *name) {
	for (; *names != NULL; names++) {
		if (sqlite3_stricmp(*names, name) == 0) {
			return 1;
		}
	}
	return 0;
}

// PRAGMAs that take an argument and leave nothing behind on the connection.
static const char *const stateless[] = {
	"table_info", "table_xinfo", "table_list", "index_info", "index_xinfo", "index_list", "foreign_key_list",
	"foreign_key_check", "integrity_check", "quick_check", "user_version", "application_id", "incremental_vacuum", NULL,
};

// PRAGMAs that may be read and not set. The list that users see is in policy.go; this one
// also holds for what SQLite runs on its own, such as table-valued PRAGMA functions.
static const char *const fixed[] = {
	"journal_mode", "wal_autocheckpoint", "synchronous", "query_only", "locking_mode", "writable_schema",
	"schema_version", "hard_heap_limit", "soft_heap_limit", "temp_store_directory", "data_store_directory", NULL,
};

// PRAGMAs that would move memory to where no bound counts it. They have no effect, except to make the cache
// smaller. None of them would outlive its entry, or its read.
static const char *const ineffective[] = {"cache_size", "cache_spill", "temp_store", "mmap_size", "threads", NULL};

static int smaller_cache(const char *name, const char *arg) {
	long n = strtol(arg, NULL, 10); // pages, or KiB if negative
	return sqlite3_stricmp(name, "cache_size") == 0 && n >= -2000 && n <= 100;
}

static int deny(db_conn *c, int reason) {
	c->denied = reason;
	return DENY;
}

static int authorize_pragma(db_conn *c, const char *name, const char *arg) {
	c->seen |= SEEN_PRAGMA;
	if (sqlite3_stricmp(name, "integrity_check") == 0 || sqlite3_stricmp(name, "quick_check") == 0) {
		c->seen |= SEEN_CHECK;
	}
	if (sqlite3_stricmp(name, "wal_checkpoint") == 0 || (arg != NULL && listed(fixed, name))) {
		return deny(c, DENIED_PRAGMA);
	}
	if (c->role == ROLE_WRITER && sqlite3_stricmp(name, "optimize") == 0) {
		return deny(c, DENIED_OPTIMIZE);
	}
	if (arg != NULL && c->role != ROLE_CLASSIFIER && listed(ineffective, name) && !smaller_cache(name, arg)) {
		return IGNORE;
	}
	if (arg != NULL && !listed(stateless, name)) {
		c->seen |= SEEN_STATE;
		if (c->role == ROLE_CLASSIFIER) {
			return IGNORE; // many take effect as soon as they are prepared
		}
	}
	return OK;
}

// see_read notes what a table that is read tells of.
static void see_read(db_conn *c, const char *table) {
	if (db_local_table(table)) {
		if (sqlite3_table_column_metadata(c->db, NULL, table, NULL, NULL, NULL, NULL, NULL, NULL) == OK) {
			return; // a table of the client's that has the same name
		}
		c->seen |= SEEN_LOCAL;
		strncpy(c->local, table, sizeof c->local - 1);
	} else if (sqlite3_stricmp(table, "pragma_table_info") == 0 || sqlite3_stricmp(table, "pragma_table_xinfo") == 0) {
		c->seen |= SEEN_COLUMNS;
	} else if (sqlite3_stricmp(table, "pragma_integrity_check") == 0 || sqlite3_stricmp(table, "pragma_quick_check") == 0) {
		c->seen |= SEEN_CHECK;
	}
}

static int authorize(void *p, int action, const char *a, const char *b, const char *schema, const char *trigger) {
	db_conn *c = p;
	(void)trigger;
	if (c->trusted) {
		return OK;
	}
	switch (action) {
	case 20: // READ
		if (a != NULL) {
			see_read(c, a);
		}
		return OK;
	case 21: // SELECT
		c->seen |= SEEN_SELECT;
		return OK;
	case 28: // ANALYZE; what it has found stays with the connection, also if it is rolled back
		c->seen |= SEEN_STATE | SEEN_INSERT | SEEN_ANALYZE;
		return OK;
	case 19: // PRAGMA
		return authorize_pragma(c, a, b);
	case 24: // ATTACH; VACUUM attaches a file without a name, VACUUM INTO one with
		if (c->stepping) {
			if (c->bounds != NULL) {
				c->bounds->replace = 1; // to read the schema again
			}
			return a != NULL && *a == 0 ? OK : deny(c, DENIED_VACUUM_INTO);
		}
		return deny(c, DENIED_ATTACH);
	case 25: // DETACH
		return deny(c, DENIED_DETACH);
	case 22: // BEGIN, COMMIT, ROLLBACK
	case 32: // SAVEPOINT, RELEASE, ROLLBACK TO
		c->seen |= SEEN_TRANSACTION;
		if (a != NULL && sqlite3_stricmp(a, "ROLLBACK") == 0) {
			c->seen |= SEEN_ROLLBACK;
		}
		return c->role == ROLE_READER && !c->stepping ? deny(c, DENIED_TRANSACTION) : OK;
	case 2: // CREATE TABLE
		c->seen |= SEEN_TABLE;
		return OK;
	case 3: case 4: case 5: case 6:     // CREATE TEMP INDEX, TABLE, TRIGGER, VIEW
	case 12: case 13: case 14: case 15: // DROP TEMP …
		c->seen |= SEEN_STATE | (action == 4 ? SEEN_TABLE : 0);
		return OK;
	case 29: // CREATE VIRTUAL TABLE
		if (b != NULL && db_local_table(b)) {
			c->seen |= SEEN_LOCAL;
			strncpy(c->local, b, sizeof c->local - 1);
		}
		if (schema != NULL && sqlite3_stricmp(schema, "temp") == 0) {
			c->seen |= SEEN_STATE;
		}
		return OK;
	case 9: case 18: case 23: // DELETE, INSERT, UPDATE
		// The planner would learn these at the next opening only, which is not at the same time
		// on all nodes.
		c->seen |= action == 18 ? SEEN_INSERT : 0;
		if (c->record_targets && !c->stepping && a != NULL && schema != NULL && !db_list_add(&c->targets, action, schema, a)) {
			c->out_of_memory = 1;
			return DENY;
		}
		if (a != NULL && sqlite3_strnicmp(a, "sqlite_stat", 11) == 0) {
			c->seen |= SEEN_STATE | SEEN_COUNTED;
		} else if (a != NULL && sqlite3_stricmp(a, "sqlite_master") == 0) {
			c->seen |= SEEN_SCHEMA;
		} else if (a != NULL && sqlite3_stricmp(a, "sqlite_temp_master") != 0) {
			c->seen |= SEEN_COUNTED;
		}
		if (a != NULL && schema != NULL && db_listed(c->forgetful, schema, a)) {
			c->seen |= SEEN_STATE;
		}
		return OK;
	case 31: // a call of a function
		if (b != NULL && sqlite3_stricmp(b, "changes") == 0) {
			c->seen |= SEEN_CHANGES;
		}
		return OK;
	}
	return OK;
}

static int progress(void *p) { return __atomic_load_n(&((db_conn *)p)->cancel, __ATOMIC_RELAXED); }

// ---- Bounds of the writer ----

enum {
	PROGRESS_STEPS = 1000,
	MAX_PEAK = 16 << 20, MAX_RETAINED = 1 << 20, // bytes of an entry, and after any number, that keep the connection
	MAX_CACHED = 1 << 20,                        // bytes of a statement that may be kept
	MAX_IDLE_BUFFER = 256 << 10,                 // bytes of the buffer for rows that a reader keeps
};

// count_steps is called by SQLite each so many steps of a statement.
static int count_steps(void *p) {
	db_conn *c = p;
	db_bounds *b = c->bounds;
	int64_t *steps = b->parsing ? &b->parse_steps : &b->steps;
	*steps += PROGRESS_STEPS;
	if (c->trusted || *steps <= b->max_steps) {
		return 0;
	}
	b->hit = BOUND_STEPS;
	return 1;
}

// db_set_bounds bounds what each entry may use on the connection of the writer.
int db_set_bounds(db_conn *c, int value, int64_t memory, int64_t volume, int64_t steps, int64_t result, int64_t room) {
	db_bounds *b = calloc(1, sizeof *b);
	if (b == NULL) {
		return NOMEM;
	}
	b->parse.max_live = b->run.max_live = memory;
	b->parse.max_volume = b->run.max_volume = volume;
	b->parse.max_file = b->run.max_file = INT64_MAX;
	b->max_steps = steps;
	b->max_result = result;
	b->min_room = room;
	c->bounds = b;
	db_account_begin(&b->run);
	sqlite3_limit(c->db, LIMIT_LENGTH, value);
	sqlite3_limit(c->db, LIMIT_SQL_LENGTH, value);
	sqlite3_limit(c->db, LIMIT_WORKER_THREADS, 0); // their memory would be on other threads
	sqlite3_progress_handler(c->db, PROGRESS_STEPS, count_steps, c);
	return OK;
}

// db_rest ends what a reader has counted for a request, and says whether a bound was met. A connection that waits
// for its next request keeps no buffer that a huge row has blown up.
int db_rest(db_conn *c) {
	if (c->buf.cap > MAX_IDLE_BUFFER) {
		free(c->buf.p);
		c->buf = (db_buf){0};
	}
	int hit = c->meter != NULL && c->meter->hit != BOUND_NONE;
	if (c->meter != NULL) {
		db_account_return(c->meter);
	}
	return hit;
}

// db_begin_bounds gives the entry that begins all that an entry may use.
int db_begin_bounds(db_conn *c) {
	db_bounds *b = c->bounds;
	int64_t size = 0;
	int rc = db_vfs_main_size(c->vfs, &size);
	b->room = 2 * size > b->min_room ? 2 * size : b->min_room;
	b->run.max_file = size + b->room;
	b->steps = b->result = 0;
	db_account_begin(&b->run);
	db_vfs_room(c->vfs, b->room);
	return rc;
}

// db_room returns the bytes of temporary files that the entry may have, and by which the database may grow.
int64_t db_room(db_conn *c) { return c->bounds->room; }

// db_end_bounds says whether the entry has left so much on the connection, or in such a state, that the
// next one could meet a bound on it at another point than on a new connection.
int db_end_bounds(db_conn *c) {
	db_bounds *b = c->bounds;
	if (b->run.live > 0) {
		b->retained += b->run.live;
	}
	db_vfs_room(c->vfs, INT64_MAX);
	return b->replace || b->run.peak > MAX_PEAK || b->retained > MAX_RETAINED;
}

// enter makes the account of the entry current, or that of a parse. What belongs to the end of a statement
// or is our own is counted and never refused.
static db_account *enter(db_conn *c, int parsing, int exempt) {
	db_bounds *b = c->bounds;
	if (b == NULL && c->meter == NULL) {
		return NULL;
	}
	if (b == NULL) {
		c->meter->exempt = exempt;
		if (!exempt) {
			c->meter->hit = BOUND_NONE;
		}
		return db_account_enter(c->meter);
	}
	db_account *a = &b->run;
	if (parsing) {
		a = &b->parse;
		db_account_begin(a);
		b->parse_steps = 0;
	}
	b->parsing = parsing;
	if (!exempt) {
		b->hit = a->hit = BOUND_NONE; // else it is the end of a statement, and what it has met stands
	}
	a->exempt = exempt;
	return db_account_enter(a);
}

static void forget_hit(db_conn *c) {
	if (c->bounds != NULL) {
		c->bounds->hit = c->bounds->run.hit = BOUND_NONE;
	}
}

static void leave(db_conn *c, db_account *outer) {
	db_bounds *b = c->bounds;
	if (b == NULL && c->meter != NULL) {
		db_account_leave(outer);
		if (db_vfs_read_refused()) {
			c->meter->hit = BOUND_TEMP;
		}
	}
	if (b == NULL) {
		return;
	}
	db_account_leave(outer);
	db_account *a = b->parsing ? &b->parse : &b->run;
	if (a->hit != BOUND_NONE) {
		b->hit = a->hit;
	}
	if (db_vfs_temp_full(c->vfs)) {
		b->hit = BOUND_TEMP;
	}
	b->replace |= b->hit != BOUND_NONE;
}

static int result_fits(db_conn *c, size_t n) {
	db_bounds *b = c->bounds;
	if (b == NULL || c->trusted || n <= (size_t)(b->max_result - b->result)) {
		return 1;
	}
	b->hit = BOUND_RESULT;
	b->replace = 1;
	return 0;
}

// db_keep counts n bytes of the result of the entry.
int db_keep(db_conn *c, size_t n) {
	if (!result_fits(c, n)) {
		return TOOBIG;
	}
	if (c->bounds != NULL && !c->trusted) {
		c->bounds->result += (int64_t)n;
	}
	return OK;
}

// db_bound_hit says which bound has made the last call fail with the code rc; BOUND_NONE if rc has another
// cause. SQLite reports memory that it does not get in several ways.
int db_bound_hit(db_conn *c, int rc) {
	int hit = c->bounds != NULL ? c->bounds->hit : c->meter != NULL ? c->meter->hit : BOUND_NONE;
	switch (rc & 0xff) {
	case NOMEM:
		return hit == BOUND_MEMORY || hit == BOUND_STEPS || hit == BOUND_GROWTH ? hit : BOUND_NONE;
	case INTERRUPT:
		return hit == BOUND_STEPS || hit == BOUND_RESULT ? hit : BOUND_NONE;
	case FULL:
		return hit == BOUND_TEMP && (c->bounds == NULL || !db_vfs_disk_full(c->vfs)) ? hit : BOUND_NONE;
	case TOOBIG:
		return hit == BOUND_RESULT ? hit : BOUND_NONE;
	}
	return BOUND_NONE;
}

// ---- Functions that must not differ between nodes ----

static uint64_t next_random(db_conn *c) {
	uint64_t z;
	if (!c->seeded) {
		sqlite3_randomness(sizeof z, &z);
		return z;
	}
	z = (c->rng += 0x9e3779b97f4a7c15u); // splitmix64
	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
	z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
	return z ^ (z >> 31);
}

static void fn_random(sqlite3_context *ctx, int n, sqlite3_value **v) {
	(void)n, (void)v;
	int64_t r = (int64_t)next_random(sqlite3_user_data(ctx));
	if (r < 0) {
		r = -(r & INT64_MAX); // never the smallest integer, whose abs() is an error
	}
	sqlite3_result_int64(ctx, r);
}

static void fn_randomblob(sqlite3_context *ctx, int argc, sqlite3_value **v) {
	(void)argc;
	db_conn *c = sqlite3_user_data(ctx);
	int64_t n = sqlite3_value_int64(v[0]);
	if (n < 1) {
		n = 1;
	}
	if (n > sqlite3_limit(c->db, LIMIT_LENGTH, -1)) {
		sqlite3_result_error_toobig(ctx);
		return;
	}
	unsigned char *p = sqlite3_malloc64((uint64_t)n);
	if (p == NULL) {
		sqlite3_result_error_nomem(ctx);
		return;
	}
	for (int64_t i = 0; i < n;) {
		uint64_t r = next_random(c);
		for (int j = 0; j < 8 && i < n; j++, r >>= 8) {
			p[i++] = (unsigned char)r;
		}
	}
	sqlite3_result_blob64(ctx, p, (uint64_t)n, sqlite3_free);
}

static void fn_total_changes(sqlite3_context *ctx, int n, sqlite3_value **v) {
	(void)n, (void)v;
	db_conn *c = sqlite3_user_data(ctx);
	sqlite3_result_int64(ctx, sqlite3_total_changes64(c->db) - c->total_base);
}

// The built-in functions are replaced under the same flags, so that they stay forbidden where
// SQLite wants a deterministic function, and allowed in triggers, views and defaults.
static int replace_functions(db_conn *c) {
	int rc = sqlite3_create_function(c->db, "random", 0, UTF8 | INNOCUOUS, c, fn_random, NULL, NULL);
	if (rc == OK) {
		rc = sqlite3_create_function(c->db, "randomblob", 1, UTF8 | INNOCUOUS, c, fn_randomblob, NULL, NULL);
	}
	if (rc == OK) {
		rc = sqlite3_create_function(c->db, "total_changes", 0, UTF8 | INNOCUOUS, c, fn_total_changes, NULL, NULL);
	}
	return rc;
}

// ---- Connections ----

// db_open opens a connection; *out is set even if it fails, for the error message, unless there
// is no memory at all.
int db_open(const char *path, int flags, int role, struct db_vfs *v, const char *const *extensions, int count, db_conn **out) {
	db_conn *c = calloc(1, sizeof *c);
	*out = c;
	if (c == NULL) {
		return NOMEM;
	}
	c->role = role;
	c->vfs = v;
	c->refused = -1;
	db_local_time();
	int rc = sqlite3_open_v2(path, &c->db, flags, db_vfs_name(v));
	if (rc != OK) {
		return rc;
	}
	sqlite3_extended_result_codes(c->db, 1);
	sqlite3_busy_timeout(c->db, 5000);
	if ((rc = sqlite3_db_config(c->db, DBCONFIG_NO_CKPT_ON_CLOSE, 1, NULL)) != OK) {
		return rc;
	}
	// Memory of the connection's own would be used before what is counted, as far as it is free. SQLite lets go of it
	// only while none is in use.
	if (role == ROLE_WRITER && (rc = sqlite3_db_config(c->db, DBCONFIG_LOOKASIDE, NULL, 0, 0)) != OK) {
		return rc;
	}
	// Extensions come before the functions and hooks that are set here, so that theirs can't take the place of ours.
	if ((rc = db_load_extensions(c, extensions, count)) != OK) {
		return rc;
	}
	if ((rc = db_local_functions(c)) != OK) {
		return rc;
	}
	if (role == ROLE_WRITER) {
		// With what a client writes behind their backs, virtual tables crash.
		if ((rc = sqlite3_db_config(c->db, DBCONFIG_DEFENSIVE, 1, NULL)) != OK || (rc = replace_functions(c)) != OK) {
			return rc;
		}
		db_watch_rowids(c);
	} else {
		sqlite3_progress_handler(c->db, 1000, progress, c);
	}
	c->autocommit = 1;
	db_pool *pool = db_vfs_memory(v);
	if (pool != NULL) {
		if ((c->meter = calloc(1, sizeof *c->meter)) == NULL) {
			return NOMEM;
		}
		*c->meter = (db_account){.max_live = INT64_MAX, .max_volume = INT64_MAX, .max_file = INT64_MAX, .pool = pool, .reserved = FREE_OF_POOL};
		db_account_begin(c->meter);
	}
	return sqlite3_set_authorizer(c->db, authorize, c);
}

int db_close(db_conn *c) {
	int rc = sqlite3_close_v2(c->db);
	if (c->meter != NULL) {
		db_account_return(c->meter);
	}
	free(c->meter);
	free(c->bounds);
	free(c->buf.p);
	free(c->meta.p);
	sqlite3_free(c->refusal);
	db_list_free(&c->counting);
	db_list_free(&c->forgetful);
	db_list_free(&c->full);
	db_list_free(&c->targets);
	free(c);
	return rc;
}

// db_exec runs SQL of our own.
int db_exec(db_conn *c, const char *sql) {
	c->trusted = 1;
	c->denied = DENIED_NOT;
	db_account *outer = enter(c, 0, 1);
	forget_hit(c);
	int rc = sqlite3_exec(c->db, sql, NULL, NULL, NULL);
	leave(c, outer);
	c->trusted = 0;
	c->autocommit = sqlite3_get_autocommit(c->db);
	return rc;
}

int db_prepare(db_conn *c, const char *sql, int n) {
	const char *tail = sql;
	c->seen = 0;
	c->denied = DENIED_NOT;
	if (!c->trusted) {
		db_list_free(&c->targets);
	}
	db_account *outer = enter(c, 1, c->trusted);
	db_local_time_is_utc(c->utc);
	int rc = sqlite3_prepare_v3(c->db, sql, n, PREPARE_PERSISTENT, &c->stmt, &tail);
	db_local_time_is_utc(0);
	leave(c, outer);
	if (c->out_of_memory) {
		c->out_of_memory = 0;
		rc = NOMEM;
	}
	c->tail = tail != NULL && tail > sql ? (int)(tail - sql) : n;
	if (rc == OK && c->stmt != NULL) {
		c->columns = sqlite3_column_count(c->stmt);
		c->params = sqlite3_bind_parameter_count(c->stmt);
		c->readonly = sqlite3_stmt_readonly(c->stmt);
		c->explain = sqlite3_stmt_isexplain(c->stmt);
		c->heavy = c->bounds != NULL && c->bounds->parse.live > MAX_CACHED;
	}
	if (rc == OK && c->stmt != NULL && c->role == ROLE_WRITER && (c->seen & SEEN_LOCAL) && !c->readonly && !c->explain) {
		sqlite3_finalize(c->stmt);
		c->stmt = NULL;
		c->denied = DENIED_LOCAL;
		return AUTH;
	}
	return rc;
}

int db_finalize(db_conn *c, sqlite3_stmt *s) {
	db_account *outer = enter(c, 0, 1);
	int rc = sqlite3_finalize(s);
	leave(c, outer);
	return rc;
}

static int step(db_conn *c, sqlite3_stmt *s) {
	c->denied = DENIED_NOT;
	c->stepping = 1;
	if (c->role == ROLE_WRITER && !sqlite3_stmt_busy(s)) { // after the first row it has drawn and counted already
		db_before_step(c);
	}
	c->reading = sqlite3_stmt_readonly(s);
	db_account *outer = enter(c, 0, c->trusted);
	db_local_time_is_utc(c->utc);
	int rc = sqlite3_step(s);
	db_local_time_is_utc(0);
	leave(c, outer);
	c->stepping = 0;
	return rc;
}

// db_run runs a statement and drops its rows. Resetting it keeps the error message.
int db_run(db_conn *c, sqlite3_stmt *s, int once) {
	int rc = step(c, s);
	while (rc == ROW && !once) {
		rc = step(c, s);
	}
	int denied = c->denied;
	int reset = db_reset(c, s);
	c->denied = denied;
	db_counters(c);
	return rc == ROW || rc == DONE ? reset : rc;
}

int db_reset(db_conn *c, sqlite3_stmt *s) {
	db_account *outer = enter(c, 0, 1);
	int rc = sqlite3_reset(s);
	sqlite3_clear_bindings(s);
	leave(c, outer);
	sqlite3_stmt_status(s, STMTSTATUS_VM_STEP, 1); // so that count_steps is called at the same steps of each run
	return rc;
}

// ---- Rows ----

static int reserve(db_buf *b, size_t n) {
	if (b->cap - b->n >= n) {
		return OK;
	}
	size_t cap = b->cap * 2 > b->n + n ? b->cap * 2 : b->n + n + 4096;
	unsigned char *p = realloc(b->p, cap);
	if (p == NULL) {
		return NOMEM;
	}
	b->p = p;
	b->cap = cap;
	return OK;
}

static int put(db_buf *b, int type, const void *p, size_t n, int with_length) {
	if (reserve(b, n + 5) != OK) {
		return NOMEM;
	}
	b->p[b->n++] = (unsigned char)type;
	if (with_length) {
		uint32_t len = (uint32_t)n;
		memcpy(b->p + b->n, &len, 4);
		b->n += 4;
	}
	if (n > 0) {
		memcpy(b->p + b->n, p, n);
		b->n += n;
	}
	return OK;
}

// Sizes of the values that Go makes of a row.
enum { GO_ROW = 24, GO_VALUE = 16, GO_NUMBER = 8, GO_TEXT = 24 };

static int put_value(db_conn *c, sqlite3_stmt *s, int i) {
	db_buf *b = &c->buf;
	int type = sqlite3_column_type(s, i);
	size_t n = 0;
	const void *p = NULL;
	if (type == TYPE_TEXT && (p = sqlite3_column_text(s, i)) == NULL) {
		return NOMEM;
	}
	if (type == TYPE_BLOB) {
		p = sqlite3_column_blob(s, i); // NULL if empty
	}
	if (type == TYPE_TEXT || type == TYPE_BLOB) {
		n = (size_t)sqlite3_column_bytes(s, i);
	}
	if (db_keep(c, GO_VALUE + (p != NULL ? GO_TEXT + n : GO_NUMBER)) != OK) {
		return TOOBIG;
	}
	switch (type) {
	case TYPE_INTEGER: {
		int64_t v = sqlite3_column_int64(s, i);
		return put(b, type, &v, 8, 0);
	}
	case TYPE_FLOAT: {
		double v = sqlite3_column_double(s, i);
		return put(b, type, &v, 8, 0);
	}
	case TYPE_TEXT:
	case TYPE_BLOB:
		return put(b, type, p, n, 1);
	}
	return put(b, type, NULL, 0, 0);
}

static int put_row(db_conn *c, sqlite3_stmt *s) {
	db_account *outer = enter(c, 0, c->trusted);
	int n = sqlite3_column_count(s);
	int rc = db_keep(c, GO_ROW);
	for (int i = 0; i < n && rc == OK; i++) {
		rc = put_value(c, s, i);
	}
	leave(c, outer);
	return rc;
}

// db_rows steps until it has enough rows or bytes and leaves them in buf: ROW means that there are
// more. A buffer that a huge row has blown up is given back.
int db_rows(db_conn *c, sqlite3_stmt *s, int max_rows, size_t max_bytes) {
	int rc = ROW;
	if (c->buf.cap > 4 * max_bytes) {
		free(c->buf.p);
		c->buf.p = NULL;
		c->buf.cap = 0;
	}
	c->buf.n = 0;
	c->rows = 0;
	while (c->rows < max_rows && c->buf.n < max_bytes && (rc = step(c, s)) == ROW) {
		int put = put_row(c, s);
		if (put == TOOBIG) {
			// To reset the statement would commit it. An interrupt takes it back.
			sqlite3_interrupt(c->db);
			rc = step(c, s);
			c->bounds->hit = BOUND_RESULT;
			break;
		}
		if (put != OK) {
			return put;
		}
		c->rows++;
	}
	c->columns = sqlite3_column_count(s);
	c->reprepared = (unsigned)sqlite3_stmt_status(s, STMTSTATUS_REPREPARE, 0);
	db_counters(c);
	return rc;
}

static int put_name(db_conn *c, const char *name) {
	size_t n = name == NULL ? 0 : strlen(name);
	if (!result_fits(c, c->meta.n + n)) {
		return TOOBIG;
	}
	return put(&c->meta, name == NULL ? 0 : TYPE_TEXT, name, n, 1);
}

// db_columns leaves name, declared type and origin table of each column in meta.
int db_columns(db_conn *c, sqlite3_stmt *s) {
	c->meta.n = 0;
	c->columns = sqlite3_column_count(s);
	c->reprepared = (unsigned)sqlite3_stmt_status(s, STMTSTATUS_REPREPARE, 0);
	int rc = OK;
	for (int i = 0; i < 3 * c->columns && rc == OK; i++) {
		int n = i / 3;
		rc = put_name(c, i % 3 == 0 ? sqlite3_column_name(s, n) : i % 3 == 1 ? sqlite3_column_decltype(s, n) : sqlite3_column_table_name(s, n));
	}
	return rc;
}

int db_bind_text(sqlite3_stmt *s, int i, const char *p, size_t n) {
	return sqlite3_bind_text64(s, i, n == 0 ? "" : p, n, TRANSIENT, UTF8);
}

int db_bind_blob(sqlite3_stmt *s, int i, const void *p, size_t n) {
	return sqlite3_bind_blob64(s, i, n == 0 ? "" : p, n, TRANSIENT);
}

// ---- Settings and state of the connection ----

int db_foreign_keys(db_conn *c, int on) { return sqlite3_db_config(c->db, DBCONFIG_ENABLE_FKEY, on, NULL); }

int db_locked_out(db_conn *c) { return c->vfs != NULL && db_vfs_locked_out(c->vfs); }
int db_disk_full(db_conn *c) { return c->vfs != NULL && db_vfs_disk_full(c->vfs); }

int db_checkpoint(db_conn *c, int mode, int timeout_ms, int *log, int *moved) {
	sqlite3_busy_timeout(c->db, timeout_ms);
	int rc = sqlite3_wal_checkpoint_v2(c->db, "main", mode, log, moved);
	sqlite3_busy_timeout(c->db, 5000);
	return rc;
}
