// The binding to SQLite's C interface. SQLite itself is compiled into the driver's package; what of
// it is used here is declared here, with the types and numbers of sqlite3.h. The symbols are weak
// because cgo links each package once by itself, without the others.
#ifndef RQLITED_SQLITE_H
#define RQLITED_SQLITE_H

#include <stddef.h>
#include <stdint.h>

typedef struct sqlite3 sqlite3;
typedef struct sqlite3_stmt sqlite3_stmt;

// What the authorizer has seen in the text being prepared.
enum {
	SEEN_TRANSACTION = 1,  // BEGIN, COMMIT, ROLLBACK, SAVEPOINT, RELEASE
	SEEN_STATE = 2,        // something that changes later statements on the same connection
	SEEN_PRAGMA = 4,       // any PRAGMA: may act while it is prepared, so it is never cached
	SEEN_CHANGES = 8,      // a call of changes(), in the text or in a trigger
	SEEN_SCHEMA = 16,      // a change of the schema
	SEEN_SELECT = 32,      // a query, alone or in another statement
	SEEN_TABLE = 64,       // CREATE TABLE
	SEEN_ROLLBACK = 128,   // ROLLBACK, also to a savepoint
	SEEN_INSERT = 256,     // rows come in, or may
	SEEN_COLUMNS = 512,    // columns of tables and views are read like a table
	SEEN_LOCAL = 1024,     // a table whose content differs between nodes
	SEEN_COUNTED = 2048,   // INSERT, UPDATE or DELETE: sets changes()
	SEEN_ANALYZE = 4096,
	SEEN_CHECK = 8192,     // integrity_check or quick_check
};

enum { ACTION_DELETE = 9, ACTION_INSERT = 18 };

// Why the authorizer has refused a statement.
enum {
	DENIED_NOT = 0,
	DENIED_PRAGMA,
	DENIED_ATTACH,
	DENIED_DETACH,
	DENIED_VACUUM_INTO,
	DENIED_TRANSACTION,
	DENIED_OPTIMIZE,
	DENIED_LOCAL,
};

// What a connection is for.
enum { ROLE_WRITER = 0, ROLE_READER, ROLE_CLASSIFIER };

// A growing buffer: rows or column names on their way to Go.
typedef struct {
	unsigned char *p;
	size_t n, cap;
} db_buf;

struct db_vfs;
struct db_sums;
struct db_bounds;
struct db_account;
struct db_pool;

// Names of tables.
typedef struct db_list {
	struct db_list *next;
	int action; // of the authorizer
	const char *schema, *name;
} db_list;

// One connection. It is used by one goroutine at a time, except cancel.
typedef struct {
	sqlite3 *db;
	struct db_vfs *vfs; // clock of the writer; NULL for a reader
	struct db_bounds *bounds; // of the writer; NULL for a reader
	struct db_account *meter; // of a reader whose memory is bounded; else NULL
	int role;
	int trusted;  // our own statements: the authorizer lets everything pass
	int stepping; // sqlite3_step is running
	int cancel;   // set by another thread: end the running statement

	unsigned seen; // SEEN_* of the last db_prepare
	int denied;    // DENIED_* since the last db_prepare or db_step

	int seeded;         // random numbers come from rng, not from the system
	uint64_t rng;       // state of splitmix64
	int utc;              // local time is UTC
	int reading;          // the statement that is run only reads
	char local[64];       // the table seen by SEEN_LOCAL
	db_list *counting;    // tables with AUTOINCREMENT
	db_list *forgetful;   // FTS5 tables that leave state on the connection when they are written
	db_list *full;        // tables that hold the rowid already; a file has brought them
	db_list *targets;     // what the statement prepared last writes to, while record_targets is set
	int record_targets, out_of_memory;
	int overfull;         // a row was given the largest rowid
	char overfull_table[64];
	int64_t rowid_before, total_before; // sqlite3_last_insert_rowid and sqlite3_total_changes before the statement

	int counted; // a statement of this entry has set sqlite3_changes
	int64_t total_base; // sqlite3_total_changes when the entry began

	// Results of the calls below.
	sqlite3_stmt *stmt;
	int tail; // bytes of the text that db_prepare has consumed
	int columns, params, readonly, explain;
	int heavy; // what was prepared needs too much memory to be kept
	int autocommit;
	int64_t rowid, changes;
	int64_t carried_rowid, carried_changes; // what they were when the last entry ended
	int rows;
	unsigned reprepared;
	db_buf buf;  // rows
	db_buf meta; // columns
	int refused;   // the extension that could not be loaded, counted from 0; -1: none
	char *refusal; // its words; may be NULL
} db_conn;

// The state of the WAL as all processes see it.
typedef struct {
	uint32_t changes; // goes up with each commit
	uint32_t frames;  // committed
	uint32_t pages;   // in the database after the last of them
	uint32_t salt[2]; // others each time the WAL is started again
	uint32_t moved;   // frames that are in the main file
	uint32_t attempted; // the same, set before they are moved
} db_view;

int db_open(const char *path, int flags, int role, struct db_vfs *v, const char *const *extensions, int count, db_conn **out);
int db_library_keep(const char *path, char *err, size_t n);
int db_load_extensions(db_conn *c, const char *const *paths, int n);
int db_close(db_conn *c);
int db_exec(db_conn *c, const char *sql);
int db_prepare(db_conn *c, const char *sql, int n);
int db_finalize(db_conn *c, sqlite3_stmt *s);
int db_run(db_conn *c, sqlite3_stmt *s, int once);
int db_rows(db_conn *c, sqlite3_stmt *s, int max_rows, size_t max_bytes);
int db_columns(db_conn *c, sqlite3_stmt *s);
int db_reset(db_conn *c, sqlite3_stmt *s);
void db_begin_entry(db_conn *c, int64_t clock, uint64_t seed);
int db_zero_changes(db_conn *c);
int db_forget_changes(db_conn *c);
int db_write_nothing(db_conn *c);
void db_end_entry(db_conn *c);
int db_settle(db_conn *c);
int db_checkpoint(db_conn *c, int mode, int timeout_ms, int *log, int *moved);
int db_disk_full(db_conn *c);
int db_begin_bounds(db_conn *c);
int db_end_bounds(db_conn *c);
int db_bound_hit(db_conn *c, int rc);
int db_keep(db_conn *c, size_t n);
int64_t db_room(db_conn *c);
int db_set_bounds(db_conn *c, int value, int64_t memory, int64_t volume, int64_t steps, int64_t result, int64_t room);
int db_locked_out(db_conn *c);
int db_foreign_keys(db_conn *c, int on);
int db_list_add(db_list **list, int action, const char *schema, const char *name);
void db_list_free(db_list **list);
int db_overfull_done(db_conn *c);
int db_wal_view(sqlite3 *db, db_view *out);
int db_bind_text(sqlite3_stmt *s, int i, const char *p, size_t n);
int db_bind_blob(sqlite3_stmt *s, int i, const void *p, size_t n);

struct db_vfs *db_vfs_new(const char *path, int bounded);
int db_account_installed(void);
void db_vfs_share(struct db_vfs *v, int64_t memory);
struct db_pool *db_vfs_memory(struct db_vfs *v);
void db_vfs_free(struct db_vfs *v);
int db_rest(db_conn *c);
void db_vfs_use(struct db_vfs *v, struct db_sums *s);

#pragma weak sqlite3_errmsg
#pragma weak sqlite3_extended_errcode
#pragma weak sqlite3_system_errno
#pragma weak sqlite3_libversion
#pragma weak sqlite3_bind_int64
#pragma weak sqlite3_bind_double
#pragma weak sqlite3_bind_null
#pragma weak sqlite3_bind_parameter_index
#pragma weak sqlite3_compileoption_get

const char *sqlite3_errmsg(sqlite3 *);
int sqlite3_extended_errcode(sqlite3 *);
int sqlite3_system_errno(sqlite3 *);
const char *sqlite3_libversion(void);
int sqlite3_bind_int64(sqlite3_stmt *, int, int64_t);
int sqlite3_bind_double(sqlite3_stmt *, int, double);
int sqlite3_bind_null(sqlite3_stmt *, int);
int sqlite3_bind_parameter_index(sqlite3_stmt *, const char *);
const char *sqlite3_compileoption_get(int);

#endif
