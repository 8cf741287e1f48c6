// The beginning and the end of an entry: each begins on the same state of the connection, on every node.

#include "equal.h"
#include <stddef.h>

#define WEAK __attribute__((weak))

WEAK int sqlite3_prepare_v3(sqlite3 *, const char *, int, unsigned, sqlite3_stmt **, const char **);
WEAK int sqlite3_finalize(sqlite3_stmt *);
WEAK int sqlite3_step(sqlite3_stmt *);
WEAK int sqlite3_txn_state(sqlite3 *, const char *);
WEAK sqlite3_stmt *sqlite3_next_stmt(sqlite3 *, sqlite3_stmt *);
WEAK int sqlite3_stmt_busy(sqlite3_stmt *);
WEAK int sqlite3_get_autocommit(sqlite3 *);
WEAK int64_t sqlite3_last_insert_rowid(sqlite3 *);
WEAK void sqlite3_set_last_insert_rowid(sqlite3 *, int64_t);
WEAK int64_t sqlite3_changes64(sqlite3 *);
WEAK int64_t sqlite3_total_changes64(sqlite3 *);
WEAK int sqlite3_db_config(sqlite3 *, int, ...);

enum { OK = 0, ROW = 100, DONE = 101, DBCONFIG_DEFENSIVE = 1010, DBCONFIG_WRITABLE_SCHEMA = 1011 }; // of sqlite3.h

void db_vfs_begin(struct db_vfs *v, int64_t clock);

// changed says whether a statement of this entry has set sqlite3_changes. DROP TABLE may set it to 0, as it deletes the
// rows first where foreign keys need that; it counts only if there were any, as that could not be told from a 0 of before.
static int changed(db_conn *c) { return c->counted || sqlite3_total_changes64(c->db) != c->total_base; }

// db_counters notes what results say.
void db_counters(db_conn *c) {
	c->autocommit = sqlite3_get_autocommit(c->db);
	int64_t rowid = sqlite3_last_insert_rowid(c->db);
	c->rowid = rowid != 0 ? rowid : c->carried_rowid;
	c->changes = changed(c) ? sqlite3_changes64(c->db) : c->carried_changes;
}

// write_nothing runs a DELETE from sqlite_schema, the one table that is always there, that touches no row.
static int write_nothing(db_conn *c, const char *sql) {
	c->trusted = 1;
	sqlite3_stmt *s = NULL;
	int rc = sqlite3_db_config(c->db, DBCONFIG_DEFENSIVE, 0, NULL);
	if (rc == OK) {
		rc = sqlite3_db_config(c->db, DBCONFIG_WRITABLE_SCHEMA, 1, NULL);
	}
	if (rc == OK) {
		rc = sqlite3_prepare_v3(c->db, sql, -1, 0, &s, NULL);
	}
	if (rc == OK) {
		do {
			rc = sqlite3_step(s);
		} while (rc == ROW); // PRAGMA count_changes
		rc = rc == DONE ? OK : sqlite3_extended_errcode(c->db);
		sqlite3_finalize(s);
	}
	int off = sqlite3_db_config(c->db, DBCONFIG_WRITABLE_SCHEMA, 0, NULL);
	if (off == OK) {
		off = sqlite3_db_config(c->db, DBCONFIG_DEFENSIVE, 1, NULL);
	}
	c->trusted = 0;
	return rc != OK ? rc : off;
}

// db_zero_changes makes sqlite3_changes return 0 unless a statement of this entry has set it, so that
// changes() does not tell what an earlier entry did. SQLite has no call for that, but a DELETE does it.
int db_zero_changes(db_conn *c) {
	return changed(c) ? OK : db_forget_changes(c);
}

// db_forget_changes makes sqlite3_changes return 0.
int db_forget_changes(db_conn *c) {
	return sqlite3_changes64(c->db) == 0 ? OK : write_nothing(c, "DELETE FROM main.sqlite_schema WHERE 0");
}

// db_write_nothing begins and ends a transaction, so that memory that SQLite needs once, when it writes first, does not
// count for an entry.
int db_write_nothing(db_conn *c) { return write_nothing(c, "DELETE FROM main.sqlite_schema WHERE rowid=-1"); }

// db_begin_entry gives the connection the state that it has on every node when the entry begins.
void db_begin_entry(db_conn *c, int64_t clock, uint64_t seed) {
	sqlite3_set_last_insert_rowid(c->db, 0);
	c->total_base = sqlite3_total_changes64(c->db);
	c->counted = 0;
	c->seeded = seed != 0;
	c->rng = seed;
	c->utc = clock != 0;
	db_vfs_begin(c->vfs, clock);
}

// db_end_entry keeps the counters for the results of later entries, whose SQL does not see them.
void db_end_entry(db_conn *c) {
	db_counters(c);
	c->carried_rowid = c->rowid;
	c->carried_changes = c->changes;
	c->seeded = 0;
	c->utc = 0;
	db_vfs_begin(c->vfs, 0);
}

// db_settle ends what the entry has left running, and says whether there was anything. Nothing but a fault of SQLite, or of
// a virtual table, can leave it.
int db_settle(db_conn *c) {
	int unsettled = sqlite3_txn_state(c->db, NULL) != 0;
	for (sqlite3_stmt *s = sqlite3_next_stmt(c->db, NULL); s != NULL; s = sqlite3_next_stmt(c->db, s)) {
		if (sqlite3_stmt_busy(s)) {
			unsettled = 1;
			db_reset(c, s);
		}
	}
	if (!sqlite3_get_autocommit(c->db)) {
		db_exec(c, "ROLLBACK");
	}
	return unsettled;
}
