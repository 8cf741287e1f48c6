// The largest rowid. SQLite gives further rows of a table that holds it rowids of its own random numbers, which are
// others on each node. So no row gets it, except with AUTOINCREMENT, where SQLite reports an error instead.

#include "equal.h"
#include <stdlib.h>
#include <string.h>

#define WEAK __attribute__((weak))

WEAK void *sqlite3_update_hook(sqlite3 *, void (*)(void *, int, const char *, const char *, int64_t), void *);
WEAK void *sqlite3_commit_hook(sqlite3 *, int (*)(void *), void *);
WEAK int64_t sqlite3_total_changes64(sqlite3 *);
WEAK int64_t sqlite3_last_insert_rowid(sqlite3 *);
WEAK void sqlite3_set_last_insert_rowid(sqlite3 *, int64_t);
WEAK int sqlite3_stricmp(const char *, const char *);

enum { DELETE = 9 };

// db_list_add adds a name; 0 means that there is no memory.
int db_list_add(db_list **list, int action, const char *schema, const char *name) {
	size_t n = strlen(schema) + 1, m = strlen(name) + 1;
	db_list *l = malloc(sizeof *l + n + m);
	if (l == NULL) {
		return 0;
	}
	l->action = action;
	l->schema = memcpy((char *)(l + 1), schema, n);
	l->name = memcpy((char *)(l + 1) + n, name, m);
	l->next = *list;
	*list = l;
	return 1;
}

void db_list_free(db_list **list) {
	while (*list != NULL) {
		db_list *l = *list;
		*list = l->next;
		free(l);
	}
}

// db_listed says whether a list has a name.
int db_listed(const db_list *l, const char *schema, const char *name) {
	for (; l != NULL; l = l->next) {
		if (sqlite3_stricmp(l->schema, schema) == 0 && sqlite3_stricmp(l->name, name) == 0) {
			return 1;
		}
	}
	return 0;
}

// updated is called for each row that is written. It can't stop the statement, only have it taken back.
static void updated(void *p, int op, const char *schema, const char *table, int64_t rowid) {
	db_conn *c = p;
	if (rowid != INT64_MAX || op == DELETE || c->overfull) {
		return;
	}
	if (db_listed(c->counting, schema, table) || db_listed(c->full, schema, table)) {
		return;
	}
	c->overfull = 1;
	strncpy(c->overfull_table, table, sizeof c->overfull_table - 1);
}

// committing turns the COMMIT of a statement outside a transaction into a ROLLBACK.
static int committing(void *p) { return ((db_conn *)p)->overfull; }

void db_watch_rowids(db_conn *c) {
	sqlite3_update_hook(c->db, updated, c);
	sqlite3_commit_hook(c->db, committing, c);
}

void db_before_step(db_conn *c) {
	c->rowid_before = sqlite3_last_insert_rowid(c->db);
	c->total_before = sqlite3_total_changes64(c->db);
}

// db_overfull_done makes SQL forget what the statement taken back has drawn and counted.
int db_overfull_done(db_conn *c) {
	c->overfull = 0;
	c->counted = 1;
	sqlite3_set_last_insert_rowid(c->db, c->rowid_before);
	c->total_base += sqlite3_total_changes64(c->db) - c->total_before;
	return db_forget_changes(c);
}
