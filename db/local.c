// What SQLite would take from the node, the build or the connection, and a write could store: local
// time, functions and tables whose answers differ. docs/design/consistency.md lists all of them.

#include "equal.h"
#include <pthread.h>
#include <stdio.h>
#include <time.h>

typedef struct sqlite3_context sqlite3_context;
typedef struct sqlite3_value sqlite3_value;

#define WEAK __attribute__((weak))

WEAK int sqlite3_test_control(int, ...);
WEAK int sqlite3_create_function(sqlite3 *, const char *, int, int, void *, void (*)(sqlite3_context *, int, sqlite3_value **),
	void (*)(sqlite3_context *, int, sqlite3_value **), void (*)(sqlite3_context *));
WEAK void *sqlite3_user_data(sqlite3_context *);
WEAK int sqlite3_value_int(sqlite3_value *);
WEAK const char *sqlite3_value_text(sqlite3_value *);
WEAK void sqlite3_result_int(sqlite3_context *, int);
WEAK void sqlite3_result_text(sqlite3_context *, const char *, int, void (*)(void *));
WEAK void sqlite3_result_error(sqlite3_context *, const char *, int);
WEAK const char *sqlite3_sourceid(void);
WEAK int sqlite3_compileoption_used(const char *);
WEAK int sqlite3_stricmp(const char *, const char *);
WEAK int sqlite3_strnicmp(const char *, const char *, int);

// Numbers of sqlite3.h.
enum { OK = 0, UTF8 = 1, DETERMINISTIC = 0x800, INNOCUOUS = 0x200000, TESTCTRL_LOCALTIME_FAULT = 18, WITH_FUNCTION = 2 };
#define TRANSIENT ((void (*)(void *))-1)

// ---- Local time ----

// in_entry is set while SQLite runs for an entry that has a time. SQLite has one function for local
// time in the whole process, so the thread says whom it works for.
static __thread int in_entry;

static int local_time(const void *t, void *to) {
	if (in_entry) {
		return gmtime_r(t, to) == NULL;
	}
	tzset(); // localtime does, which SQLite would call
	return localtime_r(t, to) == NULL;
}

static void replace_local_time(void) { sqlite3_test_control(TESTCTRL_LOCALTIME_FAULT, WITH_FUNCTION, local_time); }

// db_local_time makes SQLite ask local_time, from the first call on.
void db_local_time(void) {
	static pthread_once_t once = PTHREAD_ONCE_INIT;
	pthread_once(&once, replace_local_time);
}

void db_local_time_is_utc(int utc) { in_entry = utc; }

// ---- Functions ----

// reads says whether the running statement may have an answer that differs; else it fails.
static int reads(sqlite3_context *ctx, const char *name) {
	db_conn *c = sqlite3_user_data(ctx);
	char msg[160];
	if (c->reading) {
		return 1;
	}
	snprintf(msg, sizeof msg, DB_LOCAL_FORMAT, name);
	sqlite3_result_error(ctx, msg, -1);
	return 0;
}

static void fn_version(sqlite3_context *ctx, int n, sqlite3_value **v) {
	(void)n, (void)v;
	if (reads(ctx, "sqlite_version()")) {
		sqlite3_result_text(ctx, sqlite3_libversion(), -1, TRANSIENT);
	}
}

static void fn_source_id(sqlite3_context *ctx, int n, sqlite3_value **v) {
	(void)n, (void)v;
	if (reads(ctx, "sqlite_source_id()")) {
		sqlite3_result_text(ctx, sqlite3_sourceid(), -1, TRANSIENT);
	}
}

static void fn_fts5_source_id(sqlite3_context *ctx, int n, sqlite3_value **v) {
	(void)n, (void)v;
	char id[200];
	if (reads(ctx, "fts5_source_id()")) {
		snprintf(id, sizeof id, "fts5: %s", sqlite3_sourceid());
		sqlite3_result_text(ctx, id, -1, TRANSIENT);
	}
}

static void fn_option_get(sqlite3_context *ctx, int n, sqlite3_value **v) {
	(void)n;
	if (reads(ctx, "sqlite_compileoption_get()")) {
		sqlite3_result_text(ctx, sqlite3_compileoption_get(sqlite3_value_int(v[0])), -1, TRANSIENT);
	}
}

static void fn_option_used(sqlite3_context *ctx, int n, sqlite3_value **v) {
	(void)n;
	const char *name = sqlite3_value_text(v[0]);
	if (reads(ctx, "sqlite_compileoption_used()") && name != NULL) {
		sqlite3_result_int(ctx, sqlite3_compileoption_used(name));
	}
}

// Its values begin with a number that SQLite draws for each connection, so not even a read of the
// writer's gets one that FTS5 would know.
static void fn_fts5_locale(sqlite3_context *ctx, int n, sqlite3_value **v) {
	(void)n, (void)v;
	char msg[160];
	snprintf(msg, sizeof msg, DB_LOCAL_FORMAT, "fts5_locale()");
	sqlite3_result_error(ctx, msg, -1);
}

// It gives out addresses, and with a bound parameter takes them: whoever may query could make the
// process run what he likes.
static void fn_fts3_tokenizer(sqlite3_context *ctx, int n, sqlite3_value **v) {
	(void)n, (void)v;
	sqlite3_result_error(ctx, DB_TOKENIZER, -1);
}

// db_local_functions replaces functions under the flags that SQLite's own have. A DEFAULT is not shown to the
// authorizer, so that refusing them there would not do.
int db_local_functions(db_conn *c) {
	static const struct {
		const char *name;
		int args, flags, writer;
		void (*call)(sqlite3_context *, int, sqlite3_value **);
	} all[] = {
		{"sqlite_version", 0, INNOCUOUS, 1, fn_version},
		{"sqlite_source_id", 0, INNOCUOUS, 1, fn_source_id},
		{"fts5_source_id", 0, INNOCUOUS | DETERMINISTIC, 1, fn_fts5_source_id},
		{"sqlite_compileoption_get", 1, INNOCUOUS, 1, fn_option_get},
		{"sqlite_compileoption_used", 1, INNOCUOUS, 1, fn_option_used},
		{"fts5_locale", 2, INNOCUOUS, 1, fn_fts5_locale},
		{"fts3_tokenizer", 1, 0, 0, fn_fts3_tokenizer},
		{"fts3_tokenizer", 2, 0, 0, fn_fts3_tokenizer},
	};
	for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
		if (all[i].writer && c->role != ROLE_WRITER) {
			continue;
		}
		int rc = sqlite3_create_function(c->db, all[i].name, all[i].args, UTF8 | all[i].flags, c, all[i].call, NULL, NULL);
		if (rc != OK) {
			return rc;
		}
	}
	return OK;
}

// ---- Tables ----

// The PRAGMAs that tell only of schema, content and what an entry decides. All others that can be read
// like a table are refused in writes, so that a new one is too.
static const char *const pragma_tables[] = {
	"pragma_application_id", "pragma_encoding", "pragma_foreign_key_check", "pragma_foreign_key_list", "pragma_foreign_keys",
	"pragma_index_info", "pragma_index_list", "pragma_index_xinfo", "pragma_integrity_check", "pragma_quick_check",
	"pragma_table_info", "pragma_table_list", "pragma_table_xinfo", "pragma_user_version", NULL,
};

// db_local_table says whether what the table tells differs between nodes.
int db_local_table(const char *name) {
	if (name == NULL || sqlite3_strnicmp(name, "pragma_", 7) != 0) {
		return name != NULL && sqlite3_stricmp(name, "dbstat") == 0;
	}
	for (const char *const *p = pragma_tables; *p != NULL; p++) {
		if (sqlite3_stricmp(*p, name) == 0) {
			return 0;
		}
	}
	return 1;
}
