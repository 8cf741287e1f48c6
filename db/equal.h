// What keeps replicas equal and SQLite has no setting for: local.c, rowids.c and entry.c, beside sqlite.c.
#ifndef RQLITED_EQUAL_H
#define RQLITED_EQUAL_H

#include "sqlite.h"

// What a client is told; db/policy.go has the same words.
#define DB_LOCAL_FORMAT "%s is not allowed in a statement that writes: it differs between nodes"
#define DB_TOKENIZER "fts3_tokenizer() is not allowed"

void db_local_time(void);
void db_local_time_is_utc(int utc);
int db_local_functions(db_conn *c);
int db_local_table(const char *name);

int db_listed(const db_list *l, const char *schema, const char *name);
void db_watch_rowids(db_conn *c);
void db_before_step(db_conn *c);
void db_counters(db_conn *c);

#endif
