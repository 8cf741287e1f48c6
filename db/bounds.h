// The bounds of what the statements of one entry may use. They count only what the entry and the content
// of the database decide, so that all replicas meet them at the same point.
#ifndef RQLITED_BOUNDS_H
#define RQLITED_BOUNDS_H

#include <stdint.h>

// The bounds that a statement can meet.
enum {
	BOUND_NONE = 0,
	BOUND_MEMORY, // live memory of SQLite
	BOUND_STEPS,  // steps of its virtual machine, or memory allocated over time
	BOUND_RESULT, // rows kept for the answer
	BOUND_TEMP,   // temporary files
	BOUND_GROWTH, // size of the database
};

// An account of the memory that SQLite allocates on a thread while the account is current there.
typedef struct db_account {
	uint64_t epoch; // the tag of what counts; an account that begins anew takes another
	int exempt;     // count, and refuse nothing
	int hit;        // BOUND_*: what it has refused
	int64_t live, peak;
	int64_t volume; // allocated in total
	int64_t max_live, max_volume;
	int64_t max_file; // bytes that the database may have

	struct db_pool *pool; // shared with others; NULL if it is not
	int64_t reserved;     // bytes of the pool, and FREE_OF_POOL more
} db_account;

// Memory that several accounts share. What each of them needs first is not counted.
typedef struct db_pool {
	int64_t max, used;
} db_pool;

enum { FREE_OF_POOL = 1 << 20, POOL_CHUNK = 256 << 10 };

// The bounds of the writer.
typedef struct db_bounds {
	db_account parse; // of one sqlite3_prepare, which an entry may need or find cached
	db_account run;   // of an entry, but for its parse
	int64_t max_steps, steps, parse_steps;
	int64_t max_result, result; // bytes, as Go keeps them
	int64_t min_room, room;     // bytes of temporary files, and of growth, that the entry may use
	int64_t retained; // bytes that entries have left on the connection
	int parsing;
	int replace; // the connection, once the entry has ended
	int hit; // BOUND_* of the last call
} db_bounds;

void db_account_begin(db_account *a);
db_account *db_account_enter(db_account *a);
void db_account_leave(db_account *outer);
void db_account_return(db_account *a);
int db_account_installed(void);

#endif
