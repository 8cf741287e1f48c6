// A SQLite VFS over the default one. It differs in two things: it answers what time it is from the
// log entry being applied, and it notices when a write meets a full disk.

#include "sqlite.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct sqlite3_file sqlite3_file;
typedef struct sqlite3_io_methods sqlite3_io_methods;
typedef struct sqlite3_vfs sqlite3_vfs;

struct sqlite3_file {
	const sqlite3_io_methods *pMethods;
};

// Up to xWrite as in sqlite3.h; version 3 has 15 more methods, which are copied unseen.
struct sqlite3_io_methods {
	int iVersion;
	int (*xClose)(sqlite3_file *);
	int (*xRead)(sqlite3_file *, void *, int, int64_t);
	int (*xWrite)(sqlite3_file *, const void *, int, int64_t);
	void (*others[15])(void);
};

struct sqlite3_vfs {
	int iVersion, szOsFile, mxPathname;
	sqlite3_vfs *pNext;
	const char *zName;
	void *pAppData;
	int (*xOpen)(sqlite3_vfs *, const char *, sqlite3_file *, int, int *);
	int (*xDelete)(sqlite3_vfs *, const char *, int);
	int (*xAccess)(sqlite3_vfs *, const char *, int, int *);
	int (*xFullPathname)(sqlite3_vfs *, const char *, int, char *);
	void *(*xDlOpen)(sqlite3_vfs *, const char *);
	void (*xDlError)(sqlite3_vfs *, int, char *);
	void (*(*xDlSym)(sqlite3_vfs *, void *, const char *))(void);
	void (*xDlClose)(sqlite3_vfs *, void *);
	int (*xRandomness)(sqlite3_vfs *, int, char *);
	int (*xSleep)(sqlite3_vfs *, int);
	int (*xCurrentTime)(sqlite3_vfs *, double *);
	int (*xGetLastError)(sqlite3_vfs *, int, char *);
	int (*xCurrentTimeInt64)(sqlite3_vfs *, int64_t *);
	void (*systemCalls[3])(void);
};

#pragma weak sqlite3_vfs_find
#pragma weak sqlite3_vfs_register
#pragma weak sqlite3_vfs_unregister
sqlite3_vfs *sqlite3_vfs_find(const char *);
int sqlite3_vfs_register(sqlite3_vfs *, int);
int sqlite3_vfs_unregister(sqlite3_vfs *);

enum { OK = 0, FULL = 13 };

// The methods of a file with xWrite replaced. The default VFS has one set for database files and
// one for files that need no locks; with a third the detection of a full disk would be incomplete,
// so opening such a file fails.
typedef struct {
	sqlite3_io_methods m; // first: a file's pMethods leads here
	const sqlite3_io_methods *real;
	struct db_vfs *vfs;
} db_methods;

enum { METHOD_SETS = 4 };

struct db_vfs {
	sqlite3_vfs base; // first: SQLite hands back a pointer to it
	sqlite3_vfs *real;
	int64_t clock; // milliseconds since the Julian epoch; 0 is the real time
	int disk_full;
	char name[40];
	db_methods sets[METHOD_SETS];
};

static int vfs_write(sqlite3_file *f, const void *p, int n, int64_t off) {
	const db_methods *set = (const db_methods *)f->pMethods;
	int rc = set->real->xWrite(f, p, n, off);
	if (rc == FULL) {
		set->vfs->disk_full = 1;
	}
	return rc;
}

static int vfs_open(sqlite3_vfs *base, const char *name, sqlite3_file *f, int flags, int *out) {
	struct db_vfs *v = (struct db_vfs *)base;
	int rc = v->real->xOpen(v->real, name, f, flags, out);
	if (rc != OK || f->pMethods == NULL) {
		return rc;
	}
	for (int i = 0; i < METHOD_SETS; i++) {
		db_methods *set = &v->sets[i];
		if (set->real == NULL && f->pMethods->iVersion <= 3) {
			// Older versions have fewer methods, all of which SQLite's own VFS leaves in place.
			memcpy(&set->m, f->pMethods, sizeof set->m);
			set->m.xWrite = vfs_write;
			set->real = f->pMethods;
			set->vfs = v;
		}
		if (set->real == f->pMethods) {
			f->pMethods = &set->m;
			return OK;
		}
	}
	f->pMethods->xClose(f);
	f->pMethods = NULL;
	return 14; // SQLITE_CANTOPEN
}

static int vfs_time64(sqlite3_vfs *base, int64_t *now) {
	struct db_vfs *v = (struct db_vfs *)base;
	if (v->clock == 0) {
		return v->real->xCurrentTimeInt64(v->real, now);
	}
	*now = v->clock;
	return OK;
}

static int vfs_time(sqlite3_vfs *base, double *now) {
	int64_t ms = 0;
	int rc = vfs_time64(base, &ms);
	*now = (double)ms / 86400000.0;
	return rc;
}

// db_vfs_new registers a VFS of its own for one database, so that two databases in one process
// have two clocks. It returns NULL without memory or without a suitable default VFS.
struct db_vfs *db_vfs_new(void) {
	sqlite3_vfs *real = sqlite3_vfs_find(NULL);
	struct db_vfs *v = calloc(1, sizeof *v);
	if (v == NULL || real == NULL || real->iVersion < 2) {
		free(v);
		return NULL;
	}
	v->real = real;
	v->base = *real; // the other methods find what they need in pAppData
	v->base.pNext = NULL;
	v->base.zName = v->name;
	v->base.xOpen = vfs_open;
	v->base.xCurrentTime = vfs_time;
	v->base.xCurrentTimeInt64 = vfs_time64;
	snprintf(v->name, sizeof v->name, "rqlited-%p", (void *)v);
	if (sqlite3_vfs_register(&v->base, 0) != OK) {
		free(v);
		return NULL;
	}
	return v;
}

void db_vfs_free(struct db_vfs *v) {
	if (v != NULL) {
		sqlite3_vfs_unregister(&v->base);
		free(v);
	}
}

const char *db_vfs_name(struct db_vfs *v) { return v == NULL ? NULL : v->name; }

void db_vfs_begin(struct db_vfs *v, int64_t clock) {
	v->clock = clock;
	v->disk_full = 0;
}

int db_vfs_disk_full(struct db_vfs *v) { return v->disk_full; }
